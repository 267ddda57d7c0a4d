"""The vocabulary that all datasets share: records, splits, a task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from tasks.models.spec import ModelSpec


@final
@dataclass(frozen=True)
class Records:
    """Labelled images with the unit and the site that each belongs to.

    Attributes:
        images: uint8 (n, channels, height, width), C-contiguous, possibly a memory map.
        labels: int64 (n,).
        units: str (n,), the unit that is never cut (lesion, scan, image).
        sites: str (n,), the metadata's own string for where the image was taken.
        ids: str (n,), the image's own name in the dataset.
        rows: int64 (n,), for each record its row in `images`: taking a subset copies no image.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    units: NDArray[np.str_]
    sites: NDArray[np.str_]
    ids: NDArray[np.str_]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.int64] | Sequence[int]) -> "Records":
        """Return the records at these positions (0..n-1), in this order."""
        i = np.asarray(index, dtype=np.int64)
        return Records(self.images, self.labels[i], self.units[i], self.sites[i], self.ids[i], self.rows[i])

    def pixels(self, index: NDArray[np.int64] | slice | None = None) -> NDArray[np.uint8]:
        """Return the images at these positions, uint8 (m, channels, height, width), contiguous."""
        rows = self.rows if index is None else self.rows[index]
        return np.ascontiguousarray(self.images[rows])

    @staticmethod
    def joined(parts: Sequence["Records"]) -> "Records":
        """Return the records of several parts of one dataset, in the order given."""
        return Records(
            images=parts[0].images,
            labels=np.concatenate([p.labels for p in parts]),
            units=np.concatenate([p.units for p in parts]),
            sites=np.concatenate([p.sites for p in parts]),
            ids=np.concatenate([p.ids for p in parts]),
            rows=np.concatenate([p.rows for p in parts]),
        )

    def unit_rows(self, unit: str = "") -> list[NDArray[np.int64]]:
        """Return for each unit, in sorted order of its name, the positions of its records.

        Args:
            unit: "image" makes every record a unit of its own; anything else takes the dataset's units.
        """
        if unit == "image":
            return [np.array([i], dtype=np.int64) for i in range(len(self))]
        _, inverse = np.unique(self.units, return_inverse=True)
        order = np.argsort(inverse, kind="stable")
        bounds = np.flatnonzero(np.diff(inverse[order])) + 1
        return [part for part in np.split(order, bounds) if len(part)]


@final
@dataclass(frozen=True)
class Splits:
    """The three parts of a dataset; no unit stands in two of them."""

    train: Records
    validation: Records
    test: Records
    fingerprint: str  # sha256 of what was read: metadata and image files

    def parts(self, holdout: str) -> tuple[Records, Records]:
        """Return (training, held-out) records: with "test" the validation part is trained on as well."""
        if holdout == "validation":
            return self.train, self.validation
        return Records.joined([self.train, self.validation]), self.test


@final
@dataclass(frozen=True)
class Task:
    """A learning task over one dataset.

    Attributes:
        name: the dataset's name.
        unit: what is never cut: "lesion", "scan" or "image".
        class_names: in the order of the labels.
        shape: (channels, height, width) of an image.
        spec: the agreed model.
        load: reads the dataset and returns its splits; raises InputError naming the file.
    """

    name: str
    unit: str
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    spec: ModelSpec
    load: Callable[[], Splits]
