"""How well a classifier ranks images of one hospital, all hospitals together: AUROC without what tells hospitals apart.

Where hospitals differ in how many of their images show a disease, a score that knows nothing but the hospital already
reaches an AUROC well above one half on all images. Whoever uses the model ranks the images of one hospital.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from simulation.predictions import Predictions
from tasks.metrics import Classified, weighted
from tasks.metrics.base import Rows, Weights

Array = NDArray[np.float64]
Pairs = tuple[Array, Array]  # won and all, each (r,)


def ranking_rows(predictions: Predictions) -> Rows:
    """Return the positions of the records of those hospitals that have records of more than one class."""
    shares = [predictions.rows_of(name) for name in predictions.hospitals]
    both = [rows for rows in shares if len(np.unique(predictions.labels[rows])) > 1]
    return np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *both]))


def within_auroc(judged: Classified, share: Rows, rows: Rows, unit: Rows, counts: Weights) -> Array:
    """Return the AUROC over pairs of one hospital (r,): wins of all hospitals over pairs of all; NaN without a pair.

    With more than one logit the mean over classes, each against the rest by its log odds. (A stratified
    Mann-Whitney statistic, hospitals weighted by their pairs: van Elteren 1960 with other weights.)

    Args:
        judged: the answers.
        share: of every record the hospital's position.
        rows: of the records that count.
        unit: column in counts of each of them.
        counts: (r, units), how often every unit is drawn.
    """
    weights = counts[:, unit]
    by_class: list[Array] = []
    for scores, positive in one_against_rest(judged.logits[rows], judged.labels[rows]):
        won, pairs = _added([_pairs(scores[m], positive[m], weights[:, m]) for m in _masks(share[rows])])
        by_class.append(np.divide(won, pairs, out=np.full(len(won), np.nan), where=pairs > 0))
    return weighted.mean_known(np.stack(by_class, axis=1))


def pairs_share(predictions: Predictions) -> float | None:
    """Return which share of all pairs of a positive and a negative record lies within one hospital; None without any.

    With more than two classes the pairs of each class against the rest are added up.
    """
    share, labels = predictions.share, predictions.labels
    every, within = 0, 0
    for c in np.unique(labels)[1:] if len(np.unique(labels)) == 2 else np.unique(labels):
        positive = labels == c
        every += int(positive.sum()) * int((~positive).sum())
        within += sum(int(positive[m].sum()) * int((~positive[m]).sum()) for m in _masks(share))
    return within / every if every else None


def one_against_rest(logits: Array, labels: Rows) -> list[tuple[Array, NDArray[np.bool_]]]:
    """Return scores and positives of each ranking that an AUROC is the mean of."""
    if logits.shape[1] == 1:
        return [(logits[:, 0], labels == 1)]
    others = [np.delete(logits, c, axis=1) for c in range(logits.shape[1])]
    return [(logits[:, c] - np.asarray(logsumexp(others[c], axis=1)), labels == c) for c in np.unique(labels)]


def _masks(share: Rows) -> list[NDArray[np.bool_]]:
    return [share == k for k in np.unique(share[share >= 0])]


def _pairs(scores: Array, positive: NDArray[np.bool_], weights: Weights) -> Pairs:
    pairs = weights[:, positive].sum(axis=1) * weights[:, ~positive].sum(axis=1)
    return np.nan_to_num(weighted.auroc(scores, positive, weights)) * pairs, pairs


def _added(parts: Sequence[Pairs]) -> Pairs:
    return np.sum([won for won, _ in parts], axis=0), np.sum([pairs for _, pairs in parts], axis=0)
