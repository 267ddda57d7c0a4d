"""What leaves a hospital: the release of a round, and what it spends."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import final

import numpy as np
import numpy.typing as npt

from privacy import checks


@final
@dataclass(frozen=True, slots=True, order=True)
class Spend:
    """A stretch of DP-SGD: ``steps`` Poisson-subsampled Gaussian steps of one noise multiplier and rate.

    ``noise_multiplier`` is the noise's standard deviation on the sum of clipped gradients divided by the
    clipping norm (0 is allowed and claims nothing); ``sample_rate`` is the probability with which a unit
    enters a batch, in (0, 1]; ``steps`` counts every noisy step, empty batches included.

    Raises ``ValueError`` that names the argument.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise_multiplier", checks.noise(self.noise_multiplier))
        object.__setattr__(self, "sample_rate", checks.rate(self.sample_rate))
        object.__setattr__(self, "steps", checks.whole("steps", self.steps))


@final
@dataclass(frozen=True, slots=True, eq=False)
class Release:
    """Everything that leaves a hospital in one round; what is not in it, nobody outside has.

    ``arrays`` maps a parameter's name to its update in float64 (copied, then read-only); ``records`` is the
    *declared* number of units, public and fixed, never the realised batch; ``spend`` is what the release
    costs, None for an unprotected one (which claims nothing).

    Raises ``ValueError`` for an array that is not float64 (noise at a huge epsilon is about one float32 ulp
    of a weight, so a silent cast would remove it) and for ``records`` below 1.
    """

    arrays: Mapping[str, npt.NDArray[np.float64]] = field(repr=False)
    records: int
    spend: Spend | None

    def __post_init__(self) -> None:
        kept: dict[str, npt.NDArray[np.float64]] = {}
        for name, array in self.arrays.items():
            if array.dtype != np.float64:
                raise ValueError(f"arrays: {name!r} must be float64, not {array.dtype}")
            own = array.copy()
            own.flags.writeable = False
            kept[name] = own
        object.__setattr__(self, "arrays", MappingProxyType(kept))
        object.__setattr__(self, "records", checks.whole("records", self.records))
