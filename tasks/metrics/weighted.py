"""Metrics of weighted records, many sets of weights at once: what a bootstrap needs, and with ones the metric itself.

Weights are (r, n), float64: how often each of n records counts, in each of r resamples.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[np.float64]


def auroc(scores: Array, positive: NDArray[np.bool_], weights: Array) -> Array:
    """Return the probability (r,) that a positive outranks a negative, ties counting half; NaN without a pair.

    Source: Hanley and McNeil 1982; the same as the area under the ROC curve by trapezoids.
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    sorted_weights, truth = weights[:, order], positive[order]
    ups = np.add.reduceat(np.where(truth, sorted_weights, 0.0), starts, axis=1)
    downs = np.add.reduceat(np.where(truth, 0.0, sorted_weights), starts, axis=1)
    below = np.cumsum(downs, axis=1) - downs
    won = (ups * (below + 0.5 * downs)).sum(axis=1)
    return _ratio(won, ups.sum(axis=1) * downs.sum(axis=1))


def mcc(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int, weights: Array) -> Array:
    """Return Matthews' correlation (r,); 0 where all predictions or all labels are alike.

    Source: Gorodkin 2004, the k-category correlation coefficient.
    """
    total = weights.sum(axis=1)
    right = weights @ (predicted == labels).astype(np.float64)
    said, true = _per_class(predicted, classes, weights), _per_class(labels, classes, weights)
    covariance = right * total - (said * true).sum(axis=1)
    spread = (total**2 - (said**2).sum(axis=1)) * (total**2 - (true**2).sum(axis=1))
    flat = spread <= 0
    return np.where(flat, 0.0, covariance / np.sqrt(np.where(flat, 1.0, spread)))


def recalls(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int, weights: Array) -> Array:
    """Return the share of each class that is called right, (r, classes); NaN where a class is absent."""
    hits = _per_class(labels, classes, weights * (predicted == labels))
    return _ratio(hits, _per_class(labels, classes, weights))


def mean(values: Array, weights: Array) -> Array:
    """Return the weighted mean (r,) of the values (n,) that are not NaN; NaN without any."""
    known = ~np.isnan(values)
    return _ratio(weights[:, known] @ values[known], weights[:, known].sum(axis=1))


def mean_known(table: Array) -> Array:
    """Return the mean (r,) over the columns of (r, k) that are not NaN; NaN without any."""
    known = ~np.isnan(table)
    return _ratio(np.where(known, table, 0.0).sum(axis=1), known.sum(axis=1).astype(np.float64))


def _per_class(codes: NDArray[np.int64], classes: int, weights: Array) -> Array:
    count = len(codes)
    hot = sparse.csr_array((np.ones(count), codes, np.arange(count + 1)), shape=(count, classes))
    return np.asarray((hot.T @ weights.T).T)


def _ratio(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
