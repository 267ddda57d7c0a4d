# scipy's root finders are typed too loosely to be checked strictly here.
# pyright: reportArgumentType=false
"""Closed forms for a unit of several images: one step exactly, and a rigorous bracket at small noise.

At small noise a step tells how many of the unit's images took part, so a run's loss is, up to exponentially
small overlaps, N(S d + R, S/s^2) with d = 1/(2 s^2), S = sum_t J_t^2, R = sum_t ln w(J_t), w the law of
J ~ Bin(k, q). S is a whole number, and its law a power of one characteristic function. R is written as a
line in S plus a remainder, which Chernoff bounds from both sides.
"""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_ndtr, logsumexp, ndtr

from privacy.closed_form import ROUNDING, Mixture
from privacy.gaussian import hockey_stick
from privacy.group_loss import log_binomial
from privacy.release import Spend

Array = npt.NDArray[np.float64]

_LEFT_OUT = 1e-9  # of delta: what windows and remainders may leave out on either side
_LONGEST = 1 << 22  # numbers in the law of S
_COARSE = 4e-6  # relative width of the bins in which S is summed up
_TRANSFORM = 1e-15  # error of one value of a discrete Fourier transform of a law


def one_step(spend: Spend, records: int, delta: float) -> float:
    """Epsilon of one step, the larger direction: l is increasing in x, so the best regions are half lines.

    *Guarantee*: exact to rounding. *Assumes*: sample rate below 1. *Edge cases*: 0 where delta covers it.
    """
    s, j = spend.noise_multiplier, np.arange(records + 1.0)
    log_weight = log_binomial(records, spend.sample_rate)
    weight = np.exp(log_weight)

    def loss(x: float) -> float:
        return float(logsumexp(log_weight + (j * x - 0.5 * j * j) / s**2))

    def removed(x: float) -> float:
        return float(weight @ hockey_stick((j - x) / s, j / s))

    def added(epsilon: float) -> float:
        x = place(-epsilon)
        second = float(logsumexp(log_weight + log_ndtr((x - j) / s)))
        return float(ndtr(x / s)) - math.exp(min(0.0, epsilon + second))

    def place(epsilon: float) -> float:
        low, high = -1.0 - s, records + s
        while loss(low) > epsilon:
            low *= 2.0
        while loss(high) < epsilon:
            high *= 2.0
        return float(brentq(lambda x: loss(x) - epsilon, low, high, xtol=1e-300, rtol=1e-15, maxiter=500))

    start = place(0.0)
    if removed(start) <= delta:
        return 0.0
    end = records + s
    while removed(end) > delta:
        end += 2.0 * s
    top = loss(float(brentq(lambda x: removed(x) - delta, start, end, xtol=1e-300, rtol=1e-15, maxiter=500)))
    edge = -float(log_weight[0])
    if top >= edge or added(top) <= delta:
        return top
    return float(brentq(lambda e: added(e) - delta, top, edge * (1.0 - 1e-12), rtol=1e-14, maxiter=500))


def overlap(spend: Spend, records: int, lost: float) -> float:
    """Return g: a run's loss exceeds that of its branches by more than g with probability at most ``lost``.

    A step's excess X = l - l_J is not negative, and with f_j = N(j, s^2) and p = sum_j w_j f_j
    E[e^(X/2)] = sum_j Int (w_j f_j p)^(1/2) <= sum_ij (w_i w_j)^(1/2) e^(-(i - j)^2/(8 s^2)) = 1 + B.
    Markov: P(sum X > g) <= ((1 + B)^T - 1)/(e^(g/2) - 1).
    """
    half = 0.5 * log_binomial(records, spend.sample_rate)
    i = np.arange(records + 1.0)
    between = half[:, None] + half[None, :] - 0.125 * ((i[:, None] - i[None, :]) / spend.noise_multiplier) ** 2
    between[np.diag_indices(records + 1)] = -math.inf
    total = spend.steps * math.log1p(math.exp(float(logsumexp(between))))
    return 2.0 * math.log1p(math.expm1(total) / lost) if total < 700.0 else math.inf


def _reach(log_weight: Array, value: Array, steps: int, log_level: float) -> float:
    """Return r with P(sum of ``steps`` draws of value > r) <= e^log_level: Chernoff, at the best exponent."""
    spread = float(np.ptp(value)) or 1.0

    def bound(log_c: float) -> float:
        c = math.exp(log_c)
        return (steps * float(logsumexp(log_weight + c * value)) - log_level) / c

    grid = np.arange(-16.0, 8.0, 0.5) - math.log(spread)
    near = float(min(grid, key=bound))
    found = minimize_scalar(bound, bounds=(near - 0.5, near + 0.5), method="bounded", options={"xatol": 1e-3})
    return min(float(found.fun), bound(near), steps * float(value.max()))


@final
@dataclass(frozen=True, slots=True)
class _Squares:
    """The law of S in bins: weights, smallest and largest S of each bin; ``lost`` bounds what is missing."""

    weight: Array
    least: Array
    most: Array
    lost: float


