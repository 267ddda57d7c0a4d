"""The noise multiplier that a budget asks for."""

import functools
import math
from collections.abc import Callable

from privacy import checks
from privacy.accounting import epsilon as price

_CLOSE = 2e-5  # relative distance below the budget at which the search stops
_SMALLEST, _LARGEST = 1e-8, 1e8


def noise_multiplier(*, epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """Smallest noise multiplier whose price does not exceed ``epsilon``, from above. Relative error 1e-4.

    *Guarantee*: ``privacy.epsilon`` of the result has ``upper <= epsilon``.
    *Assumes*: as ``privacy.epsilon``.
    *Edge cases*: epsilon inf gives 0.0 (no noise, no claim). Where ``delta`` covers even the noiseless run
    (delta >= 1 - (1-q)^steps) every noise fits and the smallest priced one, 1e-8, is returned. Raises
    ``ValueError`` naming a wrong argument, also where noise above 1e8 would be needed.
    Source: root of ln epsilon in ln noise; tests/privacy/test_vectors.py, test_quadrature.py.
    """
    budget = (
        float(epsilon)
        if epsilon == math.inf
        else checks.finite("epsilon", epsilon, low=0.0, high=math.inf, open_low=True)
    )
    rate, count = checks.rate(sample_rate), checks.whole("steps", steps)
    tolerated = checks.probability(delta)
    if math.isinf(budget):
        return 0.0
    return _calibrated(budget, tolerated, rate, count)


@functools.lru_cache(maxsize=4096)
def _calibrated(budget: float, delta: float, rate: float, steps: int) -> float:
    """Regula falsi (Illinois) on ln(upper/budget) over ln noise, ending on the side that fits."""

    def excess(log_noise: float) -> float:
        upper = price(noise_multiplier=math.exp(log_noise), sample_rate=rate, steps=steps, delta=delta).upper
        return max(-50.0, math.log(upper / budget)) if upper > 0.0 else -50.0

    if excess(math.log(_SMALLEST)) <= 0.0:
        return _SMALLEST
    # epsilon is at most about T/(2 s^2) + sqrt(2 T ln(1/delta))/s: start where one participation costs it.
    low = high = math.log(1.0 / math.sqrt(2.0 * budget))
    f_low = f_high = excess(low)
    while f_low <= 0.0:
        high, f_high = low, f_low
        low -= 1.0
        f_low = excess(low)
    while f_high > 0.0:
        low, f_low = high, f_high
        high += 1.0
        f_high = excess(high)
        if high > math.log(_LARGEST):
            raise ValueError(f"epsilon {budget:g} needs a noise multiplier above {_LARGEST:g}")
    return math.exp(_fitting_root(excess, (low, f_low), (high, f_high)))


def _fitting_root(excess: Callable[[float], float], low: tuple[float, float], high: tuple[float, float]) -> float:
    """Return x at most ``_CLOSE`` on the non-positive side of the root of a falling function.

    ``low`` and ``high`` are (x, excess) with the root between them.
    """
    (x0, f0), (x1, f1) = low, high
    for _ in range(200):
        if -_CLOSE <= f1 <= 0.0 or x1 - x0 < 1e-13:
            break
        # Aim half the tolerance below the root, so that the side that fits is met.
        x = x1 - (f1 + 0.5 * _CLOSE) * (x1 - x0) / (f1 - f0)
        if not x0 + 1e-3 * (x1 - x0) < x < x1 - 1e-3 * (x1 - x0):
            x = 0.5 * (x0 + x1)
        f = excess(x)
        if f > 0.0:
            x0, f0 = x, f
        else:
            x1, f1 = x, f
    return x1
