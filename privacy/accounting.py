"""What a history of releases costs: epsilon with a bracket, over the whole range of noise.

Adjacency is add/remove of one unit; both directions are priced and the larger one is the claim.
"""

import functools
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, final

from privacy import checks, closed_form
from privacy.contour import Parts, chernoff
from privacy.gaussian import gaussian_epsilon
from privacy.inversion import InversionError, best_tilt, invert
from privacy.rdp import opacus_epsilon
from privacy.release import Spend
from privacy.step_loss import StepLoss, SubsampledGaussian

Method = Literal["rigorous", "numerical", "none"]

# Closed forms answer where their bracket is this narrow; the inversion answers elsewhere.
_NARROW = 1e-4
# Above it the closed forms are never that narrow, and need not be tried.
_SMALL_NOISE = 0.08


@final
@dataclass(frozen=True, slots=True)
class Epsilon:
    """Price of a history at some delta: ``lower <= estimate <= upper``. A hospital may claim ``upper``.

    ``method``: ``rigorous`` where the bracket follows from closed forms, ``numerical`` where it is an
    inversion with its measured tolerance, ``none`` where nothing is claimed (inf). ``opacus_rdp`` is what
    opacus' RDP accountant would print. No units.
    """

    lower: float
    estimate: float
    upper: float
    method: Method
    opacus_rdp: float


_NOTHING_CLAIMED = (math.inf, math.inf, math.inf, "none")
_Price = tuple[float, float, float, Method]


def _exact(value: float) -> _Price:
    return value * (1.0 - 1e-9), value, value * (1.0 + 1e-9), "rigorous"


def _single_step(spend: Spend, delta: float) -> float:
    """Amplification of one Poisson-sampled step, exact: e^eps = 1 + q (e^eps' - 1) at delta' = delta/q.

    Source: Balle, Barthe and Gaboardi, 2018, theorem 8, tight for the Gaussian.
    """
    if delta >= spend.sample_rate:
        return 0.0
    inner = gaussian_epsilon(mu=1.0 / spend.noise_multiplier, delta=delta / spend.sample_rate)
    if inner < 30.0:
        return math.log1p(spend.sample_rate * math.expm1(inner))
    return inner + math.log(spend.sample_rate) + math.log1p((1.0 / spend.sample_rate - 1.0) * math.exp(-inner))


def _closed_form(spend: Spend, delta: float) -> _Price | None:
    """The rigorous bracket of a homogeneous history, where it is narrow; the estimate is its lower end.

    The add direction costs at most steps * ln(1/(1-q)), which has to stay below.
    """
    if spend.noise_multiplier > _SMALL_NOISE:
        return None
    lower, upper = closed_form.bracket(
        noise_multiplier=spend.noise_multiplier,
        sample_rate=spend.sample_rate,
        steps=spend.steps,
        delta=delta,
    )
    added = -spend.steps * math.log1p(-spend.sample_rate)
    if upper - lower > _NARROW * lower or (added > lower and upper > 0.0):
        return None
    return lower, lower / (1.0 - closed_form.ROUNDING), upper, "rigorous"


def _losses(history: tuple[Spend, ...]) -> tuple[tuple[StepLoss, int], ...]:
    return tuple(
        (SubsampledGaussian(noise_multiplier=s.noise_multiplier, sample_rate=s.sample_rate), s.steps) for s in history
    )


def _numerical(history: tuple[Spend, ...], delta: float) -> _Price:
    """Invert both directions. Where the integral does not settle, fall back to bounds that need none.

    Those are Chernoff and basic composition above and the dearest step below, with the upper one as the
    estimate. It happens where participations are so rare that epsilon is tiny.
    """
    parts = _losses(history)
    count = sum(spend.steps for spend in history)
    basic = sum(spend.steps * _single_step(spend, delta / count) for spend in history)
    try:
        removed, tolerance = invert(Parts(parts), delta, basic)
        added, other = _added(history, parts, removed, delta)
        value, tolerance = (removed, tolerance) if removed >= added else (added, other)
    except InversionError:
        lower = max(_single_step(spend, delta) for spend in history)
        moments = max(best_tilt(Parts(parts, sign=sign), delta)[1] for sign in (1, -1))
        upper = max(lower, min(basic, moments)) * (1.0 + 1e-9)
        return lower * (1.0 - 1e-9), upper, upper, "rigorous"
    return value * (1.0 - tolerance), value, value * (1.0 + tolerance), "numerical"


