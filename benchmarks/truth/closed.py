# mpmath carries no types, and scipy's root finder loose ones.
# pyright: reportArgumentType=false
"""Full participation and one step: closed forms in 60 digits, and numerical integrals that need none.

Tiny noise: the mixture over numbers of participations, from below and from above.
"""

import math
from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import binom

from truth.setting import Setting, falling_root

Array = npt.NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)


def full_closed(run: Setting) -> float:
    """Balle and Wang 2018, theorem 8, in 60 digits."""
    with mp.workdps(60):
        mu = mp.sqrt(run.steps) / mp.mpf(run.noise_multiplier)

        def excess(e: Any) -> Any:
            return mp.ncdf(mu / 2 - e / mu) - mp.exp(e) * mp.ncdf(-mu / 2 - e / mu) - mp.mpf(run.delta)

        return float(falling_root(excess, mu * mu / 2 + 40 * mu + 10, 300))


def full_integral(run: Setting) -> float:
    """Delta = Int_0^inf e^-y P(L > eps + y) dy with L ~ N(mu^2/2, mu^2), by Gauss-Legendre panels."""
    mu = math.sqrt(run.steps) / run.noise_multiplier

    def excess(z: float) -> float:  # eps = mu^2/2 + mu z
        return _integrated_tail(lambda y: ndtr(-(z + y / mu))) - run.delta

    z: Any = brentq(excess, -0.5 * mu, 40.0, xtol=1e-14, rtol=1e-14)
    return mu * (0.5 * mu + z)


def _integrated_tail(tail: Callable[[Array], Array]) -> float:
    """Int_0^45 e^-y tail(y) dy on panels of 1/4."""
    low = np.arange(0.0, 45.0, 0.25)[:, None]
    y = low + 0.125 * (1.0 + _NODES)
    return float(np.sum(0.125 * _WEIGHTS * np.exp(-y) * tail(y)))


def step_closed(run: Setting) -> float:
    """One step, record removed: the likelihood ratio is monotone, so the region is a half line. 60 digits."""
    with mp.workdps(60):
        s, q = mp.mpf(run.noise_multiplier), mp.mpf(run.sample_rate)

        def excess(e: Any) -> Any:
            x = s * s * mp.log((mp.expm1(e) + q) / q) + mp.mpf(1) / 2
            tail = mp.ncdf(-x / s)
            return (1 - q) * tail + q * mp.ncdf((1 - x) / s) - mp.exp(e) * tail - mp.mpf(run.delta)

        return float(falling_root(excess, 1 / (2 * s * s) + 40 / s + 40, 300))


def step_integral(run: Setting) -> float:
    """One step: Int (p(x) - e^eps q(x))+ dx from the threshold on, by tanh-sinh panels in 30 digits.

    With x = 1 + s z, p(x) - e^eps q(x) is phi(z)/s times (1-q) r + q - e^eps r, r = e^(-d - z/s).
    """
    with mp.workdps(30):
        s, q = mp.mpf(run.noise_multiplier), mp.mpf(run.sample_rate)
        half = 1 / (2 * s * s)

        def delta(e: Any) -> Any:
            start = s * (e + mp.log1p(-(1 - q) * mp.exp(-e)) - mp.log(q)) - 1 / (2 * s)
            # The ratio rises over a few s, the density falls over a few 1.
            ends = sorted({*(start + k * s for k in (0, 1, 3, 8, 20, 50)), *(start + k for k in (1, 2, 4, 7, 11, 16))})
            ends = [end for end in ends if end <= start + 16]
            ends = (
                [end for end in ends if end < -12] + sorted({max(start, mp.mpf(k)) for k in (-12, -6, -2, 0, 2, 6, 12)})
                if start < -12
                else ends
            )

            def integrand(z: Any) -> Any:
                r = mp.exp(-half - z / s)
                return mp.npdf(z) * (q + (1 - q) * r - mp.exp(e - half - z / s))

            return mp.quad(integrand, ends)

        # Place epsilon by its z, so that a bracket of a few units is narrow for any noise.
        def miss(z: Any) -> Any:
            return delta(mp.log(q) + mp.log(mp.exp(half + z / s) + (1 - q) / q)) - mp.mpf(run.delta)

        z = falling_root(lambda z: miss(z - 1 / (2 * s)), 12 + 1 / (2 * s), 75) - 1 / (2 * s)
        return float(mp.log(q) + mp.log(mp.exp(half + z / s) + (1 - q) / q))


