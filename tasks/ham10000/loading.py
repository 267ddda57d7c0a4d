"""Build the splits of HAM10000: by lesion, stratified on the diagnosis."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from configs.seeds import derive
from tasks.base import Mapped, Records, Splits
from tasks.ham10000.images import load_images
from tasks.ham10000.metadata import DIAGNOSES, Metadata, read_metadata

# Diagnoses that need attention: actinic keratoses, basal cell carcinoma, melanoma.
ATTENTION = ("akiec", "bcc", "mel")
EVERY = 10  # one lesion in ten is test, one in ten of the others validation

Rows = NDArray[np.int64]


def load_splits(root: Path, *, size: int, classes: int, split_seed: int, skip: bool = False) -> Splits:
    """Read HAM10000 under `root` and split it; about 8082, 920 and 1013 images of the whole dataset.

    The split is a pure function of the metadata and `split_seed`. Lesions that span two sites stay whole.

    Args:
        root: the dataset's folder.
        size: side of the images in pixels.
        classes: 2 or 7.
        split_seed: of the split.
        skip: leave out and note what is missing or damaged, instead of stopping.

    Raises:
        InputError: naming the file that is missing or wrong.
    """
    metadata = read_metadata(root, skip=skip)
    images, damaged = load_images(metadata, size, skip=skip)
    rows = np.arange(len(metadata.images), dtype=np.int64)
    labels = labels_of(metadata.diagnoses, classes)
    records = Records(
        images=Mapped(images),
        labels=labels,
        units=metadata.lesions,
        sites=metadata.sites,
        ids=metadata.images,
        rows=rows,
        groups={**metadata.groups, "diagnosis": metadata.diagnoses},
    )
    train, validation, test = split_rows(metadata, split_seed)
    whole = np.ones(len(rows), dtype=np.bool_)
    whole[list(damaged)] = False
    train, validation, test = (part[whole[part]] for part in (train, validation, test))
    notes = (*metadata.notes, *(damaged[row] for row in sorted(damaged)))
    return Splits(records.take(train), records.take(validation), records.take(test), metadata.fingerprint, notes)


def labels_of(diagnoses: NDArray[np.str_], classes: int) -> NDArray[np.int64]:
    """Return labels (n,): for 2 classes 1 where attention is needed, for 7 the index in DIAGNOSES."""
    if classes == 2:
        return np.isin(diagnoses, ATTENTION).astype(np.int64)
    return np.searchsorted(np.array(DIAGNOSES), diagnoses).astype(np.int64)


def split_rows(metadata: Metadata, seed: int) -> tuple[Rows, Rows, Rows]:
    """Return the rows of training, validation and test, each in ascending order."""
    _, first, inverse, views = np.unique(metadata.lesions, return_index=True, return_inverse=True, return_counts=True)
    diagnoses = metadata.diagnoses[first]
    everything = np.arange(len(first), dtype=np.int64)
    test = _tenth(everything, diagnoses, views, derive(seed, "split", "test"))
    rest = np.setdiff1d(everything, test)
    validation = _tenth(rest, diagnoses, views, derive(seed, "split", "validation"))
    part = np.zeros(len(first), dtype=np.int64)
    part[validation], part[test] = 1, 2
    train_rows, validation_rows, test_rows = (np.flatnonzero(part[inverse] == k) for k in range(3))
    return train_rows, validation_rows, test_rows


def _tenth(lesions: Rows, diagnoses: NDArray[np.str_], views: Rows, seed: int) -> Rows:
    # Every tenth of the lesions sorted by diagnosis and number of images, shuffled within those: a systematic
    # stratified sample. Unlike sklearn's train_test_split it also works where a diagnosis has one lesion only
    # (small phantoms), and it does not change with a library's version.
    generator = np.random.default_rng(seed)
    attention = np.isin(diagnoses, ATTENTION)[lesions]
    order = np.lexsort((generator.permutation(len(lesions)), views[lesions], diagnoses[lesions], ~attention))
    offset = generator.integers(max(1, min(EVERY, len(lesions))))
    return np.sort(lesions[order[offset::EVERY]])
