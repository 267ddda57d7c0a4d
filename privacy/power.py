# scipy's root finders and numpy's complex arrays are typed too loosely to be checked strictly here.
# pyright: reportArgumentType=false, reportPossiblyUnboundVariable=false
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
from privacy.inversion import resolve

Array = npt.NDArray[np.float64]

_ENOUGH = 1e-6  # relative change of the power at which octaves stop
_ALIAS = math.log(1e9)  # periodic images are kept this far below


def best_power(parts: Parts, level: float) -> float:
    """Power at ``level``, by inverting the moment generating function of the loss."""
    c = _tilt(parts, level)
    mean = parts.cumulants(c)[1]
    length = _period(parts, c, mean, level)
    for _ in range(4):
        power, tau = _on_line(parts, c, level, length)
        needed = _period(parts, c, tau, level)
        if needed <= 1.02 * length:
            break
        length = needed
    return power


def _tilt(parts: Parts, level: float) -> float:
    """Return the exponent c > -1 of the best Chernoff bound under Q, kept off the poles at 0 and -1.

    ln level <= ln M(c) - (1 + c) tau. Left of 0 the integral gives power - 1, which suits a power near 1; it
    needs room between the poles, so a loss whose standard deviation exceeds 4.
    """

    def bound(c: float) -> float:
        return (parts.cumulants(c)[0] - math.log(level)) / (1.0 + c)

    deviation = math.sqrt(parts.cumulants(1e-9)[2])
    most = min(0.1 * step.steepest for step, _ in parts.steps)
    least = 1.0 / deviation
    if parts.cumulants(least)[0] > 3.0:
        # Rare participations run away under that tilt: the bulk of the loss is seen under a weaker one.
        while parts.cumulants(least)[0] > 1.0:
            least /= 1.35
        return least
    candidates = [c for k in range(60) if (c := 1.35**k * least) < most]
    if deviation > 4.0:
        candidates += [float(c) for c in np.linspace(-1.0 + 1.0 / deviation, -1.0 / deviation, 12)]
        candidates += [-1.0 + 1.4**k / deviation for k in range(1, 40) if 1.4**k / deviation < 0.5]
    return min(candidates or [0.5 * most], key=bound)


def _period(parts: Parts, c: float, tau: float, level: float) -> float:
    """Length of period that keeps the images of both integrals small, by Chernoff bounds.

    With S(tau) = e^tau Q(L > tau), S(t) <= M(a) e^(-a t) for every a >= -1, and S is e^tau level here. The
    images of the power, or of 1 - power left of 0, are at most e^(-|c| period).
    """
    size = tau + math.log(level) - _ALIAS

    def needed(a: float) -> float:
        return (parts.cumulants(a)[0] - a * tau - size) / abs(a - c)

    left = min(needed(-1.0 + (1.0 + c) * share) for share in (1e-9, 0.25, 0.5, 0.75, 0.9))
    right = min(needed(c + (1.0 + c) * share) for share in (0.03, 0.1, 0.25, 0.5, 1.0, 2.0))
    return max(left, right, (_ALIAS - math.log(level) * (c > 0.0)) / abs(c))


def _on_line(parts: Parts, c: float, level: float, length: float) -> tuple[float, float]:
    """Return (power, tau) from the line at c, adding octaves until the power stands still."""
    _, tau, variance = parts.cumulants(c)
    step, power, settled = 0.5 * math.sqrt(variance), 0.0, 0
    for frequency in resolve(parts, c, 1.0, length):
        contour = Contour(parts, c, period=length, frequency=frequency)
        if contour.decayed:
            return _at_threshold(contour, parts.edge, tau, step, level)
    for _ in range(24):
        before = power
        power, tau = _at_threshold(contour, parts.edge, tau, step, level)
        settled = settled + 1 if abs(power - before) < _ENOUGH * power else 0
        if settled == 2 or not contour.refine(2.2 * abs(tau - parts.edge) + 1e-9):
            break
        step = 28.0 / frequency
        frequency *= 2.0
    return power, tau


def _at_threshold(contour: Contour, edge: float, start: float, step: float, level: float) -> tuple[float, float]:
    """Solve Q(L > tau) = level from ``start`` with a first step, and return (power, tau).

    Every run passes the edge, so the threshold is the edge where it seems to lie below.
    """

    def miss(tau: float) -> float:
        slope = contour.integral(tau)[1]
        if slope <= 0.0:
            return -50.0
        return max(-50.0, contour.log_scale(tau) + math.log(slope) - tau - math.log(level))

    here = max(start, edge)
    sign = 1.0 if miss(here) > 0.0 else -1.0
    there = here
    while miss(there) * sign > 0.0 and (sign > 0.0 or there > edge):
        here, there, step = there, max(edge, there + sign * step), 1.5 * step
    tau = there
    if here != there and miss(here) * miss(there) <= 0.0:
        tau = float(brentq(miss, min(here, there), max(here, there), xtol=1e-12, rtol=1e-12, maxiter=200))
    missed = contour.integral(tau)[0] * math.exp(contour.log_scale(tau))
    return (1.0 if contour.c < 0.0 else 0.0) + missed + level * math.exp(tau), tau


def mixture_power(noise_multiplier: float, sample_rate: float, steps: int, level: float, *, halved: bool) -> float:
    """Power at ``level`` where the branches of a step are apart: the binomial mixture of closed_form.

    ``halved``: every participation's likelihood ratio is halved, as for a blind sign.
    """
    k, weight, _ = participations(sample_rate=sample_rate, steps=steps, delta=1e-12)
    low = float(k[0])
    if low > 0.0 and sample_rate < 1.0:  # false alarms come from fewer participations than happen
        k = np.arange(k[-1] + 1.0)
        weight = np.concatenate([np.zeros(len(k) - len(weight)), weight])
    present = math.log(0.5 * sample_rate if halved else sample_rate)
    absent = math.log1p(-sample_rate) if sample_rate < 1.0 else 0.0
    mean = k * (0.5 / noise_multiplier**2 + present) + (steps - k) * absent
    deviation = np.sqrt(k) / noise_multiplier
    ways = gammaln(steps + 1.0) - gammaln(k + 1.0) - gammaln(steps - k + 1.0) + (k * math.log(2.0) if halved else 0.0)
    some = k > 0

    def alarms(tau: float) -> float:
        """Natural logarithm of Q(L > tau) - ln level, by participation taken for granted, k = 0 left out."""
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
