"""The noise of a federation of any size: hospitals in classes of like size, and what is left of it in the mean."""

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

import privacy
from clients.planning import Plan, calibrated, sample_rates
from configs import Experiment, InputError

# More sizes than this, and hospitals of like size are planned together.
MOST = 16
# An extrapolated noise is taken once its price lies between these shares of the budget, in logarithms.
_FLOOR, _AIM, _TRIES = -0.01, -0.004, 6

Vector = NDArray[np.float64]


@final
@dataclass(frozen=True)
class SizeClass:
    """Hospitals that are planned as if each were the smallest of them: never too little noise, never too low a bound.

    Attributes:
        units: of the smallest.
        sample_rate: q of the smallest; no other's is larger.
    """

    units: int
    sample_rate: float


@final
@dataclass(frozen=True)
class Federation:
    """Who plans together.

    Attributes:
        names, units: of every hospital, by name.
        rates: its own sample rate.
        classes: from the smallest hospitals to the largest.
        members: the class of every hospital.
    """

    names: tuple[str, ...]
    units: NDArray[np.int64]
    rates: Vector
    classes: tuple[SizeClass, ...]
    members: NDArray[np.int64]

    @property
    def exact(self) -> bool:
        """Whether every hospital is planned by its own size."""
        return bool((self.units == np.array([c.units for c in self.classes])[self.members]).all())

    def spread(self) -> tuple[int, int, int]:
        """Return the positions of a smallest, a median and a largest hospital."""
        order = np.argsort(self.units, kind="stable")
        return int(order[0]), int(order[(len(order) - 1) // 2]), int(order[-1])


def federation(experiment: Experiment, units: Mapping[str, int]) -> Federation:
    """Return the hospitals in at most 16 classes of size: one per size where there are few sizes, else geometric.

    A hospital's sample rate never rises with its size (B/N for all, or an equal batch from each), so the smallest of a
    class has the largest.

    Raises:
        InputError: for a batch that is larger than the data.
    """
    rates = sample_rates(units, experiment.training.batch_size, experiment.training.batch)
    names = tuple(sorted(units))
    sizes = np.array([units[n] for n in names], dtype=np.int64)
    distinct = np.unique(sizes)
    edges = distinct.astype(np.float64)
    if len(distinct) > MOST:
        # The last class begins at the largest size, so that every other one has a next.
        edges = np.geomspace(distinct[0], distinct[-1], MOST)
        edges[0], edges[-1] = distinct[0], distinct[-1]
    found = np.searchsorted(edges, sizes, side="right") - 1
    used, members = np.unique(found, return_inverse=True)
    smallest = {int(sizes[i]): names[i] for i in range(len(names))}
    classes: list[SizeClass] = []
    for k in range(len(used)):
        least = int(sizes[members == k].min())
        classes.append(SizeClass(least, rates[smallest[least]]))
    return Federation(names, sizes, np.array([rates[n] for n in names]), tuple(classes), members)


def class_noise(experiment: Experiment, rates: Sequence[float], steps: int, *, exact: bool) -> list[float]:
    """Return the noise multiplier of each sample rate at the experiment's budget, as the hospitals calibrate it.

    Guarantee: none is below what its budget needs; where `exact`, each is what `clients.planning` gives.

    Args:
        experiment: with a budget, or with the noise given.
        rates: falling, or equal.
        steps: of the run.
        exact: calibrate every rate; else the first, and look for the others from there by their price.
    """
    settings = experiment.privacy
    if settings.noise_multiplier is not None:
        return [settings.noise_multiplier] * len(rates)
    if settings.budget is None:
        raise InputError(f"privacy.epsilon: mechanism '{settings.mechanism}' needs a budget.")
    need = functools.partial(calibrated, settings.budget, settings.delta, steps=steps)
    if exact:
        return [need(q) for q in rates]
    noise = [need(rates[0])]
    slope = 0.5  # of ln noise in ln rate: from one class to the next it changes little
    for before, rate in itertools.pairwise(rates):
        ratio = math.log(rate / before)
        noise.append(_near(noise[-1] * math.exp(slope * ratio), settings.budget, settings.delta, rate, steps))
        slope = math.log(noise[-1] / noise[-2]) / ratio if ratio else slope
    return noise


def _near(guess: float, budget: float, delta: float, rate: float, steps: int) -> float:
    """Return a noise that keeps the budget and uses 99 % of it, close to a guess; secants on the price itself."""

    def excess(x: float) -> float:
        upper = privacy.epsilon(noise_multiplier=math.exp(x), sample_rate=rate, steps=steps, delta=delta).upper
        return math.log(max(upper, 1e-300) / budget)

    x, steepness = math.log(guess), 2.0
    f = excess(x)
    for _ in range(_TRIES):
        if _FLOOR <= f <= 0:
            return math.exp(x)
        step = (f - _AIM) / steepness
        there = excess(x + step)
        steepness = min(20.0, max(1.0, (f - there) / step))
        x, f = x + step, there
    return math.exp(x) if _FLOOR <= f <= 0 else calibrated(budget, delta, rate, steps)


def more_than_needed(noise: Sequence[float], prices: Sequence[float], budget: float) -> float:
    """Return by which share a hospital's noise may exceed what its own size needs, at most.

    A hospital needs no less than the next larger class does; that one may itself have been given a little too much: at
    most by budget over price, since epsilon falls at least as fast as noise rises.
    """
    pairs = zip(noise, noise[1:], prices[1:], strict=False)
    return max([0.0, *(own / after * max(1.0, budget / price) - 1.0 for own, after, price in pairs)])


def mean_noise(experiment: Experiment, noise_std: Vector, batches: Vector, units: Vector) -> float:
    """Return the standard deviation per coordinate of the noise on the mean gradient of one step, everybody there.

    FedSGD: C sqrt(sum s_h^2) / B, whoever's gradient it is. FedAvg: of a local step, hospitals weighted by their units.
    Where only some hospitals are asked in a round: of an average cohort.

    Args:
        experiment: for cohort and local steps.
        noise_std: (hospitals,) deviation of the noise on each hospital's sum of gradients.
        batches: (hospitals,) expected batches.
        units: (hospitals,) units.
    """
    share = experiment.cohort_size(len(units)) / len(units)
    weights = batches if experiment.training.local_steps == 1 else units
    own = noise_std / np.maximum(batches, 1e-12)  # on a hospital's mean
    return float(np.sqrt(share * np.sum((weights * own) ** 2)) / (share * np.sum(weights)))


def noise_on_mean(experiment: Experiment, plans: Iterable[Plan]) -> float:
    """Return :func:`mean_noise` of the plans of a run, for every mechanism but `central` (see `server.central`)."""
    listed = list(plans)
    columns: list[list[Any]] = [
        [p.noise_std for p in listed],
        [p.expected_batch for p in listed],
        [p.units for p in listed],
    ]
    return mean_noise(experiment, *(np.array(column, dtype=np.float64) for column in columns))
