# scipy's root finders and numpy's complex arrays are typed too loosely to be checked strictly here.
# pyright: reportArgumentType=false
"""Closed-form bracket of epsilon at small noise: a binomial mixture of Gaussians.

At small noise a step's privacy loss tells whether the record took part, so the loss of a run is, up to
exponentially small overlaps, that of K ~ Bin(T, q) participations:
L_k ~ N(k d + k ln q + (T - k) ln(1 - q), k/s^2) with d = 1/(2 s^2).
"""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import bdtr, bdtrc, gammaln

from privacy.gaussian import hockey_stick, log_tail

Array = npt.NDArray[np.float64]

# Widens a bracket outwards by far more than rounding costs (measured: below 1e-9 relative).
ROUNDING = 1e-6


@final
@dataclass(frozen=True, slots=True)
class Mixture:
    """Losses of a run given the number of participations: weights, means, standard deviations.

    ``dropped`` is the probability left outside the window of k; an upper bound has to add it.
    """

    weight: Array
    mean: Array
    deviation: Array
    dropped: float

    def delta(self, epsilon: float) -> float:
        """Price an epsilon: delta = sum_k Bin(k) E[(1 - e^(epsilon - L_k))+], without the dropped mass."""
        sure = self.deviation == 0.0
        safe = np.where(sure, 1.0, self.deviation)
        spread = hockey_stick((self.mean - epsilon) / safe, safe)
        fixed = -np.expm1(np.minimum(epsilon - self.mean, 0.0))
        return float(np.sum(self.weight * np.where(sure, fixed, spread)))

    def epsilon(self, delta: float) -> float:
        """Smallest epsilon >= 0 with delta(epsilon) <= delta; inf where delta <= 0."""
        if delta <= 0.0:
            return math.inf
        if self.delta(0.0) <= delta:
            return 0.0
        high = float(np.max(self.mean + 10.0 * self.deviation)) + 1.0
        while self.delta(high) > delta:
            high *= 2.0
        return float(brentq(lambda e: self.delta(e) - delta, 0.0, high, xtol=1e-14, rtol=1e-14, maxiter=500))


def participations(*, sample_rate: float, steps: int, delta: float) -> tuple[Array, Array, float]:
    """Return k, Bin(steps, sample_rate) at k, and the probability of the k left out.

    The window leaves out less than 1e-9 of ``delta``. Sample rate 1: every step, and nothing is left out.
    """
    if sample_rate == 1.0:
        return np.array([float(steps)]), np.ones(1), 0.0
    mean = steps * sample_rate
    level = math.log(1.0 / delta) + 25.0
    reach = math.sqrt(2.0 * mean * level) + level
    low, high = max(0, math.floor(mean - reach)), min(steps, math.ceil(mean + reach))
    k = np.arange(low, high + 1, dtype=np.float64)
    choose = gammaln(steps + 1.0) - gammaln(k + 1.0) - gammaln(steps - k + 1.0)
    absent = (steps - k) * math.log1p(-sample_rate)
    weight = np.exp(choose + k * math.log(sample_rate) + absent)
    below = float(bdtr(low - 1, steps, sample_rate)) if low > 0 else 0.0
    above = float(bdtrc(high, steps, sample_rate)) if high < steps else 0.0
    return k, weight, below + above


def mixtures(*, noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> tuple[Mixture, Mixture]:
    """Return the mixtures with the sampling hidden (a lower bound) and revealed (an upper bound).

    Hidden: the loss of a step is at least the loss of its own branch, so delta is at least the mixture's.
    Revealed: joint convexity of the hockey-stick divergence in the sampling bits. Sample rate below 1.
    """
    k, weight, dropped = participations(sample_rate=sample_rate, steps=steps, delta=delta)
    half = 0.5 / noise_multiplier**2
    deviation = np.sqrt(k) / noise_multiplier
    hidden = k * half + k * math.log(sample_rate) + (steps - k) * math.log1p(-sample_rate)
    return Mixture(weight, hidden, deviation, dropped), Mixture(weight, k * half, deviation, dropped)


def overlap(t: float, *, noise_multiplier: float, sample_rate: float, steps: int) -> float:
    """Bound the probability that some step's loss exceeds its branch's by more than log1p(e^-t).

    Union bound over steps: T [q Phi((t - l - d) s) + (1 - q) Phi(-(d - l - t) s)], l = ln(q/(1-q)).
    """
    half = 0.5 / noise_multiplier**2
    logit = math.log(sample_rate) - math.log1p(-sample_rate)
    present = log_tail((t - logit - half) * noise_multiplier)
    absent = log_tail(-(half - logit - t) * noise_multiplier)
    return steps * (sample_rate * math.exp(present) + (1.0 - sample_rate) * math.exp(absent))


def refined_upper(hidden: Mixture, *, noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    """Upper bound: the hidden mixture moved by T log1p(e^-t) plus the overlap's probability, best t."""
    base = hidden.epsilon(delta)
    if base == 0.0:
        slope = 1.0
    else:
        step = 1e-6 * base
        slope = max((hidden.delta(base - step) - hidden.delta(base + step)) / (2.0 * step), 1e-300)

    def cost(t: float) -> float:
        lost = hidden.dropped + overlap(t, noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps)
        return steps * math.log1p(math.exp(-t)) + (lost / slope if lost < 0.5 * delta else math.inf)

    grid = np.geomspace(0.5, max(60.0, 0.25 / noise_multiplier**2), 80)
    best = min((float(t) for t in grid), key=cost)
    lost = hidden.dropped + overlap(best, noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps)
    return hidden.epsilon(delta - lost) + steps * math.log1p(math.exp(-best))


def bracket(*, noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> tuple[float, float]:
    """Return rigorous (lower, upper) bounds of the remove direction's epsilon, for sample rate below 1.

    *Guarantee*: lower <= epsilon <= upper, widened outwards by ``ROUNDING``.
    *Assumes*: Poisson sampling, Gaussian noise, noise multiplier above 0.
    *Edge cases*: wide (even 0 to inf) where the branches overlap, from a noise multiplier of about 0.1 on;
    the caller decides whether it is good enough.
    Source: tests/privacy/test_quadrature.py, and test_vectors.py in high precision.
    """
    setting = {"noise_multiplier": noise_multiplier, "sample_rate": sample_rate, "steps": steps}
    hidden, revealed = mixtures(**setting, delta=delta)
    lower = hidden.epsilon(delta)
    upper = min(revealed.epsilon(delta - revealed.dropped), refined_upper(hidden, **setting, delta=delta))
    return lower * (1.0 - ROUNDING), upper * (1.0 + ROUNDING)
