# scipy's root finders and numpy's complex arrays are typed too loosely to be checked strictly here.
# pyright: reportArgumentType=false
"""The Gaussian mechanism, exactly and over the whole range of its noise.

One hockey-stick integral serves everything Gaussian here. It is written with ``erfcx`` so that no
exponential of an epsilon is ever formed: e^eps Phi(b) = phi(a) Mills(-b) where b^2 - a^2 = 2 eps.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import erfcx, log_ndtr, ndtr

Array = npt.NDArray[np.float64]

_ROOT_HALF = math.sqrt(0.5)


def hockey_stick(z: Array, root_variance: Array) -> Array:
    """E[(1 - e^(eps - L))+] for L ~ N(m, v), given z = (m - eps)/sqrt(v) and sqrt(v). Elementwise.

    Equals Phi(z) - e^(eps - m + v/2) Phi(z - sqrt v). Source: Balle and Wang, 2018, theorem 8, whose
    mean is v/2; a mixture needs any mean.
    """
    gap = (root_variance - z) * _ROOT_HALF
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        far = 0.5 * np.exp(-0.5 * z * z) * erfcx(gap)
        near = np.exp(-root_variance * z + 0.5 * root_variance**2) * ndtr(-gap / _ROOT_HALF)
    return ndtr(z) - np.where(gap > -1.0, far, near)


def log_delta(a: float, mu: float) -> float:
    """Log delta of the Gaussian mechanism of sensitivity/noise ``mu`` at eps = mu (mu/2 - a).

    delta = Phi(a) - e^eps Phi(a - mu) (Balle and Wang, 2018, equation 6), in log space.
    """
    if a > 0:
        return float(np.log(hockey_stick(np.float64(a), np.float64(mu))))
    inner = 0.5 * (float(erfcx(-a * _ROOT_HALF)) - float(erfcx((mu - a) * _ROOT_HALF)))
    return math.log(inner) - 0.5 * a * a if inner > 0 else -math.inf


def gaussian_epsilon(*, mu: float, delta: float) -> float:
    """Smallest epsilon >= 0 at which a Gaussian mechanism of ratio ``mu`` is (epsilon, delta)-DP.

    ``mu`` is sensitivity over noise: sqrt(steps)/noise multiplier for full participation.

    *Guarantee*: exact to rounding (relative 1e-9) for epsilon from 1e-6 to 1e13.
    *Assumes*: nothing beyond Gaussian noise and the sensitivity.
    *Edge cases*: 0 where delta already covers the total variation 2 Phi(mu/2) - 1.
    Source: Balle and Wang, 2018, theorem 8; tests/privacy/test_vectors.py.
    """
    target = math.log(delta)
    top = 0.5 * mu
    if log_delta(top, mu) <= target:
        return 0.0
    # Phi(a) bounds delta, so the root lies above the normal quantile of delta.
    low = min(-1.0, top) - 1.0
    while log_delta(low, mu) > target:
        low *= 2.0
    a = float(brentq(lambda x: log_delta(x, mu) - target, low, top, xtol=1e-15, rtol=1e-15, maxiter=300))
    return mu * (top - a)


def log_tail(z: float) -> float:
    """Log Phi(z)."""
    return float(log_ndtr(z))
