"""Short names for the two questions that every file here asks."""

from typing import Literal

import privacy

Threat = Literal["worst_case", "relaxed"]


def price(s: float, q: float, t: int, delta: float) -> privacy.Epsilon:
    """Price ``t`` steps at noise multiplier ``s`` and sample rate ``q``."""
    return privacy.epsilon(noise_multiplier=s, sample_rate=q, steps=t, delta=delta)


def bound(s: float, q: float, t: int, prior: float, threat: Threat = "worst_case") -> float:
    """Bound the success of reconstruction in the same run."""
    return privacy.reconstruction_bound(noise_multiplier=s, sample_rate=q, steps=t, prior=prior, threat=threat)
