"""A synthetic MSD Liver on disk: official layout, real priors, scans of every size and direction."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Image
from nibabel.orientations import axcodes2ornt, ornt_transform
from numpy.typing import NDArray

from configs.errors import InputError
from configs.sections import TaskSettings
from configs.seeds import derive
from tasks.cache import appearing
from tasks.msd_liver.files import FOLDER, IMAGES, LABELS
from tasks.msd_liver.loading import LEAST
from tasks.msd_liver.nifti import CLASSES
from tasks.msd_liver.phantom_bodies import Grid, draw_body
from tasks.phantoms import cached_phantom, new_folder

# Raise it whenever the same seed would give other files.
VERSION = 1
# Above MSD's own numbers, so that a phantom is never mistaken for a patient.
FIRST_NUMBER = 9000
# Of 131 scans 118 show a tumour, and most of those show several.
WITH_TUMOUR = 118 / 131
# Distances between slices in mm as LiTS has them, mostly near 1; in plane the phantom is coarse to stay small.
SPACINGS = (0.7, 0.8, 1.0, 1.25, 2.0, 2.5, 3.0, 5.0)
WEIGHTS = (0.15, 0.2, 0.25, 0.1, 0.05, 0.1, 0.05, 0.1)
SIDES = (64, 72, 80)
DIRECTIONS = ("RAS", "LAS", "LPS", "RPI", "ASR", "SPL")


def phantom_root(settings: TaskSettings, seed: int = 0) -> Path:
    """Return the folder of the phantom with `settings.phantom_images` scans, written at the first call.

    Another seed gives other patients from the same distribution, e.g. as an adversary's public data.

    Raises:
        InputError: the cache folder cannot be written.
    """
    return cached_phantom("msd_liver", VERSION, settings.phantom_images, seed, _write)


def write_phantom(out: Path, *, images: int, seed: int) -> None:
    """Write a synthetic MSD Liver of so many labelled scans to the folder `out`: gzipped NIfTI and dataset.json.

    Scans take 0.3 to 2 MB each. Sides, spacing and the direction of axes vary, labels are uint8 or float32, and
    one of macOS' junk files lies among them, as in copies of the real dataset. With one set of library versions
    the same seed gives the same bytes. The folder appears when it is whole.

    Raises:
        InputError: fewer than 3 scans, or `out` has content already.
    """
    _write(new_folder(out), images, seed)


def _write(out: Path, images: int, seed: int) -> None:
    if images < LEAST:
        raise InputError(f"task.phantom_images: {images} scans cannot be split in three; use {LEAST} or more.")
    generator = np.random.default_rng(derive(seed, "phantom", "scans"))
    # At least one scan with and one without, whatever the number of scans.
    with_tumour = min(max(1, round(images * WITH_TUMOUR)), images - 1)
    shows = generator.permutation(images) < with_tumour
    with appearing(out) as draft:
        home = draft / FOLDER
        for folder in (IMAGES, LABELS, "imagesTs"):
            (home / folder).mkdir(parents=True)
        names = [f"liver_{FIRST_NUMBER + k}.nii.gz" for k in range(images)]
        for k, name in enumerate(names):
            _write_scan(home, name, tumour=bool(shows[k]), generator=np.random.default_rng(derive(seed, "scan", k)))
        (home / IMAGES / f"._{names[0]}").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ")
        (home / "dataset.json").write_text(json.dumps(_description(names), indent=1))
        (draft / "PHANTOM.txt").write_text("Synthetic scans: no patient, no organ, nothing is real.\n")


def _write_scan(home: Path, name: str, *, tumour: bool, generator: np.random.Generator) -> None:
    step = float(generator.choice(SPACINGS, p=WEIGHTS))
    side = int(generator.choice(SIDES))
    pixel = float(generator.uniform(385, 430)) / side
    height = float(generator.uniform(190, 250))
    grid = Grid((max(24, round(height / step)), side, side), (step, pixel, pixel))
    image, mask = draw_body(grid, int(generator.integers(1, 6)) if tumour else 0, generator)
    direction = str(generator.choice(DIRECTIONS))
    kind = np.float32 if generator.random() < 0.5 else np.uint8
    _save(home / IMAGES / name, image, grid, direction)
    _save(home / LABELS / name, mask.astype(kind), grid, direction)


def _save(path: Path, values: NDArray[Any], grid: Grid, to: str) -> None:
    # (z, y, x) with x to the left, y to the back, z upwards is, read backwards, nibabel's direction LPS.
    affine = np.diag([-grid.spacing[2], -grid.spacing[1], grid.spacing[0], 1.0])
    affine[:3, 3] = [grid.spacing[2] * grid.shape[2] / 2, grid.spacing[1] * grid.shape[1] / 2, 0]
    picture = Nifti1Image(values.transpose(2, 1, 0), affine)
    change: Any = ornt_transform(axcodes2ornt("LPS"), axcodes2ornt(to))
    picture.as_reoriented(change).to_filename(path)


def _description(names: list[str]) -> dict[str, object]:
    return {
        "name": "Liver",
        "description": "Synthetic: liver and tumour of nobody",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {str(k): name for k, name in enumerate(CLASSES)},
        "numTraining": len(names),
        "numTest": 0,
        "training": [{"image": f"./{IMAGES}/{n}", "label": f"./{LABELS}/{n}"} for n in names],
        "test": [],
    }
