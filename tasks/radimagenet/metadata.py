"""Read RadImageNet's three CSVs into a compact index, and see which of their images are there."""

import hashlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs.errors import InputError
from tasks.cache import appearing, cache_folder
from tasks.radimagenet.taxonomy import CLASSES, LABELS, nearest

# Raise it whenever the same CSVs would give another index.
VERSION = 1
IMAGES = "radiology_ai"
FILES = ("RadiologyAI_train.csv", "RadiologyAI_val.csv", "RadiologyAI_test.csv")
LAYOUT = f"{', '.join(FILES)} beside the folder {IMAGES} with CT, MR and US"
SUFFIX = ".png"


@final
@dataclass(frozen=True)
class Index:
    """Every row of the CSVs, sorted by class folder and file name.

    Attributes:
        home: the folder that holds `radiology_ai`.
        labels: int16 (n,), index in CLASSES, from the folder of the image.
        names: bytes (n,), the file's name in its class folder.
        parts: int8 (n,), 0 train, 1 validation, 2 test: the CSV that names the image.
        digest: sha256 over the three CSVs.
        remarks: what is odd about the CSVs but no error, a sentence each.
    """

    home: Path
    labels: NDArray[np.int16]
    names: NDArray[np.bytes_]
    parts: NDArray[np.int8]
    digest: str
    remarks: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, row: int) -> Path:
        """Return the image file of a row."""
        return self.home / IMAGES / CLASSES[int(self.labels[row])].folder / os.fsdecode(self.names[row])


def read_index(root: Path) -> Index:
    """Read the CSVs under `root`; the index is kept in the cache under the CSVs' digest. No image is touched.

    The class is taken from the image's folder: the text in the column `label` varies between copies of the dataset
    and is only compared. `root` may also be `radiology_ai` itself or the folder above, and the CSVs may lie in either.

    Raises:
        InputError: naming the folder or CSV that is missing, the column, the row, the unknown class folder, or the
            image that is listed twice (in two CSVs it would be trained and tested on).
    """
    home, files = _layout(root)
    digest = hashlib.sha256(f"{VERSION}\n".encode())
    for file in files:
        digest.update(_digest_of(file))
    key = digest.hexdigest()
    target = cache_folder() / f"radimagenet-index-{key[:32]}.npz"
    kept = _load(target, home, key)
    if kept is not None:
        return kept
    index = _build(home, files, key)
    with appearing(target) as draft, draft.open("wb") as out:
        np.savez(
            out, labels=index.labels, names=index.names, parts=index.parts, remarks=np.array(json.dumps(index.remarks))
        )
    return index


def present(index: Index) -> tuple[NDArray[np.bool_], int]:
    """Return which rows' files are there (n,), and how many PNG files no CSV names; folders are listed, no file read.

    Raises:
        InputError: a folder cannot be listed.
    """
    there = np.zeros(len(index), dtype=np.bool_)
    unnamed = 0
    bounds = np.searchsorted(index.labels, np.arange(len(CLASSES) + 1))
    for label, finding in enumerate(CLASSES):
        listed = _listed(index.home / IMAGES / finding.folder)
        rows = slice(int(bounds[label]), int(bounds[label + 1]))
        names: list[bytes] = index.names[rows].tolist()
        there[rows] = np.fromiter((name in listed for name in names), dtype=np.bool_, count=len(names))
        unnamed += len(listed) - int(there[rows].sum())
    return there, unnamed


def _listed(folder: Path) -> set[bytes]:
    try:
        entries = os.listdir(os.fsencode(folder))  # noqa: PTH208 - a Path per entry is ten times slower
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror}); check its permissions.") from error
    # macOS leaves '._x.png' beside x.png on foreign disks.
    return {name for name in entries if name[-4:].lower() == SUFFIX.encode() and not name.startswith(b"._")}


def _layout(root: Path) -> tuple[Path, list[Path]]:
    if not root.is_dir():
        raise InputError(
            f"task.root: the folder {root} does not exist; set it to the folder of RadImageNet ({LAYOUT}) or to "
            "'phantom'."
        )
    below = sorted(path.parent for path in root.glob(f"*/{IMAGES}") if path.is_dir())
    homes = [root] if (root / IMAGES).is_dir() else [root.parent] if root.name == IMAGES else below
    if len(homes) != 1:
        several = f"holds {len(homes)} folders with a {IMAGES}" if homes else f"holds no folder {IMAGES}"
        raise InputError(f"task.root: {root} {several}; set it to the folder of RadImageNet ({LAYOUT}).")
    home = homes[0].resolve()
    files: list[Path] = []
    for name in FILES:
        places = [folder / name for folder in (home, home / IMAGES, root) if (folder / name).is_file()]
        if not places:
            raise InputError(f"task.root: {home} holds no {name}; the official layout is {LAYOUT}.")
        files.append(places[0])
    return home, files


