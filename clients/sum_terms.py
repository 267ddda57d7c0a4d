"""What a hospital says about the range of its release before it is summed: public terms only, never data."""

from dataclasses import dataclass
from typing import final

from clients.planning import Plan
from configs.sections import PrivacySettings, TrainingSettings

# A coordinate of the noise beyond 40 standard deviations has probability 2 Phi(-40) < 1e-349: times any number of
# coordinates and rounds it adds nothing to a delta.
NOISE_REACH = 40.0
# Where gradients are not clipped nothing bounds them: their sum may reach so many nominal clipping norms.
UNCLIPPED_REACH = 2.0**20
# A step of Adam is a weighted mean of gradients over the root of a weighted mean of their squares: at most 7.3 learning
# rates (Cauchy-Schwarz, torch's betas); Nadam's own share of the latest gradient takes it to at most 24.
ADAM_REACH = 32.0
FINER_THAN_NOISE = 1e-3
FINER_THAN_CLIP = 2.0**-40
FINER_UNBOUNDED = 2.0**-30


@final
@dataclass(frozen=True)
class SumTerms:
    """How a hospital enters a sum.

    Attributes:
        weight: what its release is multiplied with before masking: 1 for FedSGD, its units for FedAvg.
        bound: no coordinate of the weighted release is larger in magnitude.
        coarsest: the largest unit of the integers that it accepts.
    """

    weight: float
    bound: float
    coarsest: float


def sum_terms(plan: Plan, training: TrainingSettings, privacy: PrivacySettings) -> SumTerms:
    """Return a hospital's terms.

    FedSGD: with units n, clip C and noise s a coordinate of the sum is below n C + 40 s C. FedAvg: `local_steps` steps
    of at most the learning rate times that over the expected batch, or of 32 learning rates for Adam and Nadam.

    Guarantee: where gradients are clipped, a release is beyond the bound with probability below 1e-349 per
    coordinate, so that nothing is added to delta; rounding comes after the hospital's own noise, so that it is
    post-processing and costs nothing.
    Edge cases: where gradients are not clipped the bound is 2^20 nominal clipping norms (`privacy.clipping_norm`),
    and a release beyond it is refused; it claims no epsilon anyway.
    """
    nominal = privacy.clipping_norm
    noise = plan.noise_std
    reach = NOISE_REACH * noise
    if plan.clipping_norm is None:
        reach += UNCLIPPED_REACH * nominal
        fine = FINER_UNBOUNDED * nominal
    else:
        reach += plan.units * plan.clipping_norm
        fine = FINER_THAN_CLIP * plan.clipping_norm
    if noise > 0:
        fine = FINER_THAN_NOISE * noise
    if training.local_steps == 1:
        return SumTerms(1.0, reach, fine)
    weight, batch, rate = float(plan.units), max(plan.expected_batch, 1e-12), training.learning_rate
    if training.optimizer != "sgd":
        return SumTerms(weight, weight * rate * ADAM_REACH * training.local_steps, weight * rate * FINER_UNBOUNDED)
    pull = max(1.0, abs(1.0 - rate * training.proximal))  # FedProx may overshoot where its mu is large
    grown = sum(pull**k for k in range(training.local_steps))
    return SumTerms(weight, weight * grown * rate * reach / batch, weight * fine * rate / batch)
