"""Fixed point modulo 2^64 or 2^128: sums in which single terms may hide under masks, and how they are read.

A vector of n numbers is uint64 (1, n), or (2, n) with the low words first; negative numbers are two's complements.
Bonawitz et al. 2017, section 6.5, adds in such a ring; so that nothing but the sum is in the result, words carry.
"""

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

# The sum of all bounds leaves one bit for the sign and one for the rounding.
SPARE_BITS = 2
WORD = 64


def agreed_exponent(bounds: Iterable[float], words: int) -> int:
    """Return e: integers of so many words count units of 2^e, the finest with which these bounds cannot wrap around.

    Args:
        bounds: the largest magnitude of each term's coordinates.
        words: 1 or 2.

    Raises:
        ValueError: no bound, or bounds that are not positive and finite.
    """
    known = list(bounds)
    if not known or not all(math.isfinite(bound) and bound > 0 for bound in known):
        raise ValueError("the bounds of a sum must be positive and finite")
    try:
        return math.frexp(math.fsum(known))[1] - (WORD * words - SPARE_BITS)
    except OverflowError as error:
        raise ValueError("the bounds of a sum must be positive and finite") from error


def encoded(values: npt.NDArray[np.float64], bound: float, exponent: int, words: int) -> Words:
    """Return values (n,) rounded to the nearest multiples of 2^exponent, as integers: uint64 (words, n).

    Assumes: the exponent is the agreed one of bounds of which this is one.

    Raises:
        ValueError: values beyond the bound, or not finite; the text does not depend on them.
    """
    if not bool((np.abs(values) <= bound).all()):  # also false for NaN
        raise ValueError("the release is beyond the agreed range of the sum")
    whole = np.rint(np.ldexp(values, -exponent))
    if words == 1:
        return whole.astype(np.int64).view(np.uint64)[None]
    high = np.floor(np.ldexp(np.abs(whole), -WORD))
    low = np.abs(whole) - np.ldexp(high, WORD)  # exact: the same float without its leading bits
    return _negated(np.stack([low.astype(np.uint64), high.astype(np.uint64)]), whole < 0)


def decoded(total: Words, exponent: int) -> npt.NDArray[np.float64]:
    """Return what the integers stand for, float64 (n,), rounded to float64."""
    if len(total) == 1:
        return np.ldexp(total[0].view(np.int64).astype(np.float64), exponent)
    negative = total[1].view(np.int64) < 0
    low, high = _negated(total, negative).astype(np.float64)
    return np.ldexp(np.where(negative, -1.0, 1.0) * (np.ldexp(high, WORD) + low), exponent)


def add(total: Words, other: Words) -> None:
    """Add to a vector in place, modulo 2^(64 words); shapes must agree."""
    total[0] += other[0]
    if len(total) == 2:
        total[1] += other[1] + (total[0] < other[0])


def subtract(total: Words, other: Words) -> None:
    """Subtract from a vector in place, modulo 2^(64 words); shapes must agree."""
    if len(total) == 2:
        total[1] -= other[1] + (total[0] < other[0])
    total[0] -= other[0]


def _negated(pair: Words, where: npt.NDArray[np.bool_]) -> Words:
    """Return two-word integers, those chosen with the other sign."""
    low = np.where(where, ~pair[0] + np.uint64(1), pair[0])
    high = np.where(where, ~pair[1] + (pair[0] == 0), pair[1])
    return np.stack([low, high])