def _added(
    history: tuple[Spend, ...], parts: tuple[tuple[StepLoss, int], ...], removed: float, delta: float
) -> tuple[float, float]:
    """Epsilon and tolerance of the add direction, or (0, 0) where it is seen to cost less than removing.

    Its loss is at most T ln(1/(1-q)); else one Chernoff bound at the other direction's epsilon mostly does.
    """
    if all(s.sample_rate < 1.0 for s in history):
        most = -sum(s.steps * math.log1p(-s.sample_rate) for s in history)
        if most <= removed:
            return 0.0, 0.0
    adding = Parts(parts, sign=-1)
    c = best_tilt(Parts(parts), delta)[0]
    if any(chernoff(adding, removed, share * c) <= math.log(delta) for share in (1.0, 2.0, 0.5, 4.0)):
        return 0.0, 0.0
    try:
        return invert(adding, delta)
    except InversionError:  # its loss is bounded, and so steep at the bound that tilts cancel
        ceiling = best_tilt(adding, delta)[1]
        return ceiling, max(0.0, 1.0 - removed / ceiling)


def _merged(spends: Iterable[Spend]) -> tuple[Spend, ...]:
    """Join equal settings, and all full participations into one Gaussian step: mu^2 = sum T/s^2."""
    counts: Counter[tuple[float, float]] = Counter()
    for spend in spends:
        counts[spend.noise_multiplier, spend.sample_rate] += spend.steps
    return tuple(sorted(Spend(noise, rate, steps) for (noise, rate), steps in counts.items()))


@functools.lru_cache(maxsize=4096)
def _price(history: tuple[Spend, ...], delta: float) -> Epsilon:
    if not history:
        return Epsilon(0.0, 0.0, 0.0, "rigorous", 0.0)
    if any(spend.noise_multiplier == 0.0 for spend in history):
        return Epsilon(math.inf, math.inf, math.inf, "none", math.inf)
    full = [spend for spend in history if spend.sample_rate == 1.0]
    mu = math.sqrt(sum(spend.steps / spend.noise_multiplier**2 for spend in full))
    sampled = tuple(spend for spend in history if spend.sample_rate < 1.0)
    price: _Price | None = None
    if not sampled:
        price = _exact(gaussian_epsilon(mu=mu, delta=delta))
    elif not full and len(sampled) == 1:
        only = sampled[0]
        price = _exact(_single_step(only, delta)) if only.steps == 1 else _closed_form(only, delta)
    if price is None:
        joined = (Spend(1.0 / mu, 1.0, 1), *sampled) if full else sampled
        price = _numerical(joined, delta)
    return Epsilon(*price, opacus_rdp=opacus_epsilon(history, delta=delta))


def epsilon(*, noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> Epsilon:
    """Price ``steps`` steps of DP-SGD at one noise multiplier and one sample rate.

    *Guarantee*: the run is (``upper``, ``delta``)-DP under add/remove of one unit, against an adversary who
    sees every noisy step. ``rigorous``: proven, rounding included; ``numerical``: to the measured tolerance.
    *Assumes*: Poisson sampling at ``sample_rate``, noise of standard deviation noise_multiplier * C on a sum
    of vectors clipped to C, real arithmetic, noise nobody else knows.
    *Edge cases*: noise multiplier 0 gives inf and method ``none``; 0 where ``delta`` already covers the
    total variation. Raises ``ValueError`` naming a wrong argument.
    Source: docs/accounting.md; tests/privacy/test_quadrature.py, test_reference.py.
    """
    spend = Spend(noise_multiplier, sample_rate, steps)
    return _price((spend,), checks.probability(delta))


def compose(spends: Iterable[Spend], *, delta: float) -> Epsilon:
    """Price a history whose noise or rate changed; equal settings are joined first.

    *Guarantee*, *Assumes*: as ``epsilon``; the settings may depend on time, not on the data.
    *Edge cases*: an empty history costs 0; one step without noise costs inf.
    Source: the moment generating function of a sum of independent losses is the product.
    """
    return _price(_merged(spends), checks.probability(delta))
