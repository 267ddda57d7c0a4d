"""Build the splits of MSD Liver: by scan, in rotations, as volumes or as axial slices."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from configs.errors import InputError
from configs.seeds import derive
from tasks.base import Mapped, Records, Splits
from tasks.msd_liver.files import list_scans
from tasks.msd_liver.nifti import TUMOUR
from tasks.msd_liver.volumes import Volumes, load_volumes

# The paper's: 106 scans for training, 12 for validation, 13 for the test.
ALL, VALIDATION, TEST = 131, 12, 13
LEAST = 3
# MSD Liver's metadata know no hospital. How far slices lie apart (0.45 to 6 mm) is a matter of the scanner's
# protocol, so it stands in for the site; the names say what was measured.
SITES = ((1.0, "slices up to 1 mm"), (3.0, "slices over 1 to 3 mm"), (np.inf, "slices over 3 mm"))

Rows = NDArray[np.int64]


def load_splits(
    root: Path, *, shape: tuple[int, int, int], slices: bool, split_seed: int, fold: int, skip: bool
) -> Splits:
    """Read MSD Liver under `root` and split it by scan: 106, 12 and 13 of the whole dataset's 131.

    Who a scan shows is not known, so a patient who was scanned twice may stand in two parts.

    Args:
        root: the dataset's folder.
        shape: (depth, height, width) that every scan is resampled to.
        slices: records are axial slices; units and parts stay scans.
        split_seed: of the order of scans.
        fold: which of the rotations, see `split_scans`.
        skip: leave damaged scans out, with a note.

    Raises:
        InputError: naming the file that is missing or wrong, or the setting that cannot be met.
    """
    listing = list_scans(root, skip=skip)
    volumes = load_volumes(listing, shape, skip=skip)
    parts = split_scans(len(volumes.names), split_seed, fold)
    records = _slice_records(volumes) if slices else _volume_records(volumes)
    per_scan = shape[0] if slices else 1
    train, validation, test = (records.take((part[:, None] * per_scan + np.arange(per_scan)).ravel()) for part in parts)
    # What was left out is not in the data any more: two runs that read different scans must not look alike.
    kept = hashlib.sha256("\n".join([listing.fingerprint, *volumes.names.tolist()]).encode()).hexdigest()
    return Splits(train, validation, test, kept, (*listing.notes, *volumes.notes))


def split_scans(count: int, seed: int, fold: int) -> tuple[Rows, Rows, Rows]:
    """Return the positions of training, validation and test scans, each ascending.

    Sizes follow 106/12/13, with one scan or more in each part, and two or more of eight in the test. The scans
    are shuffled once per seed; fold f tests on the f-th piece of that order, so no scan is tested in two folds.

    Raises:
        InputError: fewer than 3 scans, or a fold beyond what the scans give.
    """
    if count < LEAST:
        raise InputError(f"task.root: {count} readable scans cannot be split in three; give {LEAST} or more.")
    test = max(1, min(2, count // 4), round(count * TEST / ALL))
    validation = max(1, round(count * VALIDATION / ALL))
    folds = count // test
    if fold >= folds:
        raise InputError(
            f"task.fold: {count} scans with {test} of them in the test give the folds 0 to {folds - 1}, not {fold}."
        )
    order = np.random.default_rng(derive(seed, "split", "scans")).permutation(count).astype(np.int64)
    order = np.roll(order, -fold * test)
    return np.sort(order[test + validation :]), np.sort(order[test : test + validation]), np.sort(order[:test])


def site_of(spacing: float) -> str:
    """Return the group of a distance between slices in mm (files keep 3 mm as 3.0000001, so micrometres count)."""
    return next(name for limit, name in SITES if round(spacing, 3) <= limit)


def _volume_records(volumes: Volumes) -> Records:
    return _records(volumes, 1, Mapped(volumes.images), Mapped(volumes.masks), volumes.tumours > 0, volumes.names)


def _slice_records(volumes: Volumes) -> Records:
    n, _, depth, height, width = volumes.images.shape
    masks = volumes.masks.reshape(n * depth, height, width)
    tumour = np.array([bool((mask == TUMOUR).any()) for mask in masks], dtype=np.bool_)
    ids = np.array([f"{name}/{z:03d}" for name in volumes.names.tolist() for z in range(depth)], dtype=np.str_)
    images = Mapped(volumes.images.reshape(n * depth, 1, height, width))
    return _records(volumes, depth, images, Mapped(masks), tumour, ids)


def _records(
    volumes: Volumes, each: int, images: Mapped, masks: Mapped, tumour: NDArray[np.bool_], ids: NDArray[np.str_]
) -> Records:
    sites = np.repeat(np.array([site_of(s) for s in volumes.spacings.tolist()], dtype=np.str_), each)
    return Records(
        images=images,
        labels=tumour.astype(np.int64),
        units=np.repeat(volumes.names, each),
        sites=sites,
        ids=ids,
        rows=np.arange(len(ids), dtype=np.int64),
        masks=masks,
        groups={"spacing": sites, "tumour": np.repeat(np.where(volumes.tumours > 0, "yes", "no"), each)},
    )
