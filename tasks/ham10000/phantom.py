"""A synthetic HAM10000 on disk: official layout, real priors, pictures with planted structure."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from configs.errors import InputError
from configs.sections import TaskSettings
from configs.seeds import derive
from tasks.cache import appearing
from tasks.ham10000.metadata import DIAGNOSES, FILES, FOLDERS
from tasks.ham10000.phantom_pictures import SITES, draw_lesion, photograph
from tasks.phantoms import cached_phantom, new_folder

# Raise it whenever the same seed would give other files.
VERSION = 2
SMALLEST = 64
CHUNK = 256  # lesions
# Above the names in use by HAM10000 and ISIC at the time, so that a phantom is never mistaken for a patient.
FIRST_NUMBER = 9_000_000

# Images of each diagnosis (rows: DIAGNOSES) at each site (columns: SITES), counted in HAM10000's metadata.
COUNTS = np.array(
    [
        [0, 32, 295, 0],
        [2, 211, 296, 5],
        [124, 475, 490, 10],
        [30, 51, 30, 4],
        [24, 680, 342, 67],
        [3720, 1832, 803, 350],
        [54, 82, 3, 3],
    ]
)
# Lesions with 1, 2, 3, 4 images (the 9 with more are left out), and where and whom they were found on.
VIEWS = np.array([5514, 1423, 490, 34])
PLACES = {
    "back": 2192, "lower extremity": 2077, "trunk": 1404, "upper extremity": 1118, "abdomen": 1022,
    "face": 745, "chest": 407, "foot": 319, "unknown": 234, "neck": 168, "scalp": 128, "hand": 90, "ear": 56,
    "genital": 48, "acral": 7,
}  # fmt: skip
SEXES = {"male": 5406, "female": 4552, "unknown": 57}


@final
@dataclass(frozen=True)
class _Lesion:
    number: int
    diagnosis: str
    site: str
    images: tuple[int, ...]


def phantom_root(settings: TaskSettings, seed: int = 0) -> Path:
    """Return the folder of the phantom with `settings.phantom_images` images, written at the first call.

    Another seed gives other lesions from the same distribution, e.g. as an adversary's public data.

    Raises:
        InputError: the cache folder cannot be written.
    """
    return cached_phantom("ham10000", VERSION, settings.phantom_images, seed, _write)


def write_phantom(out: Path, *, images: int, seed: int) -> None:
    """Write a synthetic HAM10000 to the folder `out`: 200x150 JPEGs in two part folders, 8-column metadata.

    Diagnoses and sites follow the real counts, every diagnosis has a lesion, and a lesion has 1 to 4 images.
    With one set of library versions the same seed gives the same bytes. The folder appears when it is whole.

    Raises:
        InputError: fewer than 64 images, or `out` has content already.
    """
    _write(new_folder(out), images, seed)


def _write(out: Path, images: int, seed: int) -> None:
    if images < SMALLEST:
        raise InputError(f"task.phantom_images: {images} are too few; use {SMALLEST} or more.")
    lesions = _lesions(images, seed)
    with appearing(out) as draft:
        for part in FOLDERS[:2]:
            (draft / part).mkdir(parents=True)
        _table(lesions, seed).to_csv(draft / FILES[0], index=False, lineterminator="\n")
        (draft / "PHANTOM.txt").write_text("Synthetic pictures: no patient, no lesion, nothing is real.\n")

        def write(lesion: _Lesion) -> None:
            generator = np.random.default_rng(derive(seed, "phantom", "lesion", lesion.number))
            scene = draw_lesion(lesion.diagnosis, lesion.site, generator)
            for number in lesion.images:
                part = FOLDERS[0] if number < images / 2 else FOLDERS[1]
                picture = Image.fromarray(photograph(scene, generator))
                picture.save(draft / part / f"{_image_name(number)}.jpg", quality=90)

        # A lesion has its own generator, so that the order does not matter; numpy and Pillow leave the lock to others.
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for start in range(0, len(lesions), CHUNK):  # an interrupt waits for one chunk only
                list(pool.map(write, lesions[start : start + CHUNK]))


def _image_name(number: int) -> str:
    return f"ISIC_{FIRST_NUMBER + number}"


def _lesions(images: int, seed: int) -> list[_Lesion]:
    generator = np.random.default_rng(derive(seed, "phantom", "lesions"))
    sizes: list[tuple[str, str, int]] = []
    per_diagnosis = _apportion(COUNTS.sum(axis=1), images, least=1)
    for diagnosis, row, total in zip(DIAGNOSES, COUNTS, per_diagnosis, strict=True):
        for site, left in zip(SITES, _apportion(row, int(total), least=0), strict=True):
            while left > 0:
                views = min(int(left), 1 + int(generator.choice(len(VIEWS), p=VIEWS / VIEWS.sum())))
                sizes.append((diagnosis, site, views))
                left -= views  # noqa: PLW2901 - counts down what this site still gets
    # Names must not tell the diagnosis, so they are handed out at random.
    numbers = iter(generator.permutation(images).tolist())
    names = generator.permutation(len(sizes)).tolist()
    return [
        _Lesion(name, diagnosis, site, tuple(next(numbers) for _ in range(views)))
        for name, (diagnosis, site, views) in zip(names, sizes, strict=True)
    ]


def _apportion(weights: NDArray[np.int64], total: int, least: int) -> NDArray[np.int64]:
    # Largest remainders; what `least` gives to the small is taken from the largest.
    quotas = weights * (total / weights.sum())
    counts = np.maximum(np.floor(quotas).astype(np.int64), least)
    short = total - int(counts.sum())
    if short > 0:
        counts[np.argsort(counts - quotas, kind="stable")[:short]] += 1
    else:
        counts[np.argmax(counts)] += short
    return counts


def _table(lesions: list[_Lesion], seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(derive(seed, "phantom", "table"))
    rows: list[dict[str, str]] = []
    for lesion in lesions:
        # HAM10000's ages: multiples of 5 from 0 to 85, mean 52, 57 of 10,015 missing.
        age = f"{5.0 * round(min(max(generator.normal(52, 17), 0), 85) / 5)}"
        shared = {
            "dx": lesion.diagnosis,
            "dx_type": "histo" if generator.random() < 5340 / 10_015 else "follow_up",
            "age": "" if generator.random() < 57 / 10_015 else age,
            "sex": _pick(SEXES, generator),
            "localization": _pick(PLACES, generator),
            "dataset": lesion.site,
        }
        name = f"HAM_{FIRST_NUMBER + lesion.number}"
        rows += [{"lesion_id": name, "image_id": _image_name(number), **shared} for number in lesion.images]
    return pd.DataFrame(rows).sort_values("image_id")


def _pick(counts: dict[str, int], generator: np.random.Generator) -> str:
    weights = np.array(list(counts.values()), dtype=np.float64)
    return str(generator.choice(list(counts), p=weights / weights.sum()))