def _digest_of(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); check its permissions.") from error


def _load(target: Path, home: Path, key: str) -> Index | None:
    try:
        with target.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
            remarks = tuple(json.loads(str(kept["remarks"])))
            return Index(home, kept["labels"], kept["names"], kept["parts"], key, remarks)
    except Exception:  # absent, or damaged in any of a zip's ways: it is only a cache
        return None


def _build(home: Path, files: list[Path], key: str) -> Index:
    labels: list[NDArray[np.int16]] = []
    names: list[NDArray[np.bytes_]] = []
    texts: dict[int, set[str]] = {}
    for file in files:
        filenames, given = _columns(file)
        found, bases = _split(filenames, file)
        labels.append(found)
        names.append(bases)
        for label, text in zip(found.tolist(), given, strict=True):
            texts.setdefault(label, set()).add(text)
    parts = np.repeat(np.arange(len(files), dtype=np.int8), [len(part) for part in labels])
    joined, bases = np.concatenate(labels), np.concatenate(names)
    order = np.lexsort((parts, bases, joined))
    index = Index(home, joined[order], bases[order], parts[order], key, _remarks(texts))
    _check_once(index, files)
    return index


def _columns(file: Path) -> tuple[list[str], list[str]]:
    try:
        content = file.read_bytes()
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except ValueError as error:  # ParserError, EmptyDataError and UnicodeDecodeError are ValueErrors
        raise InputError(f"{file}: is no CSV table ({error}); download it again.") from error
    missing = [name for name in ("filename", "label") if name not in table.columns]
    if missing:
        raise InputError(f"{file}: column '{missing[0]}' is missing; use the official file with filename,label.")
    if table.empty:
        raise InputError(f"{file}: has a header but no rows; use the official file.")
    return table["filename"].tolist(), table["label"].tolist()


def _split(filenames: list[str], file: Path) -> tuple[NDArray[np.int16], NDArray[np.bytes_]]:
    known: dict[str, int] = {}
    labels = np.empty(len(filenames), dtype=np.int16)
    bases: list[bytes] = []
    for k, filename in enumerate(filenames):
        folder, _, base = filename.replace("\\", "/").rpartition("/")
        label = known.get(folder)
        if label is None:
            label = known[folder] = _label_of(folder, filename, k, file)
        if len(base) < 5 or base[-4:].lower() != SUFFIX:
            raise InputError(f"{file}: line {k + 2} names '{filename}', which is no PNG file; correct the line.")
        labels[k] = label
        bases.append(os.fsencode(base))
    return labels, np.array(bases, dtype=np.bytes_)


def _label_of(folder: str, filename: str, k: int, file: Path) -> int:
    steps = [step for step in folder.split("/") if step not in ("", ".")]
    below = steps[steps.index(IMAGES) + 1 :] if IMAGES in steps else steps
    label = LABELS.get("/".join(below))
    if label is None:
        raise InputError(
            f"{file}: line {k + 2} names '{filename}', whose folder is none of RadImageNet's {len(CLASSES)} classes; "
            f"the nearest is {IMAGES}/{nearest('/'.join(below))}."
        )
    return label


def _remarks(texts: dict[int, set[str]]) -> tuple[str, ...]:
    several = {label: found for label, found in texts.items() if len(found) > 1}
    if not several:
        return ()
    label, found = min(several.items())
    return (
        f"{len(several)} classes have several texts in the column 'label', e.g. {CLASSES[label].folder}: "
        f"{', '.join(repr(text) for text in sorted(found)[:3])}; the class was taken from the folder.",
    )


def _check_once(index: Index, files: list[Path]) -> None:
    same = (index.labels[1:] == index.labels[:-1]) & (index.names[1:] == index.names[:-1])
    twice = np.flatnonzero(same)
    if not len(twice):
        return
    # Across two files first: that is the worse of the two.
    across = twice[index.parts[twice] != index.parts[twice + 1]]
    row = int(across[0] if len(across) else twice[0])
    image = index.path(row).relative_to(index.home)
    first, second = files[index.parts[row]].name, files[index.parts[row + 1]].name
    if len(across):
        raise InputError(
            f"task.root: '{image}' is listed in {first} and in {second} ({len(across)} such images): it would be "
            "trained and tested on; use the official files."
        )
    raise InputError(f"task.root: '{image}' is listed twice in {first}; keep one row per image.")
