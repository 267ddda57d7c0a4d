# scipy's root finders and numpy's complex arrays are typed too loosely to be checked strictly here.
# pyright: reportArgumentType=false
"""The epsilon that opacus' RDP accountant prints, for comparison with the literature.

It is a valid bound, but a loose one where epsilon is large: the smallest order, 1.1, floors it at about
1.1 T/(2 s^2) and all amplification by sampling is lost.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import gammaln, logsumexp

from privacy import checks
from privacy.release import Spend
from privacy.step_loss import SubsampledGaussian

Array = npt.NDArray[np.float64]

ORDERS: tuple[float, ...] = tuple(1.0 + tenth / 10.0 for tenth in range(1, 100)) + tuple(map(float, range(12, 64)))
"""The default orders of opacus 1.6 (``RDPAccountant.DEFAULT_ALPHAS``): 1.1 to 10.9 by tenths, 12 to 63."""


def _log_moment(order: float, spend: Spend) -> float:
    """Ln E_Q[(P/Q)^order] of one step (Mironov, Talwar and Zhang, 2019, section 3.3)."""
    half, rate = 0.5 / spend.noise_multiplier**2, spend.sample_rate
    if rate == 1.0:
        return order * (order - 1.0) * half
    if order != round(order):
        loss = SubsampledGaussian(noise_multiplier=spend.noise_multiplier, sample_rate=rate)
        return loss.tilted(order).log_moment
    i = np.arange(round(order) + 1, dtype=np.float64)
    choose = gammaln(order + 1.0) - gammaln(i + 1.0) - gammaln(order - i + 1.0)
    terms = choose + i * math.log(rate) + (order - i) * math.log1p(-rate) + i * (i - 1.0) * half
    return float(logsumexp(terms))


def opacus_epsilon(spends: tuple[Spend, ...], *, delta: float) -> float:
    """Return the epsilon of ``opacus.accountants.RDPAccountant`` for a history. No unit; never negative.

    *Guarantee*: a valid upper bound of epsilon, up to rounding.
    *Assumes*: Poisson sampling and Gaussian noise.
    *Edge cases*: inf where some noise multiplier is 0; 0 for an empty history.
    Source: orders and conversion of opacus 1.6 (Balle et al., 2020, theorem 21); tests/privacy/test_reference.py.
    """
    if not spends:
        return 0.0
    if any(spend.noise_multiplier == 0.0 for spend in spends):
        return math.inf
    best = math.inf
    for order in ORDERS:
        divergence = sum(spend.steps * _log_moment(order, spend) for spend in spends) / (order - 1.0)
        conversion = math.log((order - 1.0) / order) - (math.log(delta) + math.log(order)) / (order - 1.0)
        best = min(best, divergence + conversion)
    return max(0.0, best)


def opacus_noise_multiplier(*, epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """Noise multiplier at which opacus' RDP accountant prints ``epsilon``: what the literature trained with.

    *Guarantee*: none beyond ``opacus_epsilon``'s; use ``privacy.noise_multiplier`` to plan a run.
    *Assumes*: as ``opacus_epsilon``.
    *Edge cases*: raises ``ValueError`` naming a wrong argument, or where no noise in 1e-8..1e8 gives it (the
    largest order, 63, keeps epsilon above about ln(1/delta)/62).
    Source: root of ln epsilon in ln noise; tests/privacy/test_paper.py.
    """
    budget = checks.finite("epsilon", epsilon, low=0.0, high=math.inf, open_low=True)
    rate, count, tolerated = checks.rate(sample_rate), checks.whole("steps", steps), checks.probability(delta)

    def excess(log_noise: float) -> float:
        value = opacus_epsilon((Spend(math.exp(log_noise), rate, count),), delta=tolerated)
        return math.log(max(value, 1e-300) / budget)

    low, high = math.log(1e-8), math.log(1e8)
    if excess(low) < 0.0 or excess(high) > 0.0:
        raise ValueError(f"epsilon {budget:g} is out of the reach of the RDP accountant's orders")
    return math.exp(brentq(excess, low, high, xtol=1e-12))
