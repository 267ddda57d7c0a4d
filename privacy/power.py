"""Power of the best test of a given level for whether a record took part in a run.

The Neyman-Pearson test rejects where the log likelihood ratio L exceeds a threshold tau, with
Q(L > tau) = level, and has power min over tau of delta(tau) + e^tau level (Dong, Roth and Su, 2022,
proposition 2.12): tau may be negative, and an error in tau only counts in second order.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import gammaln, log_ndtr, logsumexp, ndtr

from privacy.closed_form import participations
from privacy.contour import Contour, Parts
from privacy.inversion import period, resolve

Array = npt.NDArray[np.float64]

_ENOUGH = 1e-7  # relative change of the power at which octaves stop


def best_power(parts: Parts, level: float) -> float:
    """Power at ``level``, by inverting the moment generating function of the loss."""
    c, upper = _tilt(parts, level)
    length = period(parts, c, upper, level)
    for _ in range(4):
        power, tau = _on_line(parts, c, level, upper, length)
        needed = period(parts, c, tau, level)
        if needed <= 1.02 * length:
            break
        length = needed
    return power


def _tilt(parts: Parts, level: float) -> tuple[float, float]:
    """Return (c, tau): a line of integration, and an upper bound of the threshold.

    Chernoff under Q: ln level <= ln M(c) - (1 + c) tau. The line stays right of the pole at 0, at least two
    inverse standard deviations away.
    """
    least = 2.0 / math.sqrt(parts.cumulants(1e-9)[2])
    most = min(0.1 * step.steepest for step, _ in parts.steps)

    def bound(c: float) -> float:
        return (parts.cumulants(c)[0] - math.log(level)) / (1.0 + c)

    c, tau = least, bound(least)
    while 1.3 * c < most and (further := bound(1.3 * c)) < tau:
        c, tau = 1.3 * c, further
    return c, min(tau, bound(1e-9))


def _on_line(parts: Parts, c: float, level: float, upper: float, length: float) -> tuple[float, float]:
    """Return (power, tau) from the line at c, adding octaves until the power stands still."""
    power, tau, settled = 0.0, upper, 0
    for frequency in resolve(parts, c, 1.0, length):
        contour = Contour(parts, c, period=length, frequency=frequency)
        if contour.decayed:
            return _at_threshold(contour, parts.edge, upper, level)
    for _ in range(24):
        before = power
        power, tau = _at_threshold(contour, parts.edge, upper, level)
        settled = settled + 1 if abs(power - before) < _ENOUGH * power else 0
        if settled == 2 or not contour.refine(2.2 * abs(tau - parts.edge)):
            break
    return power, tau


def _at_threshold(contour: Contour, edge: float, upper: float, level: float) -> tuple[float, float]:
    """Solve Q(L > tau) = level and return (power, tau)."""

    def miss(tau: float) -> float:
        slope = contour.integral(tau)[1]
        if slope <= 0.0:
            return -50.0
        return max(-50.0, contour.log_scale(tau) + math.log(slope) - tau - math.log(level))

    low, high = edge, upper + 1e-9
    span = 1e-3 * (high - low) + 1e-9
    while miss(low) <= 0.0 and edge - low < 1e3 * (upper - edge) + 50.0:
        low, span = low - span, 4.0 * span
    tau = float(brentq(miss, low, high, xtol=1e-12, rtol=1e-12, maxiter=200)) if miss(high) < 0.0 < miss(low) else low
    power = contour.integral(tau)[0] * math.exp(contour.log_scale(tau)) + level * math.exp(min(tau, 700.0))
    return power, tau


def mixture_power(
    noise_multiplier: float, sample_rate: float, steps: int, level: float, *, halved: bool
) -> float:
    """Power at ``level`` where the branches of a step are apart: the binomial mixture of closed_form.

    ``halved``: every participation's likelihood ratio is halved, as for a blind sign.
    """
    k, weight, _ = participations(sample_rate=sample_rate, steps=steps, delta=1e-12)
    low = float(k[0])
    if low > 0.0:  # false alarms come from fewer participations than happen
        k = np.arange(k[-1] + 1.0)
        weight = np.concatenate([np.zeros(len(k) - len(weight)), weight])
    present = math.log(0.5 * sample_rate if halved else sample_rate)
    absent = math.log1p(-sample_rate) if sample_rate < 1.0 else 0.0
    mean = k * (0.5 / noise_multiplier**2 + present) + (steps - k) * absent
    deviation = np.sqrt(k) / noise_multiplier
    ways = gammaln(steps + 1.0) - gammaln(k + 1.0) - gammaln(steps - k + 1.0) + (k * math.log(2.0) if halved else 0.0)
    some = k > 0

    def alarms(tau: float) -> float:
        """ln Q(L > tau) - ln level, by participation taken for granted, k = 0 left out."""
        z = (mean[some] - tau) / deviation[some] - deviation[some]
        return float(logsumexp(ways[some] + log_ndtr(z))) - math.log(level)

    edge = steps * absent
    high = float(np.max(mean + 10.0 * deviation)) + 1.0
    # Where even the edge does not use the level up, the rest of it is spent on runs without participation.
    low_tau = edge if sample_rate < 1.0 else float(np.min(mean - 40.0 * deviation))
    tau = low_tau
    if alarms(low_tau) > 0.0:
        tau = float(brentq(alarms, low_tau, high, xtol=1e-13, rtol=1e-13, maxiter=500))
    detected = float(weight[some] @ ndtr((mean[some] - tau) / deviation[some]))
    rest = max(0.0, level * -math.expm1(alarms(low_tau))) if tau == low_tau else 0.0
    return detected + (float(weight[~some].sum()) * rest if sample_rate < 1.0 else 0.0)
