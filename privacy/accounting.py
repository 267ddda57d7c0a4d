"""What a history of releases costs: epsilon with a bracket, over the whole range of noise.

Adjacency is add/remove of one unit; both directions are priced and the larger one is the claim.
"""

import functools
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, final

from privacy import checks, closed_form, group_bounds
from privacy.contour import Parts, chernoff
from privacy.gaussian import gaussian_epsilon
from privacy.group_loss import SampledGroup
from privacy.group_rdp import group_rdp_epsilon
from privacy.inversion import InversionError, best_tilt, invert
from privacy.rdp import opacus_epsilon
from privacy.release import Spend
from privacy.step_loss import StepLoss, SubsampledGaussian

Method = Literal["rigorous", "numerical", "none"]

# Closed forms answer where their bracket is this narrow; the inversion answers elsewhere.
_NARROW = 1e-4
# Above it the closed forms are never that narrow, and need not be tried.
_SMALL_NOISE = 0.08
# Share of delta that may be lost where several records' branches are taken as apart.
_BLUR = 1e-7
# Several records' losses need many nodes: an octave may take a second, and rarely does.
_EFFORT = 32


@final
@dataclass(frozen=True, slots=True)
class Epsilon:
    """Price of a history at some delta: ``lower <= estimate <= upper``. A hospital may claim ``upper``.

    ``method``: ``rigorous`` where the bracket follows from closed forms, ``numerical`` where it is an
    inversion with its measured tolerance, ``none`` where nothing is claimed (inf). ``opacus_rdp`` is what
    opacus' RDP accountant would print; for units of several records, which opacus does not know, the bound
    that its orders and its conversion give for them. No units.
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


def _single_step(spend: Spend, delta: float, records: int) -> float:
    """Amplification of one Poisson-sampled step, exact: e^eps = 1 + q (e^eps' - 1) at delta' = delta/q.

    Source: Balle, Barthe and Gaboardi, 2018, theorem 8, tight for the Gaussian.
    """
    if records > 1 and spend.sample_rate < 1.0:
        return group_bounds.one_step(spend, records, delta)
    if delta >= spend.sample_rate:
        return 0.0
    inner = gaussian_epsilon(mu=1.0 / spend.noise_multiplier, delta=delta / spend.sample_rate)
    if inner < 30.0:
        return math.log1p(spend.sample_rate * math.expm1(inner))
    return inner + math.log(spend.sample_rate) + math.log1p((1.0 / spend.sample_rate - 1.0) * math.exp(-inner))


def _closed_form(spend: Spend, delta: float, records: int) -> _Price | None:
    """The rigorous bracket of a homogeneous history, where it is narrow.

    The estimate is its lower end, for several records its middle. The add direction costs at most
    records * steps * ln(1/(1-q)), which has to stay below.
    """
    if spend.noise_multiplier > _SMALL_NOISE:
        return None
    if records > 1:
        lower, upper = group_bounds.bracket(spend, records, delta)
        estimate = 0.5 * (lower + upper)
    else:
        lower, upper = closed_form.bracket(
            noise_multiplier=spend.noise_multiplier, sample_rate=spend.sample_rate, steps=spend.steps, delta=delta
        )
        estimate = lower / (1.0 - closed_form.ROUNDING)
    added = -records * spend.steps * math.log1p(-spend.sample_rate)
    if upper - lower > _NARROW * lower or (added > lower and upper > 0.0):
        return None
    return lower, estimate, upper, "rigorous"


def _losses(history: tuple[Spend, ...], delta: float, records: int) -> tuple[tuple[tuple[StepLoss, int], ...], float]:
    """Losses of the steps with their numbers, and what they may leave out of epsilon (at 1e-7 of delta).

    Several records' branches are taken as apart where that leaves out about a millionth at most.
    """
    parts: list[tuple[StepLoss, int]] = []
    left_out = 0.0
    for s in history:
        setting = {"noise_multiplier": s.noise_multiplier, "sample_rate": s.sample_rate}
        if records == 1 or s.sample_rate == 1.0:
            parts.append((SubsampledGaussian(**setting), s.steps))
            continue
        shift = group_bounds.overlap(s, records, _BLUR * delta / len(history))
        size = 0.5 / s.noise_multiplier**2 * max(1.0, s.steps * s.sample_rate * records)
        apart = shift <= 1e-6 * size
        left_out += shift if apart else 0.0
        parts.append((SampledGroup(**setting, records=records, apart=apart), s.steps))
    return tuple(parts), left_out


def _numerical(history: tuple[Spend, ...], delta: float, records: int) -> _Price:
    """Invert both directions. Where the integral does not settle, fall back to bounds that need none.

    Those are Chernoff and basic composition above and the dearest step below, with the upper one as the
    estimate. It happens where participations are so rare that epsilon is tiny.
    """
    parts, left_out = _losses(history, delta, records)
    count = sum(spend.steps for spend in history)
    basic = sum(spend.steps * _single_step(spend, delta / count, records) for spend in history)
    target, effort = (delta, 1) if records == 1 else (delta * (1.0 - _BLUR), _EFFORT)
    try:
        removed, tolerance = invert(Parts(parts, effort=effort), target, basic)
        added, other = _added(parts, removed, target)
        highest = max(removed * (1.0 + tolerance), added * (1.0 + other))
        value, tolerance = (removed, tolerance) if removed >= added else (added, other)
    except InversionError:
        lower = max(_single_step(spend, delta, records) for spend in history)
        moments = max(best_tilt(Parts(parts, sign=sign), target)[1] for sign in (1, -1)) + left_out
        if records > 1 and len(history) == 1:
            moments = min(moments, group_bounds.revealed(history[0], records, delta))
        upper = max(lower, min(basic, moments)) * (1.0 + 1e-9)
        return lower * (1.0 - 1e-9), upper, upper, "rigorous"
    return value * (1.0 - tolerance), value, highest + left_out, "numerical"


def _added(parts: tuple[tuple[StepLoss, int], ...], removed: float, delta: float) -> tuple[float, float]:
    """Epsilon and tolerance of the add direction, or (0, 0) where it is seen to cost less than removing.

    Its loss is at most minus the edge, T ln(1/(1-q)) for one record; else one Chernoff bound at the other
    direction's epsilon mostly does.
    """
    adding = Parts(parts, sign=-1)
    if all(loss.edge < 0.0 for loss, _ in parts) and -adding.edge <= removed:
        return 0.0, 0.0
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
def _price(history: tuple[Spend, ...], delta: float, records: int) -> Epsilon:
    if not history:
        return Epsilon(0.0, 0.0, 0.0, "rigorous", 0.0)
    if any(spend.noise_multiplier == 0.0 for spend in history):
        return Epsilon(math.inf, math.inf, math.inf, "none", math.inf)
    rdp = opacus_epsilon(history, delta=delta) if records == 1 else group_rdp_epsilon(history, records, delta=delta)
    return Epsilon(*_bracket(history, delta, records), opacus_rdp=rdp)


def _bracket(history: tuple[Spend, ...], delta: float, records: int) -> _Price:
    full = [spend for spend in history if spend.sample_rate == 1.0]
    mu = records * math.sqrt(sum(spend.steps / spend.noise_multiplier**2 for spend in full))
    sampled = tuple(spend for spend in history if spend.sample_rate < 1.0)
    if not sampled:
        return _exact(gaussian_epsilon(mu=mu, delta=delta))
    if records > 1 and not full and _participation(sampled, records) <= delta:
        return _exact(0.0)
    price: _Price | None = None
    if not full and len(sampled) == 1:
        only = sampled[0]
        single = only.steps == 1
        price = _exact(_single_step(only, delta, records)) if single else _closed_form(only, delta, records)
    if price is None:
        joined = (Spend(1.0 / mu, 1.0, 1), *sampled) if full else sampled
        price = _numerical(joined, delta, records)
    return price


def _participation(history: tuple[Spend, ...], records: int) -> float:
    """Probability that any of the unit's records takes part at all: it bounds delta at every epsilon."""
    return -math.expm1(records * sum(s.steps * math.log1p(-s.sample_rate) for s in history))


def epsilon(*, noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> Epsilon:
    """Price ``steps`` steps of DP-SGD at one noise multiplier and one sample rate.

    *Guarantee*: the run is (``upper``, ``delta``)-DP under add/remove of one unit, against an adversary who
    sees every noisy step. ``rigorous``: proven, rounding included; ``numerical``: to the measured tolerance.
    *Assumes*: Poisson sampling at ``sample_rate``, noise of standard deviation noise_multiplier * C on a sum
    of vectors clipped to C, real arithmetic, noise nobody else knows.
    *Edge cases*: noise multiplier 0 gives inf and method ``none``; 0 where ``delta`` already covers the
    total variation. Raises ``ValueError`` naming a wrong argument.
    Source: docs/accounting.md; tests/privacy/test_quadrature.py, test_vectors.py.
    """
    spend = Spend(noise_multiplier, sample_rate, steps)
    return _price((spend,), checks.probability(delta), 1)


def unit_epsilon(*, noise_multiplier: float, sample_rate: float, steps: int, delta: float, records: int) -> Epsilon:
    """Price a unit (lesion, scan, patient) of ``records`` images in a run that drew and clipped images one by one.

    *Guarantee*: the run is (``upper``, ``delta``)-DP under add/remove of all images of one unit of at most
    ``records`` images; method as in ``epsilon``.
    *Assumes*: as ``epsilon``, with every *image* drawn independently at ``sample_rate`` and clipped to C by
    itself. Nothing about the directions of the unit's gradients: J ~ Bin(records, rate) aligned ones of norm C are
    the worst case, in both directions. For images A drawn with probability p_A and sum v_A, the likelihood
    ratio is sum_A p_A e^(X_A - Var X_A/2) with Gaussian X and Cov(X_A, X_B) = <v_A, v_B>/(s C)^2
    <= |A| |B|/s^2, and by Kahane's inequality larger covariances raise every convex function of it, so the
    hockey-stick divergences of P from Q and of Q from P. Steps compose, adaptively too, by their dominating pairs.
    *Edge cases*: ``records`` 1 is ``epsilon``; rate 1 is the Gaussian of mu = records sqrt(steps)/noise; noise
    multiplier 0 gives inf and ``none``; 0 where delta covers the probability that any image ever takes part.
    Raises ``ValueError`` naming a wrong argument.
    Source: Kahane 1986; Choquette-Choo, Ganesh, Steinke and Thakurta 2024 (mixture of Gaussians mechanisms); Zhu,
    Dong and Wang 2022, theorem 10; tests/privacy/test_units.py.
    """
    spend = Spend(noise_multiplier, sample_rate, steps)
    return _price((spend,), checks.probability(delta), checks.whole("records", records))


def compose(spends: Iterable[Spend], *, delta: float, records: int = 1) -> Epsilon:
    """Price a history whose noise or rate changed; equal settings are joined first.

    ``records`` above 1 prices a unit of so many images, each drawn and clipped by itself (``unit_epsilon``).

    *Guarantee*, *Assumes*: as ``epsilon``; the settings may depend on time, not on the data.
    *Edge cases*: an empty history costs 0; one step without noise costs inf.
    Source: the moment generating function of a sum of independent losses is the product.
    """
    return _price(_merged(spends), checks.probability(delta), checks.whole("records", records))
