"""Statistics of an empirical audit: how small can epsilon be, after what was guessed right about canaries?

An audit gives lower bounds. It can refute a claim; it never proves one.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit

from privacy import checks
from privacy.accounting import epsilon as price
from privacy.robustness import reconstruction_bound

# Simulated batches for the dispersion test; its p-values are multiples of 1/10,000.
_SIMULATED = 19_999


def one_run_p_value(*, canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Bound the probability of at least ``correct`` right guesses if the mechanism is (epsilon, delta)-DP.

    *Guarantee*: for every (epsilon, delta)-DP mechanism under add/remove, every way of guessing, and dependent
    canaries alike, the value is at most p with probability at most p.
    *Assumes*: each of the ``canaries`` was in the data by its own fair coin; the number of guesses (in or out;
    the other canaries are abstained from) was fixed before the coins were looked at.
    *Edge cases*: no guess gives 1. Raises ``ValueError`` naming a wrong argument.
    Source: Steinke, Nasr and Jagielski, 2023, theorem 5.2 and appendix D: P[Bin(r, e^eps/(1+e^eps)) >= v]
    + 2 m delta max_i P[v > Bin >= v - i]/i.
    """
    total, r, v = _counts(canaries, guesses, correct)
    budget = checks.finite("epsilon", epsilon, low=0.0, high=math.inf)
    return _p_value(total, r, v, budget, checks.finite("delta", delta, low=0.0, high=1.0))


def one_run_bound(*, canaries: int, guesses: int, correct: int, delta: float, confidence: float) -> float:
    """Lower bound on epsilon at ``delta`` from right guesses about canaries in one run. No units.

    *Guarantee*: at most the true epsilon with probability ``confidence``, over coins and mechanism.
    *Assumes*: as ``one_run_p_value``.
    *Edge cases*: 0 where guessing was no better than chance. It cannot exceed ln(r/ln(1/(1 - confidence))),
    about, however leaky the mechanism is. Raises ``ValueError`` naming a wrong argument.
    Source: the inversion of ``one_run_p_value``; an (epsilon, delta)-DP mechanism is so for every larger
    epsilon, so any epsilon that is rejected is a bound.
    """
    total, r, v = _counts(canaries, guesses, correct)
    tolerated = checks.finite("delta", delta, low=0.0, high=1.0)
    level = 1.0 - checks.probability(confidence, "confidence")
    if _p_value(total, r, v, 0.0, tolerated) > level:
        return 0.0
    low, high = 0.0, 1.0
    while _p_value(total, r, v, high, tolerated) <= level:
        low, high = high, 2.0 * high
    for _ in range(40):
        middle = 0.5 * (low + high)
        if _p_value(total, r, v, middle, tolerated) <= level:
            low = middle
        else:
            high = middle
    return low


def _counts(canaries: object, guesses: object, correct: object) -> tuple[int, int, int]:
    total, r, v = (
        checks.whole("canaries", canaries),
        checks.whole("guesses", guesses, low=0),
        checks.whole("correct", correct, low=0),
    )
    if r > total:
        raise ValueError(f"guesses must be at most the {total} canaries, not {r}")
    if v > r:
        raise ValueError(f"correct must be at most the {r} guesses, not {v}")
    return total, r, v


def _p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    # Counted in wrong guesses: at large epsilon the success probability rounds to 1, its complement does not.
    wrong, odds = guesses - correct, float(expit(-epsilon))
    p = float(stats.binom.cdf(wrong, guesses, odds))
    if delta > 0.0 and correct > 0:
        below = np.cumsum(stats.binom.pmf(np.arange(wrong + 1, guesses + 1), guesses, odds))
        p += 2.0 * canaries * delta * float(np.max(below / np.arange(1, correct + 1)))
    return min(1.0, p)


@final
@dataclass(frozen=True, slots=True)
class Hits:
    """How often a test fixed beforehand said "in": of the canaries that were, and of those that were not."""

    inside_hits: int
    inside: int
    outside_hits: int
    outside: int

    def rates(self, confidence: float) -> tuple[float, float]:
        """Return (false positive rate at most, true positive rate at least), jointly with ``confidence``.

        Source: Clopper and Pearson, 1934, one-sided, half of the error each.
        """
        for name, hits, total in (
            ("inside_hits", self.inside_hits, self.inside),
            ("outside_hits", self.outside_hits, self.outside),
        ):
            if checks.whole(name, hits, low=0) > checks.whole(name.removesuffix("_hits"), total):
                raise ValueError(f"{name} must be at most {total}, not {hits}")
        half = 0.5 * (1.0 - checks.probability(confidence, "confidence"))
        k, n = self.outside_hits, self.outside
        most = 1.0 if k == n else float(stats.beta.isf(half, k + 1, n - k))
        k, n = self.inside_hits, self.inside
        least = 0.0 if k == 0 else float(stats.beta.ppf(half, k, n - k + 1))
        return most, least


