"""Build the splits of RadImageNet: by its CSVs, decoded when read."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from configs.errors import InputError
from tasks.base import Records, Splits
from tasks.cache import cache_folder
from tasks.decoding import decode_square
from tasks.lazy import Lazy
from tasks.radimagenet.metadata import FILES, IMAGES, Index, present, read_index
from tasks.radimagenet.taxonomy import CLASSES

# Raise it whenever a file would give other pixels: the store of the older code is then left alone.
VERSION = 1
NO_PATIENTS = (
    "RadImageNet's CSVs name no patients: each image is a unit of its own, privacy is per image and not per patient, "
    "and images of one patient may stand at two hospitals."
)
_SKIP = "or set task.damaged: skip to leave it out and have it listed"


@final
@dataclass(frozen=True)
class Decode:
    """Gives the grey picture of a row of the index, uint8 (1, size, size)."""

    index: Index
    size: int

    def __call__(self, row: int) -> NDArray[np.uint8]:
        """Decode the row's file; raises InputError naming it."""
        try:
            return decode_square(self.index.path(row), self.size, kind="PNG", mode="L", dataset="RadImageNet")
        except InputError as error:
            raise InputError(f"{error} (Or set task.damaged: skip and start again: it is then left out.)") from error


def pictures(index: Index, size: int) -> Lazy:
    """Return the pictures of all rows of the index, uint8 (n, 1, size, size); each is decoded at its first read.

    The store in the cache belongs to the CSVs, the folder and the size. An image that is exchanged under its old
    name after it was decoded is not noticed: delete the store then.
    """
    key = hashlib.sha256(f"{VERSION}/{index.digest}/{index.home}/{size}".encode()).hexdigest()
    store = cache_folder() / f"radimagenet-{size}-{key[:32]}"
    return Lazy(store, Decode(index, size), count=len(index), shape=(1, size, size))


def load_splits(root: Path, *, size: int, damaged: Literal["stop", "skip"] = "stop") -> Splits:
    """Read RadImageNet under `root` and split it as its three CSVs do; no image is decoded yet.

    The unit is the image: the CSVs carry no patient id, so one patient's images may stand in two parts, and nothing
    here can tell.

    With `skip`, images that are missing are left out and listed in the notes, and so are those that an earlier read
    found damaged. A file that turns out damaged later stops that run, naming the file: leaving it out in the middle
    would change what the sample rate and the ledger were made for.

    Raises:
        InputError: naming the file, class folder or image that is missing or wrong.
    """
    index = read_index(root)
    images = pictures(index, size)
    there, unnamed = present(index)
    if damaged == "stop" and not there.all():
        raise InputError(_absent(index, np.flatnonzero(~there)))
    faults = [fault for fault in images.known_faults() if there[fault[0]]] if damaged == "skip" else []
    kept = there.copy()
    kept[[row for row, _ in faults]] = False
    ids = _ids(index)
    splits = [_part(index, images, ids, np.flatnonzero(kept & (index.parts == part))) for part in range(3)]
    for file, part in zip(FILES, splits, strict=True):
        if not len(part):
            raise InputError(f"task.root: no image of {file} is left under {index.home}; download the images again.")
    notes = (*_left_out(index, there, unnamed, faults), *index.remarks, *_empty(index, kept), NO_PATIENTS)
    digest = hashlib.sha256(index.digest.encode() + np.packbits(kept).tobytes())
    return Splits(splits[0], splits[1], splits[2], digest.hexdigest(), notes)


def _part(index: Index, images: Lazy, ids: NDArray[np.str_], rows: NDArray[np.int64]) -> Records:
    labels = index.labels[rows].astype(np.int64)
    names = ids[rows]

    def of(values: list[str]) -> NDArray[np.str_]:
        return np.array(values, dtype=np.str_)[labels]

    groups = {
        "modality": of([finding.modality for finding in CLASSES]),
        "anatomy": of([finding.anatomy for finding in CLASSES]),
    }
    # One array for both: 1.35 million names are some hundred megabytes.
    return Records(images, labels, names, of([finding.site for finding in CLASSES]), names, rows, groups=groups)


def _ids(index: Index) -> NDArray[np.str_]:
    """Return each image's name: the file's without suffix, or with its class folder if two folders share a name."""
    stems = [name[:-4].decode(errors="surrogateescape") for name in index.names.tolist()]
    if len(set(stems)) == len(stems):
        return np.array(stems, dtype=np.str_)
    labels: list[int] = index.labels.tolist()
    return np.array([f"{CLASSES[k].folder}/{stem}" for k, stem in zip(labels, stems, strict=True)], dtype=np.str_)


def _name(index: Index, row: int) -> str:
    return str(index.path(row).relative_to(index.home))


def _absent(index: Index, rows: NDArray[np.int64]) -> str:
    first = int(rows[0])
    return (
        f"task.root: '{_name(index, first)}' is listed in {FILES[index.parts[first]]} but not there "
        f"({len(rows)} of {len(index)} images are missing under {index.home}); download the images again, {_SKIP}."
    )


def _left_out(index: Index, there: NDArray[np.bool_], unnamed: int, faults: list[tuple[int, str]]) -> tuple[str, ...]:
    notes: list[str] = []
    missing = np.flatnonzero(~there)
    if len(missing):
        some = ", ".join(_name(index, int(row)) for row in missing[:5])
        notes.append(f"{len(missing)} images of the CSVs are missing and left out: {some}{_more(len(missing), 5)}.")
    notes += [f"Left out: {sentence}" for _, sentence in faults]
    if unnamed:
        notes.append(f"{unnamed} PNG files under {IMAGES} are in no CSV and not used.")
    return tuple(notes)


def _empty(index: Index, kept: NDArray[np.bool_]) -> tuple[str, ...]:
    notes: list[str] = []
    for what, rows in (("image", kept), ("training image", kept & (index.parts == 0))):
        counts = np.bincount(index.labels[rows], minlength=len(CLASSES))
        empty = [CLASSES[label].folder for label in np.flatnonzero(counts == 0)]
        if empty:
            notes.append(f"{len(empty)} classes have no {what}: {', '.join(empty[:5])}{_more(len(empty), 5)}.")
    return tuple(notes)


def _more(count: int, shown: int) -> str:
    return f" and {count - shown} more" if count > shown else ""
