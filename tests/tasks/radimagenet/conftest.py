"""A phantom of this dataset, and a writer of hand-made folders."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.radimagenet import write_phantom

CSVS = ("RadiologyAI_train.csv", "RadiologyAI_val.csv", "RadiologyAI_test.csv")
# As found in the wild: the official names, in three parts.
ROWS = (
    ("radiology_ai/CT/lung/normal/lung-normal000032.png", "radiology_ai/MR/knee/acl_pathology/acl1.png"),
    ("radiology_ai/US/liver/usn053022.png",),
    ("radiology_ai/MR/af/Plantar_plate_tear/p1.png",),
)

Writer = Callable[..., Path]


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("radimagenet") / "phantom"
    write_phantom(root, images=600, seed=3, side=48)
    return root


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Write a dataset of random RGB images, 22 x 20 pixels."""

    def make(rows: Iterable[Iterable[str]] = ROWS, *, csvs: str = ".", header: str = "filename,label") -> Path:
        root = tmp_path / "rin"
        (root / "radiology_ai").mkdir(parents=True)
        generator = np.random.default_rng(1)
        for name, lines in zip(CSVS, rows, strict=True):
            (root / csvs / name).write_text("\n".join([header, *(f"{line},text" for line in lines)]) + "\n")
            for line in lines:
                path = root / line
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(generator.integers(0, 256, (20, 22, 3), dtype=np.uint8)).save(path, format="PNG")
        return root

    return make
