"""Sums that do not depend on the order of their terms, to the bit, in memory that does not grow with the hospitals."""

from collections.abc import Iterator
from typing import final

import numpy as np
from numpy.typing import NDArray

# A value is high * 2^-20 + low * 2^-80 in two int64 words. The low word is kept in [0, 2^60) by carrying into the
# high one, so that equal sums have equal words whatever the order of addition.
HIGH_BITS = 20
LOW_BITS = 80
CARRY = LOW_BITS - HIGH_BITS
LARGEST = 2.0**38
BLOCK = 1 << 13


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
        if values.size and not max(float(values.max()), -float(values.min())) < LARGEST:
            if not np.isfinite(values).all():
                raise ValueError("values that are not finite")
            raise ValueError(f"values beyond {LARGEST:.3g} in magnitude")
        for at in _blocks(values.size):
            self._add_block(at, values[at])

    def _add_block(self, at: slice, values: NDArray[np.float64]) -> None:
        high_word, low_word = self._high[at], self._low[at]
        high = values * 2.0**HIGH_BITS  # powers of two: exact
        np.trunc(high, out=high)
        rest = high * 2.0**-HIGH_BITS
        np.subtract(values, rest, out=rest)  # exact: truncation keeps the leading bits of the same float
        rest *= 2.0**LOW_BITS
        np.rint(rest, out=rest)
        low_word += rest.astype(np.int64)
        high_word += high.astype(np.int64)
        high_word += low_word >> CARRY
        low_word &= (1 << CARRY) - 1

    def total(self) -> NDArray[np.float64]:
        """Return the sum as float64 (size,)."""
        total = np.empty(self._high.shape)
        for at in _blocks(total.size):
            # As signed words the low one is small where the sum is small, so that converting it loses nothing there.
            up = self._low[at] >> (CARRY - 1)
            high, low = self._high[at] + up, self._low[at] - (up << CARRY)
            np.multiply(high.astype(np.float64), 2.0**-HIGH_BITS, out=total[at])
            total[at] += low.astype(np.float64) * 2.0**-LOW_BITS
        return total


def _blocks(size: int) -> Iterator[slice]:
    """Cut a vector into pieces that stay in the processor's cache from one operation to the next."""
    return (slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK))
