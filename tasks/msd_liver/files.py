"""Find the scans of MSD Liver and their labels on disk."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import final

from configs.errors import InputError

FOLDER = "Task03_Liver"
IMAGES, LABELS = "imagesTr", "labelsTr"
SUFFIXES = (".nii.gz", ".nii")
LAYOUT = f"{FOLDER} with {IMAGES} and {LABELS}, liver_<n>.nii.gz in both"


@final
@dataclass(frozen=True)
class Scan:
    """One labelled scan on disk: its name (the file's, without suffix), image and label."""

    name: str
    image: Path
    label: Path


@final
@dataclass(frozen=True)
class Listing:
    """The labelled scans under a root.

    Attributes:
        scans: sorted by name, names distinct.
        notes: a sentence for each file that has no partner and was left out.
        fingerprint: sha256 over the files' names and sizes. It is cheap: no file is read, so two files of one
            name and size count as equal.
    """

    scans: tuple[Scan, ...]
    notes: tuple[str, ...]
    fingerprint: str


def list_scans(root: Path, *, skip: bool) -> Listing:
    """Pair the images and labels under `root` (Task03_Liver or the folder that holds it) by name.

    What the folders hold counts: dataset.json is not read (copies of it list files that a part of the dataset
    lacks), hidden files such as macOS' ``._liver_1.nii.gz`` and the unlabelled imagesTs neither.

    Args:
        root: the dataset's folder.
        skip: leave out an image without label, or a label without image, with a note; else they are errors.

    Raises:
        InputError: naming the folder that is missing or empty, or the file without a partner.
    """
    home = _home(root)
    images, labels = _files(home / IMAGES), _files(home / LABELS)
    lonely = [f"{images[n]}: has no label in {LABELS}" for n in sorted(images.keys() - labels.keys())]
    lonely += [f"{labels[n]}: has no image in {IMAGES}" for n in sorted(labels.keys() - images.keys())]
    if lonely and not skip:
        raise InputError(f"{lonely[0]} ({len(lonely)} such files); download it again or set task.damaged to skip.")
    scans = tuple(Scan(n, images[n], labels[n]) for n in sorted(images.keys() & labels.keys()))
    if not scans:
        raise InputError(f"task.root: {home} holds no labelled scan; set it to a folder with {LAYOUT}.")
    digest = hashlib.sha256()
    for scan in scans:
        for path in (scan.image, scan.label):
            digest.update(f"{path.parent.name}/{path.name}\t{path.stat().st_size}\n".encode())
    return Listing(scans, tuple(f"{words}; it was left out." for words in lonely), digest.hexdigest())


def _home(root: Path) -> Path:
    if not root.is_dir():
        raise InputError(
            f"task.root: the folder {root} does not exist; "
            f"set it to the folder of MSD Liver ({LAYOUT}) or to 'phantom'."
        )
    home = next((f for f in (root, root / FOLDER) if (f / IMAGES).is_dir() or (f / LABELS).is_dir()), None)
    if home is None:
        raise InputError(f"task.root: {root} is not in the official layout; set it to a folder with {LAYOUT}.")
    missing = [name for name in (IMAGES, LABELS) if not (home / name).is_dir()]
    if missing:
        raise InputError(f"task.root: {home} has no folder {missing[0]}; set it to a folder with {LAYOUT}.")
    return home


def _files(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), None)
        if suffix is None or path.name.startswith(".") or not path.is_file():
            continue
        name = path.name[: -len(suffix)]
        if name in found:
            raise InputError(f"{path}: the scan is there twice, also as {found[name].name}; remove one of them.")
        found[name] = path
    return found
