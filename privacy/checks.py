"""Checks of arguments: a wrong number is refused with a sentence that names it."""

import math
from numbers import Integral, Real


def finite(name: str, value: object, *, low: float, high: float, open_low: bool = False) -> float:
    """Return ``value`` as a float, or say what is wrong with it.

    The range is ``[low, high]``, or ``(low, high]`` where ``open_low``. Raises ``ValueError`` that names the
    argument for nan, for anything that is not a real number, and outside the range.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} must be a number, not {value!r}")
    number = float(value)
    inside = low < number <= high if open_low else low <= number <= high
    if not inside or math.isinf(number):
        raise ValueError(f"{name} must be in {'(' if open_low else '['}{low:g}, {high:g}], not {value!r}")
    return number


def noise(value: object, name: str = "noise_multiplier") -> float:
    """Return a noise multiplier: finite and not negative. Raises ``ValueError``."""
    return finite(name, value, low=0.0, high=math.inf)


def rate(value: object, name: str = "sample_rate") -> float:
    """Return a sample rate in (0, 1]. Raises ``ValueError``."""
    return finite(name, value, low=0.0, high=1.0, open_low=True)


def whole(name: str, value: object, *, low: int = 1) -> int:
    """Return a whole number of at least ``low``. Raises ``ValueError`` (also for 3.5, nan and True)."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < low:
        raise ValueError(f"{name} must be a whole number of at least {low}, not {value!r}")
    return int(value)


def probability(value: object, name: str = "delta") -> float:
    """Return a probability strictly between 0 and 1. Raises ``ValueError``."""
    number = finite(name, value, low=0.0, high=1.0, open_low=True)
    if number == 1.0:
        raise ValueError(f"{name} must be in (0, 1), not {value!r}")
    return number
