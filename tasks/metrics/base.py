"""What every kind of judgement offers: metrics of some records, and each metric as a function of drawn units."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

Metrics = dict[str, float | None]
Rows = NDArray[np.int64]
Weights = NDArray[np.float64]


@final
@dataclass(frozen=True)
class Sample:
    """One metric of some records, as a function of how often each of their units is drawn.

    Attributes:
        images: number of records.
        units: number of units that they belong to (of those that the metric is about).
        value: from counts (r, units) to the metric (r,), NaN where it is not defined.
        problem: why the metric cannot be measured on these records; empty where it can.
        thin: why an interval would promise more than so few units carry; empty where it would not.
        trials: where the metric is the probability of an event, the number of independent trials behind it:
            an exact interval for a metric of 0 or 1, of which resampling knows nothing.
    """

    images: int
    units: int
    value: Callable[[Weights], NDArray[np.float64]]
    problem: str = ""
    thin: str = ""
    trials: int | None = None


class Judged(ABC):
    """What a model said about records, beside the truth."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The metrics' names, the more telling ones first."""

    @property
    @abstractmethod
    def primary(self) -> str:
        """The name of the metric that reports lead with."""

    @abstractmethod
    def metrics(self, rows: Rows | None = None) -> Metrics:
        """Return every metric of these records (all, if None); None where it is not defined, never NaN."""

    @abstractmethod
    def sample(self, name: str, rows: Rows | None = None) -> Sample:
        """Return one metric of these records, ready for resampling by unit."""
