"""What an adversary sees, may do, and returns. Nothing here holds ground truth, a dataset, or a seed."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from tasks.models import ModelSpec

ATTRIBUTED = "attributed releases"
BROADCAST = "control of the broadcast"

Weights = Mapping[str, NDArray[np.float32]]


@final
@dataclass(frozen=True)
class PublicData:
    """Images that the adversary owns, prepared by the simulation; none of them is any hospital's record.

    Attributes:
        images: uint8 (n, channels, height, width), n may be 0.
        description: where they come from, in words for the report.
    """

    images: NDArray[np.uint8]
    description: str


@final
@dataclass(frozen=True)
class PublicTerms:
    """What everybody knows about a hospital's mechanism; none of it depends on which records were drawn.

    Attributes:
        clipping_norm: C, None where gradients are not clipped.
        noise_multiplier: s, the noise on the sum is s*C per coordinate; 0 without noise.
        sample_rate: q of a unit per local step.
        local_steps: steps of one release; 1 is FedSGD and the release is a gradient sum.
        expected_batch: units per local step.
        learning_rate: of the hospital's own steps (FedAvg), 0 for FedSGD.
    """

    clipping_norm: float | None
    noise_multiplier: float
    sample_rate: float
    local_steps: int
    expected_batch: float
    learning_rate: float


@final
@dataclass(frozen=True)
class Observation:
    """One hospital's exchange in one round: what was broadcast to it and what it released.

    Attributes:
        round: from 1.
        hospital: the hospital's name.
        spec: the model that was sent (with the adversary's block, if it sent one).
        weights: the parameters and buffers that were sent, float32 by name.
        release: what came back, float64 by parameter name: the (clipped, noised) gradient sum for FedSGD, the
            difference of weights (after minus before) for FedAvg.
        terms: the hospital's public terms.
    """

    round: int
    hospital: str
    spec: ModelSpec
    weights: Weights
    release: Mapping[str, NDArray[np.float64]]
    terms: PublicTerms


@final
@dataclass(frozen=True)
class View:
    """What a placement saw: the observations of the attacked rounds and its capabilities."""

    placement: str
    capabilities: frozenset[str]
    observations: tuple[Observation, ...]


@final
@dataclass(frozen=True)
class Reconstruction:
    """What an attack believes one hospital's images of one round to be.

    Attributes:
        round: the attacked round.
        hospital: the hospital's name.
        images: float32 (m, channels, height, width), intensities in [0, 1]; m may be 0.
        confidence: float64 (m,), higher is surer; the attack's own, never compared with the truth.
        readout: how the images were read, in words for the report.
    """

    round: int
    hospital: str
    images: NDArray[np.float32]
    confidence: NDArray[np.float64]
    readout: str


class Attack(ABC):
    """One way to get images back.

    `needs` is compared with the view's capabilities before anything runs; see :func:`require`.
    """

    name: str
    needs: frozenset[str]

    def plant(self, spec: ModelSpec, weights: Weights, public: PublicData) -> tuple[ModelSpec, Weights]:
        """Return the model to broadcast in an attacked round; the agreed one unless the attack changes it."""
        return spec, weights

    @abstractmethod
    def reconstruct(self, observation: Observation, public: PublicData) -> Reconstruction:
        """Return the images that the attack reads out of one hospital's release."""

    def informed(
        self, observation: Observation, public: PublicData, candidates: NDArray[np.uint8]
    ) -> NDArray[np.float64] | None:
        """Score candidates shown to the adversary, (n,) higher is likelier; None if the attack cannot."""
        return None


class MissingCapabilityError(ValueError):
    """An attack was asked to run where it may not know or do enough."""


def require(attack: Attack, placement: str, capabilities: frozenset[str]) -> None:
    """Refuse an attack that needs what its placement does not have.

    Raises:
        MissingCapabilityError: naming the attack, the placement and the missing capability.
    """
    missing = sorted(attack.needs - capabilities)
    if missing:
        raise MissingCapabilityError(
            f"attack '{attack.name}' needs {' and '.join(missing)}, which placement '{placement}' does not have"
        )
