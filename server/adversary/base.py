"""What an adversary sees, may do, and returns. Nothing here holds ground truth, a dataset, or a seed."""

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from configs.sections import LossName
from tasks.models import ModelSpec

RELEASES = "releases of single rounds"
ATTRIBUTED = "releases attributed to hospitals"
BROADCAST = "control of the broadcast"
START = "control of the first model"
FINAL = "the final model"
CANDIDATES = "everything but which candidate was used"

Weights = Mapping[str, NDArray[np.float32]]
Update = Mapping[str, NDArray[np.float64]]
Yield = Literal["images", "candidates", "labels", "members"]


@final
@dataclass(frozen=True)
class PublicData:
    """Images that the adversary owns, prepared by the simulation; none of them is any hospital's record.

    Attributes:
        images: uint8 (n, channels, height, width) or (n, channels, depth, height, width), n may be 0.
        description: where they come from, in words for the report.
        targets: what the loss takes beside them, int64 (n,) classes or (n, *spatial) masks; None if not known.
    """

    images: NDArray[np.uint8]
    description: str
    targets: NDArray[np.integer] | None = None


@final
@dataclass(frozen=True)
class Candidates:
    """Images that are shown to an adversary which then says how likely each was used.

    Attributes:
        images: uint8 (n, channels, ...).
        targets: as in :class:`PublicData`; None where the adversary does not know them.
    """

    images: NDArray[np.uint8]
    targets: NDArray[np.integer] | None = None


@final
@dataclass(frozen=True)
class PublicTerms:
    """What everybody knows about a mechanism; none of it depends on which records were drawn.

    For a sum of hospitals these are the terms of the sum: s is the root of the summed squares, the expected batch
    is summed.

    Attributes:
        clipping_norm: C, None where gradients are not clipped.
        noise_multiplier: s, the noise on the sum is s*C per coordinate; 0 without noise.
        sample_rate: q of a unit per local step.
        local_steps: steps of one release; 1 is FedSGD and the release is a gradient sum.
        expected_batch: units per local step.
        learning_rate: of the hospital's own steps (FedAvg), 0 for FedSGD.
        loss: the agreed loss; None: the usual one of the model's kind.
    """

    clipping_norm: float | None
    noise_multiplier: float
    sample_rate: float
    local_steps: int
    expected_batch: float
    learning_rate: float
    loss: LossName | None = None


def usual_loss(spec: ModelSpec) -> LossName:
    """Return the loss that a model of this kind is trained with unless the terms name another."""
    if spec.dense:
        return "dice"
    return "binary" if spec.outputs == 1 else "categorical"


@final
@dataclass(frozen=True)
class Observation:
    """One exchange: what was broadcast in one round, and what came back from one source.

    Attributes:
        round: from 1; the last one where several rounds are added up.
        hospital: the source: a hospital's name, or words for a sum of several.
        spec: the model that was sent (with the adversary's block, if it sent one).
        weights: the parameters and buffers that were sent, float32 by name. Where every hospital got rows of its
            own in a common block: the block with everybody's rows.
        release: what came back, float64 by parameter name: the (clipped, noised) gradient sum for FedSGD, the
            difference of weights (after minus before) for FedAvg.
        terms: of one round's release.
        members: hospitals whose records may be inside; empty means `hospital` alone.
        rounds: the rounds whose releases are added up in `release`; empty means `round` alone.
    """

    round: int
    hospital: str
    spec: ModelSpec
    weights: Weights
    release: Update
    terms: PublicTerms
    members: tuple[str, ...] = ()
    rounds: tuple[int, ...] = ()

    @property
    def inside(self) -> tuple[str, ...]:
        """The hospitals whose records may be inside."""
        return self.members or (self.hospital,)

    @property
    def loss(self) -> LossName:
        """The agreed loss."""
        return self.terms.loss or usual_loss(self.spec)

    @property
    def added(self) -> tuple[int, ...]:
        """The rounds whose releases are inside."""
        return self.rounds or (self.round,)


