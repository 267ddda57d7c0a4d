"""The vocabulary that all datasets share: pictures, records, splits, a task."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
from numpy.typing import NDArray

from configs.sections import LossName
from tasks.models.spec import ModelSpec


class Pictures(ABC):
    """Where pictures of one shape lie; they are read when asked for, so a dataset need not fit into memory."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one picture, e.g. (channels, height, width)."""

    @abstractmethod
    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the pictures of these rows, uint8 (m, *shape), contiguous.

        Raises:
            InputError: naming a file that cannot be read.
        """


@final
class Mapped(Pictures):
    """Pictures that lie in one array, mostly a memory map: uint8 (n, *shape)."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one picture."""
        return self._array.shape[1:]

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return these rows as a contiguous copy."""
        return np.ascontiguousarray(self._array[rows])


@final
@dataclass(frozen=True)
class Records:
    """Labelled images with the unit and the site that each belongs to.

    Attributes:
        images: uint8 pictures (channels, height, width) or (channels, depth, height, width).
        labels: int64 (n,), the class of each; for segmentation what a deal is stratified by.
        units: str (n,), the unit that is never cut (lesion, scan, image).
        sites: str (n,), the metadata's own string for where the image was taken.
        ids: str (n,), the image's own name in the dataset.
        rows: int64 (n,), for each record its row in `images`: taking a subset copies no image.
        masks: for segmentation uint8 pictures (height, width) or (depth, height, width) of voxel classes.
        groups: for each attribute that utility is broken down by (sex, age, ...) str (n,), "" where unknown.
    """

    images: Pictures
    labels: NDArray[np.int64]
    units: NDArray[np.str_]
    sites: NDArray[np.str_]
    ids: NDArray[np.str_]
    rows: NDArray[np.int64]
    masks: Pictures | None = None
    groups: Mapping[str, NDArray[np.str_]] = field(default_factory=dict[str, NDArray[np.str_]])

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.int64] | Sequence[int]) -> "Records":
        """Return the records at these positions (0..n-1), in this order."""
        i = np.asarray(index, dtype=np.int64)
        ids = self.ids[i]
        return Records(
            images=self.images,
            labels=self.labels[i],
            units=ids if self.units is self.ids else self.units[i],  # of a million records: one array, not two
            sites=self.sites[i],
            ids=ids,
            rows=self.rows[i],
            masks=self.masks,
            groups={name: values[i] for name, values in self.groups.items()},
        )

    def pixels(self, index: NDArray[np.int64] | slice | None = None) -> NDArray[np.uint8]:
        """Return the images at these positions, uint8 (m, channels, ...), contiguous."""
        return self.images.read(self.rows if index is None else self.rows[index])

    def targets(self, index: NDArray[np.int64] | slice | None = None) -> NDArray[np.int64] | NDArray[np.uint8]:
        """Return what the model is to say: labels int64 (m,), or voxel classes uint8 (m, ...) for segmentation."""
        if self.masks is None:
            return self.labels if index is None else self.labels[index]
        return self.masks.read(self.rows if index is None else self.rows[index])

    @staticmethod
    def joined(parts: Sequence["Records"]) -> "Records":
        """Return the records of several parts of one dataset, in the order given."""
        first = parts[0]
        ids = np.concatenate([p.ids for p in parts])
        alike = all(p.units is p.ids for p in parts)
        return Records(
            images=first.images,
            labels=np.concatenate([p.labels for p in parts]),
            units=ids if alike else np.concatenate([p.units for p in parts]),
            sites=np.concatenate([p.sites for p in parts]),
            ids=ids,
            rows=np.concatenate([p.rows for p in parts]),
            masks=first.masks,
            groups={name: np.concatenate([p.groups[name] for p in parts]) for name in first.groups},
        )

    def unit_rows(self, unit: str = "") -> list[NDArray[np.int64]]:
        """Return for each unit, in sorted order of its name, the positions of its records.

        Args:
            unit: "image" makes every record a unit of its own; anything else takes the dataset's units.
        """
        if unit == "image":
            return list(np.arange(len(self), dtype=np.int64).reshape(-1, 1))
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
    notes: tuple[str, ...] = ()  # what was left out and why, a sentence each (task.damaged: skip)

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
        shape: (channels, height, width) or (channels, depth, height, width) of an image, as it is trained on.
        spec: the agreed model.
        loss: the name of its loss, see `tasks.losses`.
        load: reads the dataset and returns its splits; raises InputError naming the file.
    """

    name: str
    unit: str
    class_names: tuple[str, ...]
    shape: tuple[int, ...]
    spec: ModelSpec
    loss: LossName
    load: Callable[[], Splits]
