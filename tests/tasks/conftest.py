"""Datasets for these tests: a small phantom, hand-made folders, the real data if there; an own cache."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.sections import TaskSettings
from tasks.base import Mapped, Records, Splits
from tasks.ham10000 import write_phantom
from tasks.registry import get

# lesion, image, dx, dx_type, age, sex, localization, dataset
ROWS = [
    "HAM_1,ISIC_1,nv,histo,45.0,male,back,rosendahl",
    "HAM_1,ISIC_2,nv,histo,45.0,male,back,rosendahl",
    "HAM_2,ISIC_3,mel,histo,,unknown,unknown,vidir_modern",
    "HAM_3,ISIC_4,akiec,histo,80.0,female,face,rosendahl",
]
HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset"

Writer = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDWARD_CACHE", str(folder))
        yield folder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "own-cache"
    monkeypatch.setenv("FEDWARD_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def data() -> Path:
    given = os.environ.get("FEDWARD_DATA")
    if not given or not (Path(given) / "ham10000").is_dir():
        pytest.skip("FEDWARD_DATA does not name a folder with ham10000")
    return Path(given)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom") / "ham"
    write_phantom(root, images=400, seed=3)
    return root


@pytest.fixture(scope="session")
def phantom_splits(phantom: Path) -> Splits:
    return get(TaskSettings(root=str(phantom))).load()


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Write a small dataset; the images are random pixels, 40 x 30."""

    def make(
        rows: list[str] | None = None,
        *,
        header: str = HEADER,
        name: str = "HAM10000_metadata.csv",
        folder: str = "HAM10000_images",
    ) -> Path:
        root = tmp_path / "ham"
        (root / folder).mkdir(parents=True)
        lines = ROWS if rows is None else rows
        (root / name).write_text("\n".join([header, *lines]) + "\n")
        generator = np.random.default_rng(1)
        for line in lines:
            pixels = generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{line.split(',')[1]}.jpg", quality=95)
        return root

    return make


def make_records(sizes: list[int], labels: list[int], sites: list[str]) -> Records:
    """Return records of units with so many images; labels and sites are per unit, images are empty."""
    units = [f"unit-{k:04d}" for k, size in enumerate(sizes) for _ in range(size)]
    n = len(units)
    return Records(
        images=Mapped(np.zeros((n, 1, 1, 1), dtype=np.uint8)),
        labels=np.repeat(np.array(labels, dtype=np.int64), sizes),
        units=np.array(units, dtype=np.str_),
        sites=np.repeat(np.array(sites, dtype=np.str_), sizes),
        ids=np.array([f"image-{k:05d}" for k in range(n)], dtype=np.str_),
        rows=np.arange(n, dtype=np.int64),
    )
