"""Hand-made scans: a few voxels each, in any direction, type and state of repair."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.msd_liver import write_phantom

Put = Callable[..., Path]
HOUNSFIELD = (-1000, 1000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty dataset's folder."""
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / "data" / "Task03_Liver" / name).mkdir(parents=True)
    return tmp_path / "data"


@pytest.fixture
def put(root: Path) -> Put:
    """Write one scan; `kind` is the label's type, `to` the direction of the axes, `spacing` that of x, y, z."""

    def write(
        name: str,
        *,
        image: NDArray[Any] | None = None,
        label: NDArray[Any] | None = None,
        kind: Any = np.uint8,
        to: str = "RAS",
        spacing: tuple[float, float, float] = (2.0, 2.0, 3.0),
    ) -> Path:
        rng = np.random.default_rng(len(name))
        image = rng.integers(*HOUNSFIELD, (12, 10, 8), dtype=np.int16) if image is None else image
        label = rng.integers(0, 3, image.shape) if label is None else label
        home = root / "Task03_Liver"
        save(home / "imagesTr" / f"{name}.nii.gz", image, spacing, to)
        save(home / "labelsTr" / f"{name}.nii.gz", label.astype(kind), spacing, to)
        return home

    return write


def save(path: Path, values: NDArray[Any], spacing: tuple[float, float, float], to: str) -> None:
    """Save values (x to the right, y to the front, z upwards) with the axes turned to other directions."""
    picture = nib.Nifti1Image(values, np.diag([*spacing, 1.0]))
    change = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(to))
    nib.save(picture.as_reoriented(change), path)


def truncate(path: Path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def claim(path: Path, shape: tuple[int, int, int]) -> None:
    """Make a header claim another shape; the data stay."""
    patch(path, 40, np.array([3, *shape], dtype="<i2"))


def patch(path: Path, offset: int, values: NDArray[Any]) -> None:
    """Overwrite bytes of a gzipped file's content."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[offset : offset + values.nbytes] = values.tobytes()
    path.write_bytes(gzip.compress(bytes(content)))


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "msd"
    write_phantom(out, images=4, seed=3)
    return out
