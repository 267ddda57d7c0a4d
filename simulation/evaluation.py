"""Utility of a model on the held-out records: overall and at each hospital's share of them.

The simulator's own instrument: nothing of it crosses the federation, so it costs no privacy in a simulation.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from server.model import CORE
from simulation.setup import Setup
from tasks.base import Records, Task
from tasks.losses import loss
from tasks.metrics import Classified, Judged, Metrics, Overlaps, Segmented
from tasks.metrics.classification import METRICS
from tasks.metrics.segmentation import metric_names
from tasks.models import build, load_weights, normalise

BATCH = 256
BATCH_VOXELS = 2_000_000  # of one batch of images or volumes; maps of activations are many times that
OVERLAP = 0.25  # of neighbouring windows, where a model looks at crops of a volume

Predict = Callable[[slice], Tensor]


@final
class Evaluator:
    """Computes a task's metrics for weights of the agreed model."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._model = build(setup.task.spec).eval()

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics' names."""
        return names_of(self._setup.task)

    def judge(self, weights: Mapping[str, NDArray[np.generic]]) -> Judged:
        """Return what a model with these weights says about all held-out records, beside the truth.

        Images are read batch by batch. Volumes that are larger than what the model trains on (`task.crop`) are
        looked at through overlapping windows of that size, weighted towards their middle.
        """
        load_weights(self._model, {n: torch.from_numpy(np.array(w)) for n, w in _agreed(weights).items()})
        heldout = self._setup.heldout
        return judged(self._setup.task, heldout, lambda part: self._logits(heldout.pixels(part)))

    def measure(self, weights: Mapping[str, NDArray[np.generic]]) -> tuple[Metrics, dict[str, Metrics]]:
        """Return (metrics over all held-out records, metrics by hospital)."""
        found = self.judge(weights)
        own = {
            name: found.metrics(np.asarray(positions, dtype=np.int64))
            for name, positions in self._setup.heldout_by_hospital.items()
            if positions
        }
        return found.metrics(), own

    def _logits(self, images: NDArray[np.uint8]) -> Tensor:
        inputs = normalise(torch.from_numpy(images))
        window = self._setup.task.spec.shape[1:]
        if inputs.shape[2:] == torch.Size(window):
            return self._model(inputs)
        return _windows(self._model, inputs, window)


def _agreed(weights: Mapping[str, NDArray[np.generic]]) -> Mapping[str, NDArray[np.generic]]:
    """Return the agreed model's part: a block that was planted into the first model adds .1 to a logit at most."""
    core = {name.removeprefix(CORE): value for name, value in weights.items() if name.startswith(CORE)}
    return core or weights


def names_of(task: Task) -> tuple[str, ...]:
    """Return the names of a task's metrics, the more telling ones first."""
    return metric_names(task.class_names) if task.spec.dense else METRICS


def judged(task: Task, records: Records, predict: Predict) -> Judged:
    """Return predictions for all records beside their truth, made and reduced batch by batch.

    Args:
        task: says what the logits mean, and which loss is reported.
        records: to judge.
        predict: returns the logits (m, outputs, ...) of the records at these positions.
    """
    _, units = np.unique(records.units, return_inverse=True)
    units = units.astype(np.int64)
    with torch.inference_mode():
        if not task.spec.dense:
            logits = [predict(part).double().numpy() for part in _batches(records)]
            empty = np.zeros((0, task.spec.outputs))
            return Classified(np.concatenate([empty, *logits]), records.labels, units)
        losses = loss(task.loss)
        parts: list[Overlaps] = []
        for part in _batches(records):
            logit = predict(part)
            masks = torch.from_numpy(np.asarray(records.targets(part)))
            parts.append(Overlaps.of(logit, masks, losses(logit, masks)))
        return Segmented(Overlaps.joined(parts), task.class_names, units)


def _batches(records: Records) -> Iterator[slice]:
    """Yield slices of the records: how many fit depends on the size of an image, never on the machine."""
    size = max(1, min(BATCH, BATCH_VOXELS // int(np.prod(records.images.shape))))
    for start in range(0, len(records), size):
        yield slice(start, start + size)


def _windows(model: nn.Module, inputs: Tensor, window: tuple[int, ...]) -> Tensor:
    from monai.inferers.utils import sliding_window_inference

    found = sliding_window_inference(
        inputs, roi_size=window, sw_batch_size=1, predictor=model, overlap=OVERLAP, mode="gaussian"
    )
    assert isinstance(found, Tensor)
    return found
