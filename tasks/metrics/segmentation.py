"""How well a model outlines: Dice per class, per scan and then over scans."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.metrics import weighted
from tasks.metrics.base import Judged, Metrics, Rows, Sample, Weights

FEW_SCANS = 10
SOFT = "dice_soft"


@final
@dataclass(frozen=True)
class Overlaps:
    """Voxel sums of records, float64 (n, classes) each: they add up over the slices of a scan.

    Attributes:
        both, said, true: voxels that are of a class in prediction and truth, in the prediction, in the truth.
        soft_both, soft_said: the same sums of the class's softmax probability.
        loss: float64 (n,), the task's own loss of each record.
    """

    both: NDArray[np.float64]
    said: NDArray[np.float64]
    true: NDArray[np.float64]
    soft_both: NDArray[np.float64]
    soft_said: NDArray[np.float64]
    loss: NDArray[np.float64]

    @staticmethod
    def of(logits: Tensor, masks: Tensor, losses: Tensor) -> "Overlaps":
        """Count logits (n, k, *spatial) against voxel classes (n, *spatial); predictions are the largest logit."""
        classes = logits.shape[1]
        chance = logits.softmax(dim=1).flatten(2)
        predicted, truth = logits.argmax(dim=1).flatten(1), masks.flatten(1)
        said = torch.stack([predicted == c for c in range(classes)], dim=1)
        true = torch.stack([truth == c for c in range(classes)], dim=1)

        def total(values: Tensor) -> NDArray[np.float64]:
            return values.sum(dim=2, dtype=torch.float64).numpy()

        return Overlaps(
            both=total(said & true),
            said=total(said),
            true=total(true),
            soft_both=total(chance * true),
            soft_said=total(chance),
            loss=losses.double().numpy(),
        )

    @staticmethod
    def joined(parts: Sequence["Overlaps"]) -> "Overlaps":
        """Return the sums of several parts, in the order given."""
        return Overlaps(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Overlaps)))


def metric_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics' names: Dice of every class but the background, the soft mean, the loss."""
    return (*(dice_name(name) for name in class_names[1:]), SOFT, "loss")


def dice_name(class_name: str) -> str:
    """Return the name of a class's Dice: 'dice_liver'."""
    return f"dice_{class_name.lower().replace(' ', '_')}"


@final
class Segmented(Judged):
    """Voxel sums of records whose truth is a mask; the slices of a scan are added up before anything is divided.

    - dice_<class>: 2 |P and T| / (|P| + |T|) of a scan, then the mean over the scans in which the class is in
      the prediction or in the truth. A scan where it is in neither does not count; in one of them only, it counts 0.
    - dice_soft: (2 sum p t) / (sum p + sum t) with softmax probabilities p, the mean over all classes (background
      too) that are in the scan's truth or have any probability, then over scans: the paper's figure.
    - loss: mean of the task's loss over records.

    Edge cases: a class in no scan is None; everything is None where the training diverged.
    """

    def __init__(self, overlaps: Overlaps, class_names: Sequence[str], units: Rows) -> None:
        """Take the sums of n records, the names of the classes (background first), and each record's unit (n,)."""
        self.overlaps = overlaps
        self._classes = tuple(class_names)
        self._units = units

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics' names."""
        return metric_names(self._classes)

    @property
    def primary(self) -> str:
        """The hard Dice of the first class after the background."""
        return self.names[0]

    def metrics(self, rows: Rows | None = None) -> Metrics:
        """Return every metric of these records."""
        chosen = np.arange(len(self._units)) if rows is None else rows
        result: Metrics = dict.fromkeys(self.names)
        if not len(chosen) or not self._finite(chosen):
            return result
        table, _ = self._by_unit(chosen)
        result |= {name: _mean(values) for name, values in table.items()}
        result["loss"] = float(self.overlaps.loss[chosen].mean())
        return result

    def sample(self, name: str, rows: Rows | None = None) -> Sample:
        """Return a Dice, over the scans in which it is defined."""
        chosen = np.arange(len(self._units)) if rows is None else rows
        table, unit = self._by_unit(chosen)
        values = table[name]
        counted = np.flatnonzero(~np.isnan(values))
        images = int(np.isin(unit, counted).sum())
        problem = "" if self._finite(chosen) else "the training diverged"
        if not len(counted):
            problem = "the class is in no scan"
        thin = f"fewer than {FEW_SCANS} independent units" if len(counted) < FEW_SCANS else ""

        def value(counts: Weights) -> Weights:
            return weighted.mean(values[counted], counts)

        return Sample(images, len(counted), value, problem, thin)

    def _finite(self, rows: Rows) -> bool:
        found = self.overlaps
        return bool(np.isfinite(found.loss[rows]).all() and np.isfinite(found.soft_said[rows]).all())

    def _by_unit(self, rows: Rows) -> tuple[dict[str, NDArray[np.float64]], Rows]:
        """Return every Dice by unit (units,), and the position of each record's unit."""
        _, unit = np.unique(self._units[rows], return_inverse=True)
        units = int(unit.max()) + 1 if len(unit) else 0
        found = self.overlaps

        def added(values: NDArray[np.float64]) -> NDArray[np.float64]:
            out = np.zeros((units, values.shape[1]))
            np.add.at(out, unit, values[rows])
            return out

        true = added(found.true)
        hard = _dice(added(found.both), added(found.said) + true)
        soft = _dice(added(found.soft_both), added(found.soft_said) + true)
        table = {dice_name(name): hard[:, k + 1] for k, name in enumerate(self._classes[1:])}
        return {**table, SOFT: weighted.mean_known(soft)}, unit


def _dice(both: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(2 * both, sizes, out=np.full(both.shape, np.nan), where=sizes > 0)


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
