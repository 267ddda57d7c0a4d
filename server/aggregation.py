"""Sums that do not depend on the order of their terms, to the bit, in memory that does not grow with the hospitals."""

from typing import final

import numpy as np
from numpy.typing import NDArray

# A value is high * 2^-20 + low * 2^-80 in two int64 words. The low word is kept in [0, 2^60) by carrying into the
# high one, so that equal sums have equal words whatever the order of addition.
HIGH_BITS = 20
LOW_BITS = 80
CARRY = LOW_BITS - HIGH_BITS
LARGEST = 2.0**38


@final
class FixedPointSum:
    """The exact sum of float64 vectors, rounded once per term to a multiple of 2^-80.

    Assumes: at most 2^24 terms, so that the high word cannot overflow.
    Edge cases: no term gives zeros; a term that is not finite, or beyond 2^38 in magnitude, is refused whole.
    """

    def __init__(self, size: int) -> None:
        self._high = np.zeros(size, dtype=np.int64)
        self._low = np.zeros(size, dtype=np.int64)

    def add(self, values: NDArray[np.float64]) -> None:
        """Add one vector (size,).

        Raises:
            ValueError: for a wrong shape, values that are not finite, or values too large; nothing is added then.
        """
        if values.shape != self._high.shape:
            raise ValueError(f"shape {values.shape} where {self._high.shape} is expected")
        if not np.isfinite(values).all():
            raise ValueError("values that are not finite")
        if values.size and float(np.abs(values).max()) >= LARGEST:
            raise ValueError(f"values beyond {LARGEST:.3g} in magnitude")
        high = np.trunc(np.ldexp(values, HIGH_BITS))
        rest = values - np.ldexp(high, -HIGH_BITS)  # exact: truncation keeps the leading bits of the same float
        low = np.rint(np.ldexp(rest, LOW_BITS)).astype(np.int64)
        self._high += high.astype(np.int64)
        self._low += low
        self._high += self._low >> CARRY
        self._low &= (1 << CARRY) - 1

    def total(self) -> NDArray[np.float64]:
        """Return the sum as float64 (size,)."""
        # As signed words the low one is small where the sum is small, so that converting it loses nothing there.
        up = self._low >> (CARRY - 1)
        high, low = self._high + up, self._low - (up << CARRY)
        return np.ldexp(high.astype(np.float64), -HIGH_BITS) + np.ldexp(low.astype(np.float64), -LOW_BITS)
