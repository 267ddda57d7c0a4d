"""How well a classifier does: AUROC, MCC, balanced accuracy, loss."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

METRICS = ("auroc", "mcc", "balanced_accuracy", "loss")


def classification_metrics(logits: NDArray[Any], labels: NDArray[np.int64]) -> dict[str, float | None]:
    """Return the metrics of logits (n, k) against labels (n,).

    - auroc: with one logit the area under the ROC curve; with more, its mean over the classes present,
      each against the rest by the log odds of its softmax probability.
    - mcc: Matthews correlation; predictions are logit > 0, or the largest logit. 0 if all are alike.
    - balanced_accuracy: mean recall over the classes that are present.
    - loss: mean (binary) cross entropy in nats.

    Edge cases: with one class only, auroc, mcc and balanced_accuracy are None; so are all metrics without any
    image, or where a logit is not finite (training diverged). No value is ever NaN.
    """
    scores = np.asarray(logits, dtype=np.float64)
    if scores.size == 0 or not np.isfinite(scores).all():
        return dict.fromkeys(METRICS)
    result: dict[str, float | None] = dict.fromkeys(METRICS)
    result["loss"] = float(_losses(scores, labels).mean())
    present = np.unique(labels)
    if len(present) < 2:
        return result
    from sklearn.metrics import matthews_corrcoef, roc_auc_score

    if scores.shape[1] == 1:
        predicted = (scores[:, 0] > 0).astype(np.int64)
        areas = [roc_auc_score(labels, scores[:, 0])]
    else:
        predicted = scores.argmax(axis=1)
        areas = [roc_auc_score(labels == c, _log_odds(scores, int(c))) for c in present]
    result["auroc"] = float(np.mean(areas))
    result["mcc"] = float(matthews_corrcoef(labels, predicted))
    result["balanced_accuracy"] = float(np.mean([np.mean(predicted[labels == c] == c) for c in present]))
    return result


def _log_odds(scores: NDArray[np.float64], label: int) -> NDArray[np.float64]:
    # In the order of the softmax probability, without ties where that saturates at 1.
    others = np.delete(scores, label, axis=1)
    return scores[:, label] - np.logaddexp.reduce(others, axis=1)


def _losses(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    if scores.shape[1] == 1:
        return np.logaddexp(0.0, np.where(labels == 1, -scores[:, 0], scores[:, 0]))
    return np.logaddexp.reduce(scores, axis=1) - scores[np.arange(len(labels)), labels]
