"""How well a classifier does: AUROC, MCC, balanced accuracy, loss, calibration, and what share is called right."""

from collections.abc import Callable
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from tasks.metrics import weighted
from tasks.metrics.base import Judged, Metrics, Rows, Sample, Weights
from tasks.metrics.calibration import brier_score, calibration_error, probabilities

METRICS = ("auroc", "mcc", "balanced_accuracy", "loss", "brier", "calibration_error", "classes_present")
MANY = 20  # classes from which on the mean AUROC hides the tail, and the paper's MCC leads
FEW = 5  # units of a class below which its ranking is an anecdote
FEW_UNITS = 10

Labels = NDArray[np.int64]


def classification_metrics(logits: NDArray[Any], labels: Labels) -> Metrics:
    """Return the metrics of logits (n, k) against labels (n,).

    - auroc: with one logit the area under the ROC curve; with more, its mean over the classes present,
      each against the rest by the log odds of its softmax probability (class-balanced: a rare class counts fully).
    - mcc: Matthews correlation; predictions are logit > 0, or the largest logit. 0 if all are alike.
    - balanced_accuracy: mean recall over the classes that are present.
    - loss: mean (binary) cross entropy in nats.
    - brier, calibration_error: see `tasks.metrics.calibration`.
    - classes_present: how many classes the means over classes are over.

    Edge cases: with one class only, auroc, mcc and balanced_accuracy are None; so are all metrics without any
    image, or where a logit is not finite (training diverged). No value is ever NaN.
    """
    scores = np.asarray(logits, dtype=np.float64)
    result: Metrics = dict.fromkeys(METRICS)
    if scores.size == 0 or not np.isfinite(scores).all():
        return result
    chance = probabilities(scores)
    result["loss"] = float(_losses(scores, labels).mean())
    result["brier"] = brier_score(chance, labels)
    result["calibration_error"] = calibration_error(chance, labels)
    result["classes_present"] = float(len(np.unique(labels)))
    if result["classes_present"] > 1:
        ones = np.ones((1, len(labels)))
        for name in METRICS[:3]:
            result[name] = float(_weighted(name, scores, labels)(ones)[0])
    return result


@final
class Classified(Judged):
    """Logits of a classifier for records with labels."""

    def __init__(self, logits: NDArray[Any], labels: Labels, units: Rows) -> None:
        """Take logits (n, k), labels (n,), and the number of the unit that each record belongs to (n,)."""
        self.logits = np.asarray(logits, dtype=np.float64)
        self.labels = labels
        self._units = units

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics' names."""
        return METRICS

    @property
    def primary(self) -> str:
        """AUROC; with many classes the paper's MCC."""
        return "auroc" if self.logits.shape[1] < MANY else "mcc"

    def metrics(self, rows: Rows | None = None) -> Metrics:
        """Return `classification_metrics` of these records."""
        if rows is None:
            return classification_metrics(self.logits, self.labels)
        return classification_metrics(self.logits[rows], self.labels[rows])

    def sample(self, name: str, rows: Rows | None = None) -> Sample:
        """Return auroc, mcc, balanced_accuracy, or recall: the share of the records that is called right."""
        chosen = np.arange(len(self.labels)) if rows is None else rows
        logits, labels = self.logits[chosen], self.labels[chosen]
        _, unit = np.unique(self._units[chosen], return_inverse=True)
        units = int(unit.max()) + 1 if len(unit) else 0
        per_class = [len(np.unique(unit[labels == c])) for c in np.unique(labels)]
        problem = "" if np.isfinite(logits).all() else "the training diverged"
        if not len(labels):
            problem = "no image"
        elif name != "recall" and len(per_class) < 2:
            problem = "one class only"
        thin = f"fewer than {FEW_UNITS} independent units" if units < FEW_UNITS else ""
        if name != "recall" and not thin and sum(size >= FEW for size in per_class) < 2:
            thin = f"fewer than {FEW} independent units of a class"
        paired = name == "auroc" and logits.shape[1] == 1
        if problem:
            return Sample(len(labels), units, _undefined, problem)
        trials = units if name == "recall" else min(per_class) if paired else None
        by_record = _weighted(name, logits, labels)

        def value(counts: Weights) -> Weights:
            return by_record(counts[:, unit])

        return Sample(len(labels), units, value, thin=thin, trials=trials)


def predictions(logits: Weights) -> Labels:
    """Return the predicted class (n,): logit > 0, or the largest logit."""
    return (logits[:, 0] > 0).astype(np.int64) if logits.shape[1] == 1 else logits.argmax(axis=1)


def _weighted(name: str, logits: Weights, labels: Labels) -> Callable[[Weights], Weights]:
    """Return a metric as a function of weights (r, n)."""
    classes = max(2, logits.shape[1])
    if name == "auroc":
        if logits.shape[1] == 1:
            return lambda w: weighted.auroc(logits[:, 0], labels == 1, w)
        odds, present = _log_odds(logits), np.unique(labels)
        return lambda w: weighted.mean_known(
            np.stack([weighted.auroc(odds[:, c], labels == c, w) for c in present], axis=1)
        )
    said = predictions(logits)
    if name == "mcc":
        return lambda w: weighted.mcc(said, labels, classes, w)
    if name == "balanced_accuracy":
        return lambda w: weighted.mean_known(weighted.recalls(said, labels, classes, w))
    if name == "recall":
        return lambda w: weighted.mean((said == labels).astype(np.float64), w)
    raise KeyError(name)


def _undefined(counts: Weights) -> Weights:
    return np.full(len(counts), np.nan)


def _log_odds(scores: Weights) -> Weights:
    # In the order of the softmax probability, without ties where that saturates at 1. log(1 - p) is safe for all
    # classes but the largest, whose others are summed directly.
    total = np.logaddexp.reduce(scores, axis=1, keepdims=True)
    rows, top = np.arange(len(scores)), scores.argmax(axis=1)
    others = scores.copy()
    others[rows, top] = -np.inf
    share = np.exp(scores - total)
    share[rows, top] = 0.0
    odds = scores - (total + np.log1p(-share))
    odds[rows, top] = scores[rows, top] - np.logaddexp.reduce(others, axis=1)
    return odds


def _losses(scores: Weights, labels: Labels) -> Weights:
    if scores.shape[1] == 1:
        return np.logaddexp(0.0, np.where(labels == 1, -scores[:, 0], scores[:, 0]))
    return np.logaddexp.reduce(scores, axis=1) - scores[np.arange(len(labels)), labels]
