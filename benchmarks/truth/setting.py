"""What is priced, and how roots are found."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final


@final
@dataclass(frozen=True, slots=True)
class Setting:
    """A run: noise multiplier, sample rate, steps, delta."""

    noise_multiplier: float
    sample_rate: float
    steps: int
    delta: float


def falling_root(function: Callable[[Any], Any], high: Any, rounds: int = 220) -> Any:
    """Bisect a falling function on (0, high], in whatever arithmetic ``high`` has."""
    low = 0 * high
    for _ in range(rounds):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return (low + high) / 2
