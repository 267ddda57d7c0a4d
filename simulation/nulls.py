"""What is reached without looking at the image: the figure beside which a metric means something."""

from itertools import pairwise
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulation.evaluation import judged
from simulation.setup import Setup
from tasks.base import Records
from tasks.metrics import Metrics

BATCH = 16
MOST_SCANS = 128  # training records whose masks are averaged
RAISED = tuple(float(f) for f in np.geomspace(0.5, 64.0, 15))  # how far a class's share may be raised


def null_metrics(setup: Setup) -> Metrics:
    """Return the metrics of a prediction that is the same for every image.

    Classes: the shares of the classes in training (plus one image of each), so AUROC is .5 and MCC 0, while loss
    and Brier score are those of knowing the shares. Masks: the voxelwise mean mask of training, cut where its Dice
    with the training masks is best; loss and soft Dice are those of the mean mask itself.
    """
    training = Records.joined([hospital.records for hospital in setup.deal.hospitals])
    task, heldout = setup.task, setup.heldout
    if not task.spec.dense:
        logits = _shares(training, len(task.class_names), task.spec.outputs)
        return judged(task, heldout, lambda part: logits.expand(len(heldout.labels[part]), -1)).metrics()
    mean = MeanMask(training, len(task.class_names))
    soft = judged(task, heldout, lambda part: _repeated(mean.logits, len(heldout.labels[part]))).metrics()
    hard = judged(task, heldout, lambda part: _repeated(mean.cut, len(heldout.labels[part]))).metrics()
    kept = {"loss", "dice_soft"}
    return {name: soft[name] if name in kept else hard[name] for name in hard}


@final
class MeanMask:
    """The voxelwise share of every class in training masks of one grid, as logits (classes, *spatial)."""

    def __init__(self, training: Records, classes: int) -> None:
        """Average the masks; of more than `MOST_SCANS` records evenly spread ones."""
        chosen = np.unique(np.linspace(0, len(training) - 1, min(len(training), MOST_SCANS)).astype(np.int64))
        masks = np.asarray(training.targets(chosen))
        self._masks = [masks[a:b] for a, b in pairwise([*range(0, len(masks), BATCH), len(masks)])]
        self._units = np.unique(training.units[chosen], return_inverse=True)[1]
        self._classes = classes
        self.share = np.stack([np.mean(masks == c, axis=0) for c in range(classes)])

    @property
    def logits(self) -> Tensor:
        """The logarithms of the shares: their softmax is the mean mask."""
        return torch.from_numpy(np.log(self.share + 1e-6)).float()

    @property
    def cut(self) -> Tensor:
        """The same, each class after the background raised so that its Dice with the training masks is best."""
        raised = np.log(self.share + 1e-6)
        for label in range(1, self._classes):
            tried = [self._dice(_shifted(raised, label, factor), label) for factor in RAISED]
            raised = _shifted(raised, label, RAISED[int(np.argmax(tried))])
        return torch.from_numpy(raised).float()

    def _dice(self, logits: NDArray[np.float64], label: int) -> float:
        said = logits.argmax(axis=0) == label
        true = [(masks == label).reshape(len(masks), -1) for masks in self._masks]
        both = np.concatenate([(part & said.reshape(-1)).sum(axis=1) for part in true])
        sizes = np.concatenate([part.sum(axis=1) + said.sum() for part in true])
        # Slices of one scan count together, as they do where the metric is computed.
        both, sizes = np.bincount(self._units, both), np.bincount(self._units, sizes)
        return float(np.mean(2 * both[sizes > 0] / sizes[sizes > 0])) if sizes.any() else 0.0


def _shifted(logits: NDArray[np.float64], label: int, factor: float) -> NDArray[np.float64]:
    out = logits.copy()
    out[label] += np.log(factor)
    return out


def _shares(training: Records, classes: int, outputs: int) -> Tensor:
    counts = np.bincount(training.labels, minlength=classes) + 1.0
    logs = torch.from_numpy(np.log(counts / counts.sum()))
    return (logs[1:] - logs[:1] if outputs == 1 else logs)[None]


def _repeated(logits: Tensor, count: int) -> Tensor:
    return logits.expand(count, *logits.shape)
