"""How well data can be reconstructed: bounds for adversaries who know nearly everything, or nothing.

``reconstruction_bound`` limits the probability of picking the right one of 1/prior candidates;
``no_prior_bound`` (see no_prior) is what the release says about pixels to somebody without a prior.
"""

import functools
import math
from typing import Literal

from scipy.special import ndtr, ndtri

from privacy import checks
from privacy.contour import Parts
from privacy.power import best_power, mixture_power
from privacy.sign_blind import SignBlind
from privacy.step_loss import SubsampledGaussian

Threat = Literal["worst_case", "relaxed"]

# Below it the closed-form mixture is exact to 1e-7: branches are more than seven deviations apart.
_SMALL_NOISE = 0.06


def reconstruction_bound(
    *, noise_multiplier: float, sample_rate: float, steps: int, prior: float, threat: Threat
) -> float:
    """Bound the probability that a record is reconstructed, given a ``prior`` success probability.

    ``worst_case``: gamma = 1 - f(prior), f the trade-off function of the run: the best test of level prior
    that somebody has who sees every noisy step and knows everything but which candidate is the record.
    ``relaxed``: the same view, but the sign along the test direction is guessed anew at every step.

    *Guarantee*: worst_case bounds every adversary, for data drawn from any prior of that success (Hayes,
    Mahloujifar and Balle, 2023, theorem 2 and corollary 4). relaxed is a model of a weaker attacker, not a
    privacy guarantee. Numerical error below 1e-4 absolute and 1e-3 relative.
    *Assumes*: as ``privacy.epsilon``; ``prior`` is the adversary's best chance without the release.
    *Edge cases*: noise multiplier 0 gives the noiseless limit 1 - (1-q)^T (1 - prior); full participation
    gives Phi(Phi^-1(prior) + sqrt(T)/s) in the worst case. Raises ``ValueError`` naming a wrong argument.
    Source: docs/accounting.md; tests/privacy/test_power.py, test_never_beaten.py.
    """
    noise, rate = checks.noise(noise_multiplier), checks.rate(sample_rate)
    count, level = checks.whole("steps", steps), checks.probability(prior, "prior")
    if threat not in ("worst_case", "relaxed"):
        raise ValueError(f"threat must be 'worst_case' or 'relaxed', not {threat!r}")
    return min(1.0, max(level, _bound(noise, rate, count, level, threat == "relaxed")))


def participant_bound(
    *, noise_multiplier: float, sample_rate: float, steps: int, watched: int, prior: float, threat: Threat
) -> float:
    """Bound the probability that a record is reconstructed which is known to have been drawn in a watched step.

    The smaller of the bound at a sample rate of 1, and of the run's own bound over the chance 1 - (1-q)^W of being
    drawn at all in W watched steps: P(hit | drawn) = P(hit and drawn) / P(drawn) <= P(hit) / P(drawn).

    *Guarantee*: as ``reconstruction_bound``.
    *Assumes*: the adversary saw the ``watched`` steps, and whatever else came out of all ``steps``: the weights that
    are sent in a late step come out of all earlier ones, so these count.
    *Edge cases*: at a sample rate of 1 it is ``reconstruction_bound``. Raises ``ValueError`` naming a wrong argument.
    """
    count, seen = checks.whole("steps", steps), checks.whole("watched", watched)
    if not 1 <= seen <= count:
        raise ValueError(f"watched must be one of the {count} steps, not {watched}")

    def at(rate: float) -> float:
        return reconstruction_bound(
            noise_multiplier=noise_multiplier, sample_rate=rate, steps=count, prior=prior, threat=threat
        )

    whole, rate = at(1.0), checks.rate(sample_rate)
    if rate in {0.0, 1.0} or count == 1:
        return whole
    return min(whole, at(rate) / -math.expm1(seen * math.log1p(-rate)))


@functools.lru_cache(maxsize=1024)
def _bound(noise: float, rate: float, steps: int, level: float, sign_blind: bool) -> float:
    if noise == 0.0:
        return 1.0 if rate == 1.0 else level - math.expm1(steps * math.log1p(-rate)) * (1.0 - level)
    if steps == 1 or (rate == 1.0 and not sign_blind):
        return (1.0 - rate) * level + rate * _full(math.sqrt(steps) / noise, level, sign_blind)
    if noise < _SMALL_NOISE:
        # A blind sign halves each participation's likelihood ratio.
        return mixture_power(noise, rate, steps, level, halved=sign_blind)
    kind = SignBlind if sign_blind else SubsampledGaussian
    return best_power(Parts(((kind(noise_multiplier=noise, sample_rate=rate), steps),)), level)


def _full(mu: float, level: float, sign_blind: bool) -> float:
    """Power of level ``level`` of the test for a shift ``mu`` of a normal variable, one- or two-sided.

    Two-sided: 1 - F_ncx2(F_chi2^-1(1 - level); 1, mu^2).
    """
    if not sign_blind:
        return float(ndtr(ndtri(level) + mu))
    threshold = -float(ndtri(0.5 * level))
    return float(ndtr(mu - threshold) + ndtr(-mu - threshold))
