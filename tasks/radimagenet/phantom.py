"""A synthetic RadImageNet on disk: official layout, about the real priors, pictures with planted structure."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from configs.errors import InputError
from configs.sections import TaskSettings
from configs.seeds import derive
from tasks.cache import appearing
from tasks.phantoms import cached_phantom, new_folder
from tasks.radimagenet.metadata import FILES, IMAGES
from tasks.radimagenet.phantom_pictures import draw
from tasks.radimagenet.png import encode
from tasks.radimagenet.taxonomy import CLASSES

# Raise it whenever the same seed would give other files.
VERSION = 1
SMALLEST = 64
# From so many images on each class has one; with fewer the rarest are absent, as in a small sample.
ALL_CLASSES = 3 * len(CLASSES)
# Real images have 224x224 pixels. At 96 the planted signs are still above the models' 32 to 64, and 200,000 files
# take a third of the time and space.
SIDE = 96
SHARES = (0.10, 0.15)  # validation and test; RadImageNet's authors split 75 : 10 : 15
BATCH = 64


@final
@dataclass(frozen=True)
class _Class:
    """What of one class is written: the numbers in the files' names, and how many go to validation and test."""

    numbers: NDArray[np.int64]
    validation: int
    test: int


def phantom_root(settings: TaskSettings, seed: int = 0) -> Path:
    """Return the folder of the phantom with `settings.phantom_images` images, written at the first call.

    Another seed gives other patients from the same distribution, e.g. as an adversary's public data.

    Raises:
        InputError: the cache folder cannot be written, or there are fewer than 64 images.
    """
    return cached_phantom("radimagenet", VERSION, settings.phantom_images, seed, _write)


def write_phantom(out: Path, *, images: int, seed: int, side: int = SIDE) -> None:
    """Write a synthetic RadImageNet to the folder `out`: RGB PNGs of `side` pixels, three CSVs.

    Classes follow the estimated real counts (`taxonomy`); from 495 images on each class has at least one. A class
    of three or more stands in all three CSVs, of two in train and test, of one in train. With one set of library
    versions the same seed gives the same bytes. The folder appears when it is whole.

    Raises:
        InputError: fewer than 64 images, or `out` has content already.
    """
    _write(new_folder(out), images, seed, side)


def _write(out: Path, images: int, seed: int, side: int = SIDE) -> None:
    if images < SMALLEST:
        raise InputError(f"task.phantom_images: {images} are too few; use {SMALLEST} or more.")
    classes = _plan(images, seed)
    with appearing(out) as draft:
        (draft / IMAGES).mkdir(parents=True)
        (draft / "PHANTOM.txt").write_text("Synthetic pictures: no patient, no finding, nothing is real.\n")
        _write_tables(draft, classes)
        for finding, chosen in zip(CLASSES, classes, strict=True):
            folder = draft / IMAGES / finding.folder
            if len(chosen.numbers):
                folder.mkdir(parents=True)
            for start in range(0, len(chosen.numbers), BATCH):
                numbers = chosen.numbers[start : start + BATCH].tolist()
                generator = np.random.default_rng(derive(seed, "phantom", finding.folder, start))
                for number, picture in zip(numbers, draw(finding, len(numbers), side, generator), strict=True):
                    with open(folder / _file(number), "wb") as file:  # noqa: PTH123 - a Path's own `open` is slower
                        file.write(encode(picture))


def _file(number: int) -> str:
    return f"phantom{number:07d}.png"


def _plan(images: int, seed: int) -> list[_Class]:
    generator = np.random.default_rng(derive(seed, "phantom", "radimagenet"))
    weights = np.array([finding.images for finding in CLASSES])
    counts = _apportion(weights, images, least=1 if images >= ALL_CLASSES else 0)
    # Names must not tell the class, so they are handed out at random.
    numbers = np.split(generator.permutation(images).astype(np.int64), np.cumsum(counts)[:-1])
    return [_Class(part, *_held_out(len(part))) for part in numbers]


def _held_out(count: int) -> tuple[int, int]:
    if count < 3:
        return 0, max(0, count - 1)
    validation, test = (max(1, round(share * count)) for share in SHARES)
    return validation, test


def _apportion(weights: NDArray[np.int64], total: int, least: int) -> NDArray[np.int64]:
    # `least` for everybody, then the rest by largest remainders of what the real shares still lack.
    quotas = weights * (total / weights.sum())
    lacking = np.maximum(quotas - least, 0)
    lacking *= (total - least * len(weights)) / lacking.sum()
    counts = least + np.floor(lacking).astype(np.int64)
    short = total - int(counts.sum())
    counts[np.argsort(np.floor(lacking) - lacking, kind="stable")[:short]] += 1
    return counts


def _write_tables(draft: Path, classes: list[_Class]) -> None:
    lines: tuple[dict[int, str], ...] = ({}, {}, {})
    for finding, chosen in zip(CLASSES, classes, strict=True):
        label = f"{finding.anatomy or finding.modality.lower()}-{finding.name}"
        bounds = (chosen.validation, chosen.validation + chosen.test)
        for k, number in enumerate(chosen.numbers.tolist()):
            part = 1 if k < bounds[0] else 2 if k < bounds[1] else 0
            lines[part][number] = f"{IMAGES}/{finding.folder}/{_file(number)},{label}\n"
    for file, part in zip(FILES, lines, strict=True):
        (draft / file).write_text("filename,label\n" + "".join(part[number] for number in sorted(part)))