def _squares(log_weight: Array, steps: int, delta: float) -> _Squares | None:
    """The law of S = sum_t J_t^2; None where it is too long. ``lost`` includes the transform's rounding."""
    square = np.arange(len(log_weight), dtype=np.float64) ** 2
    level = math.log(_LEFT_OUT * delta)
    low = max(0, math.floor(-_reach(log_weight, -square, steps, level)))
    high = math.ceil(_reach(log_weight, square, steps, level))
    if high - low + 1 > _LONGEST:
        return None
    size = 1 << (high - low).bit_length()
    law = np.zeros(size)
    np.add.at(law, square.astype(np.int64) % size, np.exp(log_weight))
    whole = np.fft.irfft(np.fft.rfft(law) ** steps, size)
    window = np.clip(np.roll(whole, -(low % size))[: high - low + 1], 0.0, None)
    # Error of a sum of window: at most the l2 norm of the transform's error (Cauchy-Schwarz, Parseval).
    rounding = steps * _TRANSFORM * math.sqrt(size * float(np.sum(window**2)))
    width = max(1, math.floor(_COARSE * max(low, 0.05 * (low + high))))
    starts = np.arange(0, len(window), width)
    weight = np.add.reduceat(window, starts)
    least = low + starts.astype(np.float64)
    most = np.minimum(least + (width - 1), float(high))
    kept = weight > 1e-24 * delta
    lost = (4.0 * _LEFT_OUT + 1e-14 * steps) * delta + rounding  # the weights' own rounding is 1e-14
    return _Squares(weight[kept], least[kept], most[kept], lost)


def _mixture(squares: _Squares, noise: float, *, slope: float, shift: float, upper: bool) -> Mixture:
    """Losses N(S d + slope S + shift, S/s^2), with every bin priced at its dearer or at its cheaper end.

    The Gaussian's part grows with S; the line's is taken at whichever end of the bin suits.
    """
    size = squares.most if upper else squares.least
    line = slope * np.stack([squares.least, squares.most])
    mean = 0.5 * size / noise**2 + (line.max(axis=0) if upper else line.min(axis=0)) + shift
    return Mixture(squares.weight, mean, np.sqrt(size) / noise, squares.lost)


def revealed(spend: Spend, records: int, delta: float) -> float:
    """Upper bound of both directions at any noise: every step tells how many images took part; inf if too long.

    Joint convexity of the hockey-stick divergence; given the counts a run is a Gaussian of mu^2 = S/s^2.
    """
    squares = _squares(log_binomial(records, spend.sample_rate), spend.steps, delta)
    if squares is None:
        return math.inf
    mixture = _mixture(squares, spend.noise_multiplier, slope=0.0, shift=0.0, upper=True)
    return mixture.epsilon(delta - mixture.dropped) * (1.0 + ROUNDING)


def bracket(spend: Spend, records: int, delta: float) -> tuple[float, float]:
    """Return rigorous (lower, upper) bounds of the remove direction's epsilon, for sample rate below 1.

    *Guarantee*: lower <= epsilon <= upper, widened outwards by ``closed_form.ROUNDING``.
    *Assumes*: as ``accounting.unit_epsilon``; noise multiplier above 0.
    *Edge cases*: (0, inf) where the law of S is too long; wide where ln w is far from a line in j^2, from a
    noise multiplier of about .01 on.
    Source: hidden branches below, revealed ones or hidden ones plus overlap above; tests/privacy/test_units.py.
    """
    log_weight = log_binomial(records, spend.sample_rate)
    squares = _squares(log_weight, spend.steps, delta)
    if squares is None:
        return 0.0, math.inf
    noise, level = spend.noise_multiplier, math.log(_LEFT_OUT * delta)
    slope, offset = _line(log_weight)
    rest = log_weight - offset - slope * np.arange(records + 1.0) ** 2
    most = _reach(log_weight, rest, spend.steps, level) + spend.steps * offset
    least = -_reach(log_weight, -rest, spend.steps, level) + spend.steps * offset
    below = _mixture(squares, noise, slope=slope, shift=least, upper=False)
    above = _mixture(squares, noise, slope=slope, shift=most, upper=True)
    told = _mixture(squares, noise, slope=0.0, shift=0.0, upper=True)
    lost = squares.lost + _LEFT_OUT * delta
    shift = overlap(spend, records, _LEFT_OUT * delta)
    lower = below.epsilon(delta + lost) if delta + lost < 1.0 else 0.0
    upper = told.epsilon(delta - lost)
    if math.isfinite(shift):
        upper = min(upper, above.epsilon(delta - lost - _LEFT_OUT * delta) + shift)
    return lower * (1.0 - ROUNDING), upper * (1.0 + ROUNDING)


def _line(log_weight: Array) -> tuple[float, float]:
    """Return (slope, offset) of the line in j^2 closest to ln w(j), in the mean square under w."""
    weight, square = np.exp(log_weight), np.arange(len(log_weight), dtype=np.float64) ** 2
    centred = square - weight @ square
    value = log_weight - weight @ log_weight
    slope = float(weight @ (centred * value)) / float(weight @ (centred * centred))
    return slope, float(weight @ log_weight) - slope * float(weight @ square)
