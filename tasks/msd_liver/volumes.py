"""Read all scans once, and keep them as uint8 arrays on disk that many processes can map."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from configs.errors import InputError
from tasks.cache import appearing, cache_folder
from tasks.msd_liver.files import Listing
from tasks.msd_liver.nifti import TUMOUR, read_volume

# Raise it whenever `read_volume` would give other voxels: the cache of the older code is then left alone.
VERSION = 1
_IMAGES, _MASKS, _SCANS = "images.bin", "masks.bin", "scans.json"


@final
@dataclass(frozen=True)
class Volumes:
    """All readable scans of a dataset at one size.

    Attributes:
        images: uint8 (n, 1, depth, height, width), a read-only map.
        masks: uint8 (n, depth, height, width), a read-only map.
        names: str (n,).
        spacings: float64 (n,), mm between the original slices.
        tumours: int64 (n,), tumour voxels of the original label.
        notes: a sentence for each scan that was left out, or whose tumour is too small for this size.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    names: NDArray[np.str_]
    spacings: NDArray[np.float64]
    tumours: NDArray[np.int64]
    notes: tuple[str, ...]


def load_volumes(listing: Listing, shape: tuple[int, int, int], *, skip: bool) -> Volumes:
    """Return the listed scans, resampled to `shape` (depth, height, width).

    The first call for a dataset and shape reads everything; later ones open files.

    Args:
        listing: the scans.
        shape: of the resampled volumes.
        skip: leave a damaged scan out, with a note; else it is an error.

    Raises:
        InputError: naming the damaged file, or the cache that cannot be written; nothing half-made stays.
    """
    words = f"{VERSION}/{listing.fingerprint}/{shape}/{skip}"
    size = "x".join(str(side) for side in shape)
    folder = cache_folder() / f"msd_liver-{size}-{hashlib.sha256(words.encode()).hexdigest()[:32]}"
    there = folder.is_dir()
    cached = _open(folder, shape)
    if cached is None:
        if there:  # it appeared whole, so something damaged it since; a folder with content is never replaced
            shutil.rmtree(folder, ignore_errors=True)
        _build(folder, listing, shape, skip=skip)
        cached = _open(folder, shape)
    if cached is None:
        raise InputError(f"{folder}: the cache cannot be read back; delete it and try again.")
    return cached


def _open(folder: Path, shape: tuple[int, int, int]) -> Volumes | None:
    try:
        table: dict[str, Any] = json.loads((folder / _SCANS).read_text())
        n = len(table["names"])
        sizes = [(folder / name).stat().st_size for name in (_IMAGES, _MASKS)]
        if sizes != [n * int(np.prod(shape))] * 2:
            return None
        return Volumes(
            images=np.memmap(folder / _IMAGES, np.uint8, "r", shape=(n, 1, *shape)),
            masks=np.memmap(folder / _MASKS, np.uint8, "r", shape=(n, *shape)),
            names=np.array(table["names"], dtype=np.str_),
            spacings=np.array(table["spacings"], dtype=np.float64),
            tumours=np.array(table["tumours"], dtype=np.int64),
            notes=tuple(table["notes"]),
        )
    except (OSError, ValueError, KeyError):  # absent, or damaged by a crash of the machine: read again
        return None


def _build(folder: Path, listing: Listing, shape: tuple[int, int, int], *, skip: bool) -> None:
    table: dict[str, list[Any]] = {"names": [], "spacings": [], "tumours": [], "notes": []}
    # Written in pieces, not through a map: a full disk is then an error of `write` and no SIGBUS. One scan at a
    # time: the largest takes gigabytes while it is read.
    with appearing(folder) as draft:
        draft.mkdir()
        with (draft / _IMAGES).open("wb") as images, (draft / _MASKS).open("wb") as masks:
            for scan in listing.scans:
                try:
                    volume = read_volume(scan, shape)
                except InputError as error:
                    if not skip:
                        raise
                    table["notes"].append(f"{error} It was left out.")
                    continue
                images.write(volume.pixels.tobytes())
                masks.write(volume.mask.tobytes())
                table["names"].append(scan.name)
                table["spacings"].append(volume.spacing)
                table["tumours"].append(volume.tumour)
                if volume.tumour and not bool((volume.mask == TUMOUR).any()):
                    table["notes"].append(_vanished(scan.name, volume.tumour, shape))
        (draft / _SCANS).write_text(json.dumps(table))


def _vanished(name: str, voxels: int, shape: tuple[int, int, int]) -> str:
    size = " x ".join(str(side) for side in shape)
    return f"{name}: its tumour of {voxels} voxels falls between the voxels of {size}; its mask has none there."
