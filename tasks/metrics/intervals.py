"""Confidence intervals by resampling units: images of one lesion, or slices of one scan, are not independent."""

from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from tasks.metrics.base import Judged, Rows, Sample

LEVEL = 0.95
RESAMPLES = 1000
MOST_FLOATS = 1_000_000  # weights in memory at a time: fewer than fit the caches are no slower, and draw alike
MOST_UNDEFINED = 0.05  # share of resamples without a value beyond which no interval is given


@final
@dataclass(frozen=True)
class Interval:
    """A metric with its interval at `LEVEL`, or the reason why one of them is missing.

    Attributes:
        metric: its name.
        estimate: the metric, None where it cannot be measured.
        low, high: the ends of the interval, None where there is none.
        n, units: records, and independent units that they belong to.
        reason: why estimate or interval is missing; empty where nothing is.
    """

    metric: str
    estimate: float | None
    low: float | None
    high: float | None
    n: int
    units: int
    reason: str

    def row(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


def interval(judged: Judged, name: str, rows: Rows | None = None, *, seed: int, guarded: bool = False) -> Interval:
    """Return a metric of these records with its 95 % percentile bootstrap interval, units drawn with replacement.

    A metric of exactly 0 or 1 that is the probability of an event gets the exact (Clopper-Pearson) interval of so
    many independent trials instead: every resample would repeat it.

    Edge cases: what cannot be measured has no estimate; too few units, or a value that every resample repeats,
    have an estimate and no interval (guarded: too few units have no estimate either). `reason` says so.

    Source: Efron and Tibshirani 1993, ch. 13; Field and Welsh 2007 for clusters. Coverage is measured in
    `tests/tasks/metrics/test_intervals.py`.
    """
    sample = judged.sample(name, rows)
    problem = sample.problem or (sample.thin if guarded else "")
    if problem:
        return Interval(name, None, None, None, sample.images, sample.units, problem)
    estimate = float(sample.value(np.ones((1, sample.units)))[0])
    low, high, reason = _ends(sample, estimate, seed)
    return Interval(name, estimate, low, high, sample.images, sample.units, reason)


def _ends(sample: Sample, estimate: float, seed: int) -> tuple[float | None, float | None, str]:
    if sample.thin:
        return None, None, sample.thin
    if sample.trials and estimate in (0.0, 1.0):
        furthest = ((1 - LEVEL) / 2) ** (1 / sample.trials)
        return (furthest, 1.0, "") if estimate == 1.0 else (0.0, 1 - furthest, "")
    drawn = _resampled(sample, seed)
    known = drawn[~np.isnan(drawn)]
    if len(known) < (1 - MOST_UNDEFINED) * len(drawn):
        return None, None, "not defined in many resamples: a class is too rare"
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if low == high:
        return None, None, "every resample gives the same value"
    return float(low), float(high), ""


def _resampled(sample: Sample, seed: int) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    at_once = max(1, min(RESAMPLES, MOST_FLOATS // max(1, sample.images)))
    parts: list[NDArray[np.float64]] = []
    for start in range(0, RESAMPLES, at_once):
        size = min(at_once, RESAMPLES - start)
        drawn = generator.integers(sample.units, size=(size, sample.units))
        flat = drawn + sample.units * np.arange(size)[:, None]
        counts = np.bincount(flat.ravel(), minlength=size * sample.units).reshape(size, sample.units)
        parts.append(sample.value(counts.astype(np.float64)))
    return np.concatenate(parts)
