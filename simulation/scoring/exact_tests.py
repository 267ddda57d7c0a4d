"""Exact tests and intervals for counts, and what many of them together allow one to say."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binom


def clopper_pearson(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact two-sided interval of a rate; (0, 1) without trials. Clopper and Pearson 1934."""
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, successes, trials - successes + 1)) if successes > 0 else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, trials - successes)) if successes < trials else 1.0
    return low, high


def binomial_p(successes: int, trials: int, chance: float) -> float:
    """Return the probability of at least so many successes by chance alone; 1 without trials."""
    return float(binom.sf(successes - 1, trials, chance))


def common_decoys_p(successes: int, targets: int, decoys: int) -> float:
    """Return the probability that by chance so many targets, or more, are ranked above decoys that all of them share.

    With shared decoys the ranks depend on each other: a decoy that happens to lie near blocks every target, and if none
    does, all profit. By chance every order of the n targets and m decoys is as likely, and k targets come before the
    first decoy with probability at least prod_{i<k} (n - i) / (n + m - i): the negative hypergeometric distribution.
    """
    if successes > targets:
        return 0.0
    ahead = np.arange(successes)
    return float(np.prod((targets - ahead) / (targets + decoys - ahead)))


def mcnemar_p(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the one-sided exact paired p-value that `first` succeeds more often than `second`; both (n,).

    Only pairs in which exactly one succeeds count; under the null hypothesis either is as likely. McNemar
    1947.
    """
    gained = int(np.count_nonzero(first & ~second))
    lost = int(np.count_nonzero(second & ~first))
    return binomial_p(gained, gained + lost, 0.5)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for testing all of them, in the order given. Holm 1979.

    Rejecting where the adjusted value is at most alpha keeps the chance of any false rejection at most alpha,
    however the tests depend on each other.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = (len(values) - np.arange(len(values))) * values[order]
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return adjusted.tolist()
