"""Utility of a model on the held-out records: overall and at each hospital's share of them.

The simulator's own instrument: nothing of it crosses the federation, so it costs no privacy in a simulation.
"""

from collections.abc import Mapping
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from simulation.setup import Setup
from tasks.metrics import classification_metrics
from tasks.models import build, load_weights, normalise

BATCH = 256

Metrics = dict[str, float | None]


@final
class Evaluator:
    """Computes a task's metrics for weights of the agreed model."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._model = build(setup.task.spec).eval()

    def logits(self, weights: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float64]:
        """Return the logits of all held-out records, (n, outputs)."""
        load_weights(self._model, {n: torch.from_numpy(np.array(w)) for n, w in weights.items()})
        heldout = self._setup.heldout
        parts: list[NDArray[np.float64]] = []
        with torch.inference_mode():
            for start in range(0, len(heldout), BATCH):
                images = torch.from_numpy(heldout.pixels(slice(start, start + BATCH)))
                parts.append(self._model(normalise(images)).double().numpy())
        return np.concatenate(parts)

    def measure(self, weights: Mapping[str, NDArray[np.generic]]) -> tuple[Metrics, dict[str, Metrics]]:
        """Return (metrics over all held-out records, metrics by hospital)."""
        logits, labels = self.logits(weights), self._setup.heldout.labels
        by_hospital: dict[str, Metrics] = {}
        for name, positions in self._setup.heldout_by_hospital.items():
            if positions:
                by_hospital[name] = classification_metrics(logits[positions], labels[positions])
        return classification_metrics(logits, labels), by_hospital