def curve_bound(hits: Hits, *, sample_rate: float, steps: int, delta: float, confidence: float) -> tuple[float, float]:
    """Largest noise multiplier that the hits allow, and its epsilon at ``delta``: (noise multiplier, epsilon).

    *Guarantee*: for DP-SGD at this rate and these steps, with a noise multiplier s nobody knows, the first is at
    least s and the second at most epsilon(s), with probability ``confidence``.
    *Assumes*: canaries do not touch each other (orthogonal clipped gradients, independent noise), so that hits
    are independent; Poisson sampling; the test was fixed beforehand. Under these it is far sharper than
    ``one_run_bound``, since it uses the trade-off curve and not one point of it.
    *Edge cases*: (inf, 0) where the test did no better than chance; noise is never put below 1e-4.
    Source: Nasr et al., 2023, auditing by the trade-off function; ``privacy.reconstruction_bound`` is that
    function's power at a level.
    """
    most, least = hits.rates(confidence)
    rate, count = checks.rate(sample_rate), checks.whole("steps", steps)
    tolerated = checks.probability(delta)
    if least <= most or most >= 1.0:
        return math.inf, 0.0

    def explains(noise: float) -> bool:
        power = reconstruction_bound(
            noise_multiplier=noise, sample_rate=rate, steps=count, prior=most, threat="worst_case"
        )
        return power * (1.0 + 1e-3) + 1e-4 >= least  # its stated error, on the safe side

    low, high = math.log(1e-4), math.log(1e4)
    if explains(math.exp(high)):
        return math.inf, 0.0
    while high - low > 1e-3:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if explains(math.exp(middle)) else (low, middle)
    noise = math.exp(high)
    return noise, price(noise_multiplier=noise, sample_rate=rate, steps=count, delta=tolerated).lower


def dispersion_p_value(sizes: Sequence[int], *, units: int, sample_rate: float) -> float:
    """Two-sided p-value of batch sizes against independent Bin(units, sample_rate): sum of (b - nq)^2.

    *Guarantee*: exact up to the resolution of 1e-4 and a simulation error of about sqrt(p/10,000).
    *Assumes*: the sizes were observed, not told.
    *Edge cases*: fixed batches have dispersion 0 and are caught from about three steps on, not at one. At rate 1
    every batch must be whole: 1 or 0. Raises ``ValueError`` naming a wrong argument.
    Source: Fisher's index of dispersion with known mean; the law of the statistic is simulated, since chi-square
    is wrong for batches of a few. A histogram of T sizes is one multinomial draw.
    """
    n, rate = checks.whole("units", units), checks.rate(sample_rate)
    observed = np.array([checks.whole("sizes", int(b), low=0) for b in sizes], dtype=np.int64)
    if len(observed) == 0 or observed.max() > n:
        raise ValueError(f"sizes must be at least one batch of at most {n} units")
    if rate == 1.0:
        return float(bool((observed == n).all()))
    simulated = _simulated_dispersion(n, rate, len(observed))
    found = float(((observed - n * rate) ** 2).sum())
    close = 1e-9 * max(found, 1.0)
    tail = min(np.count_nonzero(simulated <= found + close), np.count_nonzero(simulated >= found - close))
    return min(1.0, 2.0 * (1 + int(tail)) / (_SIMULATED + 1))


@functools.lru_cache(maxsize=64)
def _simulated_dispersion(units: int, rate: float, steps: int) -> NDArray[np.float64]:
    low, high = int(stats.binom.ppf(1e-12, units, rate)), int(stats.binom.isf(1e-12, units, rate))
    values = np.arange(low, high + 1)
    chance = stats.binom.pmf(values, units, rate)
    counts = np.random.default_rng(0).multinomial(steps, chance / chance.sum(), size=_SIMULATED)
    return counts @ (values - units * rate) ** 2


def noise_p_value(noise: Sequence[float] | NDArray[np.float64], *, deviation: float) -> float:
    """Probability that noise N(0, deviation^2) is as small as this in its sum of squares: chi-square, one-sided.

    *Guarantee*: exact.
    *Assumes*: the values hold nothing but noise, e.g. what a hospital without records releases.
    *Edge cases*: 0 without any noise. Raises ``ValueError`` naming a wrong argument.
    """
    scale = checks.finite("deviation", deviation, low=0.0, high=math.inf, open_low=True)
    values = np.asarray(noise, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError("noise must be finite values, at least one")
    return float(stats.chi2(values.size).cdf(float(np.sum((values / scale) ** 2))))
