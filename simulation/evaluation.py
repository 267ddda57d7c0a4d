"""Utility of a model on the held-out records: overall and at each hospital's share of them.

The simulator's own instrument: nothing of it crosses the federation, so it costs no privacy in a simulation.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from configs import Experiment
from server.model import CORE
from simulation.setup import Setup
from tasks.base import Records, Task
from tasks.losses import loss
from tasks.metrics import Classified, Judged, Metrics, Overlaps, Segmented
from tasks.metrics.classification import METRICS
from tasks.metrics.segmentation import metric_names
from tasks.models import build, load_weights, normalise

BATCH = 64  # a larger one falls out of the caches
BATCH_VOXELS = 2_000_000  # of one batch of images or volumes; maps of activations are many times that
MANY = 100  # hospitals from which on each one's own utility is measured after the rounds that count only
KEPT = 2  # models whose answers are kept: the final one, and the last before an attack
OVERLAP = 0.25  # of neighbouring windows, where a model looks at crops of a volume

Predict = Callable[[slice], Tensor]


@final
class Evaluator:
    """Computes a task's metrics for weights of the agreed model. One thread at a time."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._model = build(setup.task.spec).eval()
        self._judged: dict[str, Judged] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics' names."""
        return names_of(self._setup.task)

    def judge(self, weights: Mapping[str, NDArray[np.generic]]) -> Judged:
        """Return what a model with these weights says about all held-out records, beside the truth.

        The answers of the latest two models are kept: the same weights are not asked twice. Images are read batch by
        batch. Volumes that are larger than what the model trains on (`task.crop`) are looked at through overlapping
        windows of that size, weighted towards their middle.
        """
        agreed = {name: np.array(weight) for name, weight in _agreed(weights).items()}
        digest = _digest(agreed)
        if digest not in self._judged:
            load_weights(self._model, {name: torch.from_numpy(weight) for name, weight in agreed.items()})
            heldout = self._setup.heldout
            found = judged(self._setup.task, heldout, lambda part: self._logits(heldout.pixels(part)))
            self._judged = dict([*self._judged.items(), (digest, found)][-KEPT:])
        return self._judged[digest]

    def measure(
        self, weights: Mapping[str, NDArray[np.generic]], round_number: int | None = None
    ) -> tuple[Metrics, dict[str, Metrics]]:
        """Return (metrics over all held-out records, metrics by hospital).

        Args:
            weights: of the model.
            round_number: after which it stands so. With 100 hospitals and more, their own metrics are left out unless
                it is the last round or the last that is not attacked: they would be most of the time and of the log.
        """
        found = self.judge(weights)
        if round_number is not None and not self._tells_hospitals(round_number):
            return found.metrics(), {}
        own = {
            name: found.metrics(np.asarray(positions, dtype=np.int64))
            for name, positions in self._setup.heldout_by_hospital.items()
            if positions
        }
        return found.metrics(), own

    def _tells_hospitals(self, round_number: int) -> bool:
        experiment = self._setup.experiment
        if len(self._setup.heldout_by_hospital) < MANY:
            return True
        return round_number in (experiment.training.rounds, last_clean_round(experiment))

    def _logits(self, images: NDArray[np.uint8]) -> Tensor:
        inputs = normalise(torch.from_numpy(images))
        window = self._setup.task.spec.shape[1:]
        if inputs.shape[2:] == torch.Size(window):
            return self._model(inputs)
        return _windows(self._model, inputs, window)


def _digest(arrays: Mapping[str, NDArray[np.generic]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}\n".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _agreed(weights: Mapping[str, NDArray[np.generic]]) -> Mapping[str, NDArray[np.generic]]:
    """Return the agreed model's part: a block that was planted into the first model adds .1 to a logit at most."""
    core = {name.removeprefix(CORE): value for name, value in weights.items() if name.startswith(CORE)}
    return core or weights


def last_clean_round(experiment: Experiment) -> int | None:
    """Return the last evaluated round that is not attacked; None if every one is."""
    clean = set(experiment.evaluated_rounds) - set(experiment.attacked_rounds)
    return max(clean, default=None)


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
