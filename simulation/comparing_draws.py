"""Intervals of metrics and of differences between them, over held-out images and over seeds.

Images: units (lesions, scans) are drawn with replacement, the same ones for every model of a study, and each metric is
computed anew on what was drawn (percentile bootstrap; Efron and Tibshirani 1993, ch. 13). So what two models share,
hard images above all, cancels in their difference.

Seeds: a study has two or three, and drawing three of three with replacement says too little: in a fifth of all studies
or more the truth would lie outside a "95 %" interval (measured in `tests/simulation/test_comparing_draws.py`). So each
resample moves the mean over seeds by a draw from Student's t with seeds - 1 degrees of freedom, scaled by the
standard error between seeds, which is exact where seeds alone vary and normally (Student 1908). Differences are
taken within each seed first: two settings of one seed share the deal and the first model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from simulation.comparing_scores import Score
from tasks.metrics.intervals import LEVEL, MOST_UNDEFINED

RESAMPLES = 2000
AT_ONCE = 2**18  # weights that are worked on at a time: they fit into a processor's cache
_SEED = 20_251  # of the resamples; a constant of the comparison

Array = NDArray[np.float64]
Row = dict[str, Any]


@final
@dataclass(frozen=True)
class Measured:
    """A metric of one model (or a weighted mean over several), with its resamples.

    Attributes:
        estimate: on the records as they are; NaN where there is a problem.
        draws: (RESAMPLES,), NaN where it is not defined.
        n, units: records, and units that they belong to.
        problem, thin, trials: as in a score.
        digest: of what was said; the same for models that say the same.
    """

    estimate: float
    draws: Array
    n: int
    units: int
    problem: str
    thin: str
    trials: int | None
    digest: str

    @property
    def at_the_end(self) -> bool:
        """Whether every trial went alike, so that resamples repeat the estimate."""
        return bool(self.trials) and self.estimate in (0.0, 1.0)


BySeed = Mapping[int, Measured]


def measure(scores: Mapping[str, Score], units: int) -> dict[str, Measured]:
    """Return every score with its resamples; the same units are drawn for all.

    Args:
        scores: by whatever name.
        units: number of all held-out units.
    """
    generator = np.random.default_rng(_SEED)
    widest = max((s.n for s in scores.values()), default=0)
    at_once = max(1, min(RESAMPLES, AT_ONCE // max(1, widest, units)))
    drawn: dict[str, list[Array]] = {name: [] for name in scores}
    for start in range(0, RESAMPLES, at_once):
        size = min(at_once, RESAMPLES - start)
        flat = generator.integers(max(1, units), size=(size, units)) + units * np.arange(size)[:, None]
        counts = np.bincount(flat.ravel(), minlength=size * units).reshape(size, units).astype(np.float64)
        for name, one in scores.items():
            drawn[name].append(_values(one, counts))
    return {name: _measured(one, np.concatenate([np.zeros(0), *drawn[name]])) for name, one in scores.items()}


def weighted_mean(parts: Sequence[tuple[float, Measured]]) -> Measured:
    """Return the mean of several models' metric: of `alone`, what its hospitals reach on average.

    Args:
        parts: (weight, metric), at least one; weights of no size count equally.
    """
    weights = np.array([weight for weight, _ in parts], dtype=np.float64)
    weights = weights / weights.sum() if weights.sum() > 0 else np.full(len(parts), 1 / len(parts))
    models = [one for _, one in parts]
    trials = [one.trials for one in models if one.trials is not None]
    return Measured(
        estimate=float(weights @ [one.estimate for one in models]),
        draws=weights @ np.stack([one.draws for one in models]),
        n=max(one.n for one in models),
        units=max(one.units for one in models),
        problem=next((one.problem for one in models if one.problem), ""),
        thin=next((one.thin for one in models if one.thin), ""),
        trials=min(trials) if len(trials) == len(models) else None,
        digest=" ".join(one.digest for one in models),
    )


def estimate_row(found: BySeed, bounds: tuple[float, float] | None = None) -> Row:
    """Return {estimate, low, high, n, units} of a setting, the mean over its seeds; "why" where something is None.

    A metric of exactly 0 or 1 that is the probability of an event gets the exact (Clopper-Pearson) interval of so
    many independent trials instead: every resample would repeat it.

    Args:
        found: by seed; may be empty.
        bounds: the least and the most that the metric can be.
    """
    models = list(found.values())
    sizes = {"n": min((m.n for m in models), default=0), "units": min((m.units for m in models), default=0)}
    problem = next((m.problem for m in models if m.problem), "") if models else "it was not measured"
    if problem:
        return {"estimate": None, "low": None, "high": None, **sizes, "why": problem}
    estimate, draws = _over_seeds([m.estimate for m in models], [m.draws for m in models])
    row: Row = {"estimate": estimate, "low": None, "high": None, **sizes}
    thin = next((m.thin for m in models if m.thin), "")
    if thin:
        return {**row, "why": thin}
    if estimate in (0.0, 1.0) and all(m.at_the_end for m in models):
        furthest = _furthest(models)
        low, high = (furthest, 1.0) if estimate == 1.0 else (0.0, 1 - furthest)
        return {**row, "low": low, "high": high}
    low, high, why = _ends(draws)
    if not why and low == high:
        return {**row, "why": "every resample gives the same value"}
    if why:
        return {**row, "why": why}
    least, most = bounds or (-np.inf, np.inf)
    return {**row, "low": max(low, least), "high": min(high, most)}


def difference_row(ours: BySeed, theirs: BySeed, most: float = 1.0) -> Row:
    """Return {difference, low, high, seeds} of two settings: ours less theirs, paired by image and by seed.

    Only seeds that both have count. Models that say the same of every record differ by exactly 0, in [0, 0]. Where
    both are right about everything, or both wrong, resamples cannot tell them apart: the interval is then that of the
    exact intervals of both. No interval reaches beyond `most`, the most by which the metric can differ.

    Args:
        ours: by seed; may be empty.
        theirs: the same.
        most: 1 for a metric in [0, 1], 2 for one in [-1, 1].
    """
    seeds = [seed for seed in ours if seed in theirs]
    pairs = [(ours[seed], theirs[seed]) for seed in seeds]
    row: Row = {"difference": None, "low": None, "high": None, "seeds": len(seeds)}
    if not pairs:
        return {**row, "why": "no seed was run with both"}
    problem = next((m.problem for pair in pairs for m in pair if m.problem), "")
    if problem:
        return {**row, "why": problem}
    difference, draws = _over_seeds([a.estimate - b.estimate for a, b in pairs], [a.draws - b.draws for a, b in pairs])
    row["difference"] = difference
    if all(a.digest == b.digest for a, b in pairs):
        return {**row, "low": 0.0, "high": 0.0}
    thin = next((m.thin for pair in pairs for m in pair if m.thin), "")
    if thin:
        return {**row, "why": thin}
    if all(m.at_the_end for pair in pairs for m in pair) and difference == 0.0:
        reach = 1 - min(_furthest([a for a, _ in pairs]), _furthest([b for _, b in pairs]))
        return {**row, "low": -reach, "high": reach}
    low, high, why = _ends(draws)
    if not why and low == high:
        why = "every resample gives the same value"
    return {**row, "why": why} if why else {**row, "low": max(low, -most), "high": min(high, most)}


def _values(one: Score, counts: Array) -> Array:
    return np.full(len(counts), np.nan) if one.problem else one.value(counts[:, one.columns])


def _measured(one: Score, draws: Array) -> Measured:
    estimate = np.nan if one.problem else float(one.value(np.ones((1, len(one.columns))))[0])
    problem = one.problem or ("it is not defined" if np.isnan(estimate) else "")
    return Measured(estimate, draws, one.n, one.units, problem, one.thin, one.trials, one.digest)


def _over_seeds(estimates: Sequence[float], draws: Sequence[Array]) -> tuple[float, Array]:
    """Return the mean over seeds and its resamples (RESAMPLES,)."""
    values = np.array(estimates, dtype=np.float64)
    seeds, mean = len(values), np.mean(draws, axis=0)
    if seeds > 1:
        mean = mean + _students(seeds - 1) * float(values.std(ddof=1)) / np.sqrt(seeds)
    return float(values.mean()), mean


def _students(freedom: int) -> Array:
    """Return Student's t as RESAMPLES draws, one in each of as many equally likely intervals, in a drawn order."""
    order = np.random.default_rng([_SEED, freedom]).permutation(RESAMPLES)
    return np.asarray(t.ppf((order + 0.5) / RESAMPLES, freedom), dtype=np.float64)


def _furthest(models: Sequence[Measured]) -> float:
    """Return how far from 1 a rate may truly be (as a rate) of which every trial succeeded."""
    return ((1 - LEVEL) / 2) ** (1 / min(m.trials or 1 for m in models))


def _ends(draws: Array) -> tuple[float, float, str]:
    known = draws[~np.isnan(draws)]
    if len(known) < (1 - MOST_UNDEFINED) * len(draws):
        return np.nan, np.nan, "not defined in many resamples: a class is too rare"
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high), ""
