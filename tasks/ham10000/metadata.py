"""Read the HAM10000 metadata in both of its forms, and find the image files that it names."""

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs.errors import InputError

DIAGNOSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
UNKNOWN_SITE = "unknown"
FILES = ("HAM10000_metadata.csv", "HAM10000_metadata")
FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2", "HAM10000_images")
LAYOUT = f"{FILES[0]} beside {FOLDERS[0]} and {FOLDERS[1]}, or one folder {FOLDERS[2]}"


@final
@dataclass(frozen=True)
class Metadata:
    """What the metadata say about each image, in the order of the image's name.

    Attributes:
        images: str (n,), names without suffix, sorted, distinct.
        lesions: str (n,).
        diagnoses: str (n,), each one of DIAGNOSES.
        sites: str (n,), the `dataset` column, or "unknown" where the file has none.
        groups: sex, age (bands of 20 years) and site on the body, str (n,) each, "" where unknown.
        paths: n image files.
        fingerprint: sha256 over the metadata's bytes and the image files' names and sizes. It is cheap: no
            image is read, so two files of one name and size count as equal.
        notes: what was left out, and why.
    """

    images: NDArray[np.str_]
    lesions: NDArray[np.str_]
    diagnoses: NDArray[np.str_]
    sites: NDArray[np.str_]
    groups: dict[str, NDArray[np.str_]]
    paths: tuple[Path, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()


def read_metadata(root: Path, *, skip: bool = False) -> Metadata:
    """Read the metadata file under `root` and find its images.

    Gaps in age, sex and localisation (57 ages are missing) do no harm: nothing is trained on them.

    Args:
        root: the dataset's folder.
        skip: leave out rows whose image is missing and note them, instead of stopping.

    Raises:
        InputError: naming the folder, metadata file, column, diagnosis or image that is missing or wrong.
    """
    if not root.is_dir():
        raise InputError(
            f"task.root: the folder {root} does not exist; set it to the folder of HAM10000 ({LAYOUT}) or to 'phantom'."
        )
    file = next((root / name for name in FILES if (root / name).is_file()), None)
    if file is None:
        raise InputError(
            f"task.root: {root} holds no metadata file ({' or '.join(FILES)}); "
            f"set it to a folder in the official layout: {LAYOUT}."
        )
    content = _bytes_of(file)
    table = _parse(content, file)
    _check(table, file)
    table = table.sort_values("image_id", ignore_index=True)
    found = _image_files(root)
    table, notes = _with_images(table, found, root, skip)
    paths, sizes = _paths_of(table, found)
    digest = hashlib.sha256(content)
    for path, size in zip(paths, sizes, strict=True):
        digest.update(f"\n{path.name}\t{size}".encode())
    images, lesions, diagnoses, sites = (
        np.array(table[name].tolist(), dtype=np.str_) for name in ("image_id", "lesion_id", "dx", "dataset")
    )
    sites = np.where(sites == "", UNKNOWN_SITE, sites)
    return Metadata(images, lesions, diagnoses, sites, _groups(table), paths, digest.hexdigest(), notes)


def _groups(table: pd.DataFrame) -> dict[str, NDArray[np.str_]]:
    found: dict[str, NDArray[np.str_]] = {}
    for name, column in (("sex", "sex"), ("body site", "localization")):
        values = table[column].tolist() if column in table.columns else [""] * len(table)
        found[name] = np.array(["" if v == "unknown" else v for v in values], dtype=np.str_)
    ages = table["age"].tolist() if "age" in table.columns else [""] * len(table)
    found["age"] = np.array([_band(age) for age in ages], dtype=np.str_)
    return found


def _band(age: str) -> str:
    try:
        years = float(age)
    except ValueError:
        return ""
    if not 0 <= years < 150:
        return ""
    start = min(80, 20 * int(years // 20))
    return "80 and over" if start == 80 else f"{start} to {start + 19}"


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); check its permissions.") from error


def _parse(content: bytes, file: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except ValueError as error:  # ParserError, EmptyDataError and UnicodeDecodeError are ValueErrors
        raise InputError(f"{file}: is no CSV table ({error}); download the metadata file again.") from error
    missing = [name for name in ("lesion_id", "image_id", "dx") if name not in table.columns]
    if missing:
        raise InputError(f"{file}: column '{missing[0]}' is missing; use the official HAM10000 metadata.")
    if "dataset" not in table.columns:
        table["dataset"] = UNKNOWN_SITE
    return table


def _check(table: pd.DataFrame, file: Path) -> None:
    if table.empty:
        raise InputError(f"{file}: has a header but no rows; use the official HAM10000 metadata.")
    for name in ("image_id", "lesion_id"):
        empty = np.flatnonzero((table[name] == "").to_numpy())
        if len(empty):
            raise InputError(f"{file}: line {empty[0] + 2} has no {name}; every image needs one.")
    twice = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(twice):
        raise InputError(f"{file}: image '{twice.iloc[0]}' is listed more than once; keep one row per image.")
    strange = table.loc[~table["dx"].isin(DIAGNOSES)]
    if len(strange):
        row = strange.iloc[0]
        raise InputError(
            f"{file}: image '{row['image_id']}' has the unknown dx '{row['dx']}'; use one of {', '.join(DIAGNOSES)}."
        )


def _image_files(root: Path) -> dict[str, os.DirEntry[str]]:
    found: dict[str, os.DirEntry[str]] = {}
    for folder in FOLDERS:
        if not (root / folder).is_dir():
            continue
        with os.scandir(root / folder) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122 - a Path per entry is ten times slower
                # macOS leaves '._x.jpg' beside x.jpg on foreign disks: nothing names it, so it is not read.
                if suffix.lower() == ".jpg":
                    found.setdefault(stem, entry)
    return found


def _with_images(
    table: pd.DataFrame, found: dict[str, os.DirEntry[str]], root: Path, skip: bool
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    names: list[str] = table["image_id"].tolist()
    missing = [name for name in names if name not in found]
    if not missing:
        return table, ()
    many = f"{len(missing)} of {len(names)} images are missing"
    if not skip or len(missing) == len(names):
        raise InputError(
            f"task.root: image '{missing[0]}.jpg' is in none of {', '.join(FOLDERS)} under {root} "
            f"({many}); download the image folders again."
        )
    few = ", ".join(f"{name}.jpg" for name in missing[:5]) + (", ..." if len(missing) > 5 else "")
    return table.loc[~table["image_id"].isin(missing)].reset_index(drop=True), (f"{many}: {few}",)


def _paths_of(table: pd.DataFrame, found: dict[str, os.DirEntry[str]]) -> tuple[tuple[Path, ...], list[int]]:
    names: list[str] = table["image_id"].tolist()
    return tuple(Path(found[name].path) for name in names), [found[name].stat().st_size for name in names]