@final
@dataclass(frozen=True)
class Trace:
    """Everything that a chair saw of one source, in the order of rounds; at least one observation."""

    observations: tuple[Observation, ...]

    @staticmethod
    def of(*observations: Observation) -> "Trace":
        """Make a trace of observations of one source."""
        return Trace(tuple(sorted(observations, key=lambda seen: seen.round)))

    @property
    def last(self) -> Observation:
        """The latest observation."""
        return self.observations[-1]

    @property
    def hospital(self) -> str:
        """The source."""
        return self.last.hospital

    @property
    def rounds(self) -> tuple[int, ...]:
        """All rounds whose releases are inside, in order."""
        return tuple(sorted({r for seen in self.observations for r in seen.added}))

    @property
    def members(self) -> tuple[str, ...]:
        """All hospitals whose records may be inside, by name."""
        return tuple(sorted({h for seen in self.observations for h in seen.inside}))


@final
@dataclass(frozen=True)
class View:
    """What a placement saw of the attacked rounds, and its capabilities."""

    placement: str
    capabilities: frozenset[str]
    traces: tuple[Trace, ...]


@final
@dataclass(frozen=True)
class Addressee:
    """Whom a changed broadcast goes to.

    Attributes:
        hospital: its name; empty where every hospital is sent the same.
        index: its place among all hospitals, from 0.
        count: hospitals in all.
    """

    hospital: str = ""
    index: int = 0
    count: int = 1


EVERYBODY = Addressee()


@final
@dataclass(frozen=True)
class Reconstruction:
    """What an attack believes the images behind a trace to be.

    Attributes:
        images: float32 (m, channels, ...), intensities in [0, 1]; m may be 0.
        confidence: float64 (m,), higher is surer; the attack's own, never compared with the truth.
        readout: how the images were read, in words for the report.
    """

    images: NDArray[np.float32]
    confidence: NDArray[np.float64]
    readout: str


class Attack(ABC):
    """One way to learn about records from what a chair saw.

    `needs` is compared with the placement's capabilities before anything runs; see :func:`require`. `yields` says
    what it learns, and so which of the methods below it overrides:

    - `images`: :meth:`reconstruct`, and :meth:`informed` if it can also score candidates shown to it;
    - `candidates`, `members`: :meth:`informed`;
    - `labels`: :meth:`label_counts`.

    Attributes:
        name: as in the settings.
        needs: capabilities, all of which it needs.
        yields: what it learns.
        personal: whether :meth:`plant` sends different hospitals different models.
    """

    name: str
    needs: frozenset[str]
    yields: Yield = "images"
    personal: bool = False

    def plant(
        self, spec: ModelSpec, weights: Weights, public: PublicData, to: Addressee = EVERYBODY
    ) -> tuple[ModelSpec, Weights]:
        """Return the model to broadcast in an attacked round (or to start from, for an attack that needs `START`).

        A personal attack is asked once for everybody, with `to.count` set, and returns everybody's rows; that is what
        its observations carry as `weights`. Then it is asked for each hospital.
        """
        return spec, weights

    def reconstruct(self, trace: Trace, public: PublicData) -> Reconstruction:
        """Return the images that the attack reads out of everything its chair saw of one source."""
        raise NotImplementedError(f"attack '{self.name}' reconstructs no images")

    def informed(self, trace: Trace, public: PublicData, candidates: Candidates) -> NDArray[np.float64] | None:
        """Score candidates shown to the adversary, (n,) higher is likelier; None if the attack cannot."""
        return None

    def label_counts(self, trace: Trace, public: PublicData) -> NDArray[np.float64]:
        """Return how many images of each class the attack believes to be in the trace, (classes,)."""
        raise NotImplementedError(f"attack '{self.name}' counts no labels")


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
