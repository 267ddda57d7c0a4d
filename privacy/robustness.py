"""Reconstruction robustness: what an adversary's success may reach, given what it knew before (ReRo).

Hayes, Balle and Mahloujifar 2023, "Bounding training data reconstruction in DP-SGD".
"""

import math
from typing import Literal

from scipy.special import ndtr, ndtri
from scipy.stats import chi2, ncx2

from privacy import checks

Threat = Literal["worst_case", "relaxed"]


def reconstruction_bound(
    *, noise_multiplier: float, sample_rate: float, steps: int, prior: float, threat: Threat
) -> float:
    """Return the largest probability that an adversary picks the right one of 1/prior equally likely candidates.

    worst_case: gamma = 1 - f(prior), f the trade-off function of the run with the record against the run without;
    at sample rate 1 it is Phi(Phi^-1(prior) + sqrt(steps)/s), and for one step at any rate q the mixture has a
    monotone likelihood ratio, so that gamma = (1 - q) prior + q Phi(Phi^-1(prior) + 1/s).
    relaxed: the sign along the test direction is guessed anew, 1 - F_ncx2(F_chi2^-1(1 - prior); 1, 1/s^2); a model of
    a weaker attacker and not a guarantee.

    Guarantee: worst_case holds for any adversary that sees every noisy step and knows all but which candidate.
    Assumes: Gaussian noise of standard deviation s*C on a sum of sensitivity C; candidates equally likely beforehand.
    Edge cases: noise 0 gives prior + (1 - prior) * P(the record was ever drawn); steps above 1 with a rate below 1,
    and relaxed above one step or below rate 1, have no closed form here and raise.

    Args:
        noise_multiplier: s >= 0.
        sample_rate: q in (0, 1]; 1 also stands for a record that is known to have been drawn in every step.
        steps: T >= 1.
        prior: kappa in (0, 1), the chance without any release.
        threat: which adversary.

    Raises:
        ValueError: naming the argument.
    """
    s, q, t = checks.noise(noise_multiplier), checks.rate(sample_rate), checks.whole("steps", steps)
    if not 0 < prior < 1:
        raise ValueError(f"prior: must lie in (0, 1), not {prior}")
    if threat not in ("worst_case", "relaxed"):
        raise ValueError(f"threat: must be 'worst_case' or 'relaxed', not {threat!r}")
    if s == 0:
        return 1 - (1 - q) ** t * (1 - prior)
    if threat == "relaxed":
        if t > 1 or q < 1:
            raise ValueError("steps: the relaxed bound is known in closed form for one step at sample_rate 1 only")
        return float(ncx2.sf(chi2.isf(prior, 1), 1, 1 / s**2)) if 1 / s < 1e3 else 1.0
    if q < 1 and t > 1:
        raise ValueError(
            "steps: with sample_rate below 1 the worst-case bound is known in closed form for one step only"
        )
    power = float(ndtr(ndtri(prior) + math.sqrt(t) / s))
    return (1 - q) * prior + q * power if t == 1 else power
