"""The noise that a budget asks of each hospital, also where thousands of them draw at hundreds of different rates."""

import functools
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import final

import privacy
from configs.errors import InputError

MANY = 16  # different rates beyond which most are read off between knots
PER_OCTAVE = 4  # knots: the rates 2^(k/4), the same for every federation
NEIGHBOURS = 4
ABOVE = 1e-5  # relative, put on what is read off: more than it is mostly short by
WASTE = 3e-4  # of a budget that may stay unspent before a rate is calibrated by itself


@final
@dataclass(frozen=True)
class Noise:
    """A noise multiplier and what it was found for; `read_off`: between knots, and not by a calibration of its own."""

    epsilon: float
    delta: float
    sample_rate: float
    steps: int
    read_off: bool
    multiplier: float

    @property
    def fits(self) -> bool:
        """Whether its price is within the budget."""
        return _price(self.multiplier, self.delta, self.sample_rate, self.steps) <= self.epsilon


_TOLD: dict[tuple[float, float, float, int, bool], float] = {}


def noise_of_rates(epsilon: float, delta: float, rates: Collection[float], steps: int) -> dict[float, float]:
    """Return the noise multiplier of each of these sample rates for one budget.

    Up to 16 rates are calibrated one by one. Of more, a rate's noise is read off a cubic through the calibrations at
    four neighbouring rates 2^(k/4), on a log-log scale, and then priced: what does not fit the budget, or leaves more
    than 3e-4 of it unspent, is calibrated by itself. What was read off is never trusted.

    *Guarantee*: ``privacy.epsilon`` of every result has ``upper <= epsilon``, checked for each of them.
    *Assumes*: as ``privacy.epsilon``. The other rates matter to a result only in that they are many or few.
    *Edge cases*: where a knot cannot be calibrated, the rates beside it are calibrated by themselves.

    Raises:
        InputError: if no noise reaches the budget.
    """
    different = sorted(set(rates))
    find = calibrated if len(different) <= MANY else _read_off
    return {rate: find(epsilon, delta, rate, steps) for rate in different}


def found_noise(epsilon: float, delta: float, rates: Collection[float], steps: int) -> tuple[Noise, ...]:
    """Return what :func:`noise_of_rates` finds in a form that other processes of the same owner can be told."""
    found = noise_of_rates(epsilon, delta, rates, steps)
    return tuple(Noise(epsilon, delta, rate, steps, len(found) > MANY, s) for rate, s in found.items())


def tell(noise: Collection[Noise]) -> None:
    """Take over noise from another process of the same owner, which spares a search.

    Guarantee: what does not fit its budget is not taken over, and will be calibrated here.
    """
    for one in noise:
        key = (one.epsilon, one.delta, one.sample_rate, one.steps, one.read_off)
        if key not in _TOLD and one.fits:
            _TOLD[key] = one.multiplier


def calibrated(epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """Return the noise multiplier for a budget; remembered, since hospitals with equal rates share it.

    Rounded up to seven significant digits: the last bits of a calibration depend on how many threads its linear
    algebra had, and a hospital that restarts elsewhere must not find that its own ledger disagrees with it.

    Raises:
        InputError: if no noise reaches the budget.
    """
    told = _TOLD.get((epsilon, delta, sample_rate, steps, False))
    return _calibrated(epsilon, delta, sample_rate, steps) if told is None else told


@functools.lru_cache(maxsize=4096)
def _calibrated(epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    try:
        value = privacy.noise_multiplier(epsilon=epsilon, delta=delta, sample_rate=sample_rate, steps=steps)
    except ValueError as error:
        raise InputError(
            f"privacy.epsilon: no noise reaches epsilon {epsilon:g} at delta {delta:g}; raise one of them."
        ) from error
    return _rounded_up(value)


def _read_off(epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    told = _TOLD.get((epsilon, delta, sample_rate, steps, True))
    return _between_knots(epsilon, delta, sample_rate, steps) if told is None else told


@functools.lru_cache(maxsize=4096)
def _between_knots(epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    place = PER_OCTAVE * math.log2(sample_rate)
    last = min(0, math.floor(place) + NEIGHBOURS // 2)  # no knot beyond rate 1
    knots = range(last - NEIGHBOURS + 1, last + 1)
    try:
        heights = [math.log(_calibrated(epsilon, delta, 2.0 ** (k / PER_OCTAVE), steps)) for k in knots]
    except InputError:
        return calibrated(epsilon, delta, sample_rate, steps)
    height = sum(h * _weight(place, k, knots) for h, k in zip(heights, knots, strict=True))
    noise = _rounded_up(math.exp(height) * (1 + ABOVE))
    if epsilon * (1 - WASTE) <= _price(noise, delta, sample_rate, steps) <= epsilon:
        return noise
    return calibrated(epsilon, delta, sample_rate, steps)


def _weight(place: float, knot: int, knots: range) -> float:
    """Return the knot's Lagrange weight at a place."""
    return math.prod((place - other) / (knot - other) for other in knots if other != knot)


def _price(noise: float, delta: float, sample_rate: float, steps: int) -> float:
    return privacy.epsilon(noise_multiplier=noise, sample_rate=sample_rate, steps=steps, delta=delta).upper


def _rounded_up(value: float) -> float:
    step = 10.0 ** (math.floor(math.log10(value)) - 6)
    return float(f"{math.ceil(value / step - 1e-6) * step:.7g}")
