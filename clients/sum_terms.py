"""What a hospital says about the range of its release before it is summed: public terms only, never data."""

from dataclasses import dataclass
from typing import final

from clients.planning import Plan
from configs.sections import PrivacySettings, TrainingSettings

# A coordinate of the noise beyond 40 standard deviations has probability 2 Phi(-40) < 1e-349: times any number of
# coordinates and rounds it adds nothing to a delta.
NOISE_REACH = 40.0
# Where gradients are not clipped nothing bounds them, and an adversary's block may make them huge: their sum may reach
# so many nominal clipping norms, and integers of two words keep the small ones exact beside them.
UNCLIPPED_REACH = 2.0**64
# A step of Adam is a weighted mean of gradients over the root of a weighted mean of their squares: at most 7.3 learning
# rates (Cauchy-Schwarz, torch's betas); Nadam's own share of the latest gradient takes it to at most 24.
ADAM_REACH = 32.0
FINER_THAN_NOISE = 1e-3
FINER_THAN_CLIP = 2.0**-40


@final
@dataclass(frozen=True)
class SumTerms:
    """How a hospital enters a sum.

    Attributes:
        weight: what its release is multiplied with before masking: 1 for FedSGD, its units for FedAvg.
        bound: no coordinate of the weighted release is larger in magnitude.
        coarsest: the largest unit of the integers that it accepts.
        words: of 64 bits per number; 2 where gradients are not clipped.
    """

    weight: float
    bound: float
    coarsest: float
    words: int = 1


def sum_terms(plan: Plan, training: TrainingSettings, privacy: PrivacySettings) -> SumTerms:
    """Return a hospital's terms.

    FedSGD: with units n, clip C and noise s a coordinate of the sum is below n C + 40 s C. FedAvg: `local_steps` steps
    of at most the learning rate times that over the expected batch, or of 32 learning rates for Adam and Nadam.

    Guarantee: where gradients are clipped, a release is beyond the bound with probability below 1e-349 per
    coordinate, so that nothing is added to delta; rounding comes after the hospital's own noise, so that it is
    post-processing and costs nothing.
    Edge cases: where gradients are not clipped the bound is 2^64 nominal clipping norms (`privacy.clipping_norm`),
    and a release beyond it is refused; it claims no epsilon anyway.
    """
    noise = plan.noise_std
    clip = plan.clipping_norm if plan.clipping_norm is not None else privacy.clipping_norm
    words = 1 if plan.clipping_norm is not None else 2
    reach = NOISE_REACH * noise + clip * (plan.units if words == 1 else UNCLIPPED_REACH)
    fine = FINER_THAN_NOISE * noise if noise > 0 else FINER_THAN_CLIP * clip
    if training.local_steps == 1:
        return SumTerms(1.0, reach, fine, words)
    weight, rate = float(plan.units), training.learning_rate
    if training.optimizer != "sgd":
        bound = weight * rate * ADAM_REACH * training.local_steps
        return SumTerms(weight, bound, weight * rate * FINER_THAN_CLIP, words)
    batch = max(plan.expected_batch, 1e-12)
    pull = max(1.0, abs(1.0 - rate * training.proximal))  # FedProx may overshoot where its mu is large
    grown = sum(pull**k for k in range(training.local_steps))
    return SumTerms(weight, weight * grown * rate * reach / batch, weight * fine * rate / batch, words)