def _window(run: Setting) -> range:
    """Numbers of participations outside of which lies less than 1e-12 of delta."""
    low, high = binom.ppf([1e-12 * run.delta, 1.0], run.steps, run.sample_rate)
    mean = run.steps * run.sample_rate
    high = min(high, mean + 12.0 * math.sqrt(mean) + 60.0)
    return range(int(low), int(high) + 1)


def mixture_below(run: Setting) -> float:
    """Lower bound in 50 digits: delta >= sum_k Bin(k) E[(1 - e^(eps - L_k))+]; a ratio exceeds its branch's."""
    with mp.workdps(50):
        s, q, t = mp.mpf(run.noise_multiplier), mp.mpf(run.sample_rate), run.steps
        parts = []
        for k in _window(run):
            weight = mp.binomial(t, k) * q**k * (1 - q) ** (t - k)
            mean = k / (2 * s * s) + k * mp.log(q) + (t - k) * mp.log1p(-q)
            parts.append((weight, mean, mp.sqrt(k) / s))

        def excess(e: Any) -> Any:
            total = -mp.mpf(run.delta)
            for weight, mean, deviation in reversed(parts):
                if mean + 15 * deviation < e:
                    break
                if deviation > 0 and mean - 40 * deviation > e:
                    total += weight
                elif deviation > 0:
                    z = (mean - e) / deviation
                    total += weight * (mp.ncdf(z) - mp.exp(e - mean + deviation**2 / 2) * mp.ncdf(z - deviation))
            return total

        top = parts[-1][1] + 40 * parts[-1][2]
        return float(falling_root(excess, top, 100))


def mixture_above(run: Setting) -> float:
    """Upper bound: the same from quadrature, moved by T ln(1 + e^-t), plus the probability that branches overlap.

    A step's loss exceeds its branch's by more than ln(1 + e^-t) where a participant's x is too low or another's too
    high: T [q Phi((t - l - d) s) + (1 - q) Phi(-(d - l - t) s)], l = ln(q/(1 - q)), d = 1/(2 s^2), by a union bound.
    """
    s, q, steps = run.noise_multiplier, run.sample_rate, run.steps
    half, logit = 0.5 / s**2, math.log(q / (1.0 - q))
    k = np.array(_window(run), dtype=np.float64)
    weight = binom.pmf(k, steps, q)
    mean = k * (half + math.log(q)) + (steps - k) * math.log1p(-q)
    y = np.arange(0.0, 45.0, 0.25)[:, None] + 0.125 * (1.0 + _NODES)
    share = (0.125 * _WEIGHTS * np.exp(-y)).ravel()
    best = math.inf
    for t in np.linspace(0.05, 0.95, 19) * half:
        late, early = ndtr((t - logit - half) * s), ndtr(-(half - logit - t) * s)
        missed = steps * (q * float(late) + (1.0 - q) * float(early)) + 1e-11 * run.delta
        if missed >= run.delta:
            continue

        def excess(e: float, missed: float = missed) -> float:
            z = (mean[:, None] - e - y.ravel()) * s / np.sqrt(np.maximum(k, 1e-300))[:, None]
            return float(weight @ (ndtr(z) @ share)) + missed - run.delta

        found = falling_root(excess, float(mean[-1] + 40.0 * math.sqrt(k[-1]) / s), 70)
        best = min(best, float(found) + steps * math.log1p(math.exp(-t)))
        if missed < 1e-9 * run.delta:
            break
    return best
