"""How far a classifier's probabilities can be taken at their word."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
BINS = 15


def probabilities(logits: Array) -> Array:
    """Return probabilities: (n, 1) of the positive class for one logit, else the softmax (n, k)."""
    if logits.shape[1] == 1:
        return np.exp(-np.logaddexp(0.0, -logits))
    return np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))


def calibration_error(probability: Array, labels: NDArray[np.int64]) -> float:
    """Return the expected calibration error, in [0, 1].

    Fifteen bins of equal width; the mean over images of the distance between what a bin's images were given on
    average and the share of them that came true. With one logit that is the probability of the positive class
    (and the share of positives), with more the probability of the predicted class (and the share called right).

    Source: Naeini et al. 2015; Guo et al. 2017. It depends on the bins and is biased upwards with few images.
    """
    if probability.shape[1] == 1:
        given, true = probability[:, 0], labels == 1
    else:
        given, true = probability.max(axis=1), probability.argmax(axis=1) == labels
    bins = np.minimum((given * BINS).astype(np.int64), BINS - 1)
    off = np.bincount(bins, weights=given - true, minlength=BINS)
    return float(np.abs(off).sum() / len(labels))


def brier_score(probability: Array, labels: NDArray[np.int64]) -> float:
    """Return the mean squared error of the probabilities; 0 is perfect.

    With one logit of the positive class alone, in [0, 1]; with more summed over the classes, in [0, 2].

    Source: Brier 1950 (the sum); the halved form is usual for two classes.
    """
    if probability.shape[1] == 1:
        return float(np.mean((probability[:, 0] - labels) ** 2))
    rows = np.arange(len(labels))
    squares = (probability**2).sum(axis=1) - 2 * probability[rows, labels] + 1
    return float(np.mean(squares))
