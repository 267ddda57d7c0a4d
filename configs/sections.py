"""The sections of an experiment: every setting, its type, its range, and what it means.

The adversary's section is in `configs.adversary`, what is executed where in `configs.runtime`.
"""

import math
import os
from typing import Literal, final

from pydantic import Field, field_validator, model_validator

from configs.runtime import RuntimeSettings as RuntimeSettings  # noqa: PLC0414 - a section like the others
from configs.section import Positive, Probability, Section

PHANTOM = "phantom"

TaskName = Literal["ham10000", "radimagenet", "msd_liver"]
Mechanism = Literal["none", "clip_only", "noise_only", "local", "distributed", "central", "pooled", "alone"]
# Those that clip and price each record's influence; `central` prices a whole hospital's.
PER_RECORD: tuple[Mechanism, ...] = ("local", "distributed", "pooled", "alone")
PRICED: tuple[Mechanism, ...] = (*PER_RECORD, "central")
# Those whose data stand elsewhere than in the federation: they exist without privacy too, as twins to compare with.
TWINS: tuple[Mechanism, ...] = ("pooled", "alone")
ModelName = Literal["resnet9", "wide_resnet", "scattering", "histograms", "convnet", "unet"]
LossName = Literal["binary", "categorical", "dice", "dice_ce"]
Unit = Literal["image", "lesion", "scan"]


@final
class TaskSettings(Section):
    """What the hospitals learn, and from which data."""

    name: TaskName = "ham10000"
    root: str | None = Field(default=None, description="folder of the dataset in its official layout, or 'phantom'")
    image_size: int = Field(default=32, ge=8, le=512, description="side of the square images in pixels")
    depth: int = Field(default=50, ge=1, le=512, description="msd_liver: slices of the resampled volume")
    crop: tuple[int, int, int] | None = Field(
        default=None, description="msd_liver: depth, height, width of a training crop; empty: the whole volume"
    )
    slices: bool = Field(default=False, description="msd_liver: train on axial slices; the unit stays the scan")
    model: ModelName | None = Field(default=None, description="empty: the paper's for the dataset")
    width: int = Field(
        default=16, ge=1, le=512, description="channels of the first layer; the paper's are 64 (U-Net 16)"
    )
    loss: LossName | None = Field(default=None, description="empty: cross entropy, or dice for segmentation")
    classes: int | None = Field(
        default=None, ge=2, description="empty: 2, 165, 3; HAM10000 also 7 (diagnoses); 2 = needs attention or not"
    )
    holdout: Literal["test", "validation"] = Field(
        default="test", description="what utility is measured on; 'test' lets hospitals train on the validation part"
    )
    fold: int = Field(default=0, ge=0, description="msd_liver: which of the rotations of the split, from 0")
    split_seed: int = Field(default=0, ge=0, description="seed of the split, apart from `seed`: runs stay comparable")
    damaged: Literal["stop", "skip"] = Field(
        default="stop", description="a damaged or missing file stops the run, or is left out and listed"
    )
    phantom_images: int = Field(default=1600, ge=4, le=2_000_000, description="images (scans) of the phantom")

    @field_validator("root")
    @classmethod
    def _expand(cls, value: str | None) -> str | None:
        return None if value is None else os.path.expandvars(os.path.expanduser(value))  # noqa: PTH111

    @model_validator(mode="after")
    def _consistent(self) -> "TaskSettings":
        known = {"ham10000": (2, 7), "radimagenet": (165,), "msd_liver": (3,)}[self.name]
        if self.classes is not None and self.classes not in known:
            raise ValueError(
                f"task.classes: {self.name} has {' or '.join(map(str, known))} classes, not {self.classes}"
            )
        segments = self.name == "msd_liver"
        losses = ("dice", "dice_ce") if segments else ("binary",) if self._binary else ("categorical",)
        if self.model is not None and (self.model == "unet") != segments:
            raise ValueError(
                f"task.model: '{self.model}' does not fit {self.name}; leave it empty for the paper's model"
            )
        if self.loss is not None and self.loss not in losses:
            raise ValueError(f"task.loss: '{self.loss}' does not fit; use {' or '.join(losses)}, or leave it empty")
        if not segments:
            fields = type(self).model_fields
            for key in ("crop", "slices", "fold", "depth"):
                if getattr(self, key) != fields[key].default:
                    raise ValueError(f"task.{key}: for msd_liver only; leave it out")
        return self

    @property
    def _binary(self) -> bool:
        return self.name == "ham10000" and self.classes in (None, 2)


@final
class HospitalSettings(Section):
    """How the records are dealt to hospitals. Units (lesions, scans) are never cut."""

    partition: Literal["natural", "iid", "dirichlet", "size"] = "natural"
    count: int | None = Field(default=None, ge=1, le=100_000, description="number of hospitals; natural: leave empty")
    alpha: Positive = Field(default=0.5, description="concentration of the Dirichlet label or size skew")
    max_records: int | None = Field(default=None, ge=1, description="keep at most so many images at each hospital")
    only: str | None = Field(default=None, description="mechanism alone: the one hospital that trains, by its name")
    min_units: int = Field(default=1, ge=1, description="a deal that leaves a hospital with fewer units is refused")
    vetting: Literal["off", "refuse"] = Field(
        default="off", description="refuse: a hospital declines a model other than the agreed one"
    )
    alarm: Literal["off", "log", "refuse"] = Field(
        default="off", description="watch the gradient-energy share and norm of what was broadcast: log, or decline"
    )
    smallest_sum: int = Field(default=3, ge=2, description="secure sum: hospitals refuse to be summed with fewer")


@final
class TrainingSettings(Section):
    """How the federation trains.

    ``local_steps: 1`` is FedSGD: a hospital sends one (clipped, noised) gradient sum and the server's optimiser
    takes the step with ``learning_rate``. More local steps are FedAvg (FedProx with ``proximal``): a hospital
    takes them with ``optimizer`` and ``learning_rate`` and sends the difference of weights, which the server
    applies with ``server_optimizer`` and ``server_learning_rate``.
    """

    rounds: int = Field(default=10, ge=1, le=1_000_000)
    local_steps: int = Field(default=1, ge=1, le=100_000)
    batch_size: Positive | None = Field(
        default=64, description="expected total batch over all hospitals, in units; empty: every unit in every step"
    )
    batch: Literal["proportional", "equal"] = Field(
        default="proportional", description="one sample rate for all, or one expected batch for all"
    )
    cohort: int | None = Field(default=None, ge=1, description="hospitals drawn each round; empty: all")
    stragglers: Probability = Field(default=0.0, description="probability that a hospital misses a round")
    quorum: Positive = Field(
        default=0.5,
        description="releases without which a round is void: a share of the cohort up to 1, else a number",
    )
    optimizer: Literal["sgd", "adam", "nadam"] = Field(default="sgd", description="inside hospitals, FedAvg only")
    server_optimizer: Literal["average", "adam", "nadam"] = "nadam"
    secure_sum: bool = Field(default=False, description="the server sees the sum of the releases and no single one")
    learning_rate: Positive = 2e-3
    server_learning_rate: Positive = Field(default=1.0, description="FedAvg only")
    averaging: float = Field(
        default=0.0, ge=0, lt=1, description="decay of the moving average of the weights that is handed out; 0: none"
    )
    proximal: float = Field(default=0.0, ge=0, description="FedProx's mu; 0 is FedAvg")
    views: int = Field(default=1, ge=1, le=64, description="augmented views per image, summed before clipping")
    flips: Probability = Field(default=0.5, description="probability of each flip (horizontal, vertical) of a view")
    shift: int = Field(default=0, ge=0, le=64, description="most pixels that a view is moved by in each direction")
    evaluate_every: int | None = Field(default=None, ge=1, description="rounds between evaluations; empty: about 20")

    def fewest_releases(self, hospitals: int) -> int:
        """Return with how few releases a round counts, of so many hospitals."""
        return max(1, self.fewest_of(min(self.cohort or hospitals, hospitals)))

    def fewest_of(self, asked: int) -> int:
        """Return with how few releases a round counts in which so many hospitals were asked; of none, none."""
        return math.ceil(self.quorum * asked - 1e-9) if self.quorum <= 1 else min(int(self.quorum), asked)


@final
class PrivacySettings(Section):
    """Which mechanism protects whom, and its budget."""

    mechanism: Mechanism = "none"
    epsilon: Positive | Literal["none"] | None = Field(
        default=None, description="'none': pooled and alone without privacy, to compare with"
    )
    delta: float = Field(default=8e-7, gt=0, lt=1)
    noise_multiplier: Positive | None = Field(default=None, description="instead of epsilon: noise std / clipping norm")
    clipping_norm: Positive = 1.0
    update_norm: Positive | None = Field(
        default=None, description="central: most that a hospital's mean update may weigh; empty: the clipping norm"
    )
    colluders: int = Field(
        default=1, ge=0, description="distributed: hospitals that may tell the server their noise; each knows its own"
    )
    dropouts: int = Field(default=0, ge=0, description="distributed: hospitals whose noise may be missing from a sum")
    unit: Unit | None = Field(
        default=None, description="what is drawn, clipped and protected as one; empty: image (msd_liver: scan)"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "PrivacySettings":
        priced = self.mechanism in PRICED
        given = (self.epsilon is not None) + (self.noise_multiplier is not None)
        if priced and given != 1:
            also = " (or epsilon: none, to train without privacy)" if self.mechanism in TWINS else ""
            raise ValueError(f"mechanism '{self.mechanism}' needs one of epsilon and noise_multiplier{also}")
        if self.epsilon == "none" and self.mechanism not in TWINS:
            raise ValueError(f"epsilon 'none' is for {' and '.join(TWINS)}; set mechanism: none instead")
        if self.mechanism == "noise_only" and self.noise_multiplier is None:
            raise ValueError("mechanism 'noise_only' needs noise_multiplier (it has no epsilon: nothing is clipped)")
        if not priced and self.epsilon is not None:
            raise ValueError(f"mechanism '{self.mechanism}' claims no epsilon; leave it empty or set mechanism")
        if self.mechanism in ("none", "clip_only") and self.noise_multiplier is not None:
            raise ValueError(f"mechanism '{self.mechanism}' adds no noise; leave noise_multiplier empty")
        return self

    @property
    def budget(self) -> float | None:
        """The epsilon asked for; None where none is, or where the noise is given instead."""
        return None if self.epsilon == "none" else self.epsilon

    @property
    def claims(self) -> bool:
        """Whether the mechanism claims an epsilon for each record."""
        return self.mechanism in PER_RECORD and self.epsilon != "none"

    @property
    def clips(self) -> bool:
        """Whether gradients are clipped per unit."""
        return self.mechanism == "clip_only" or self.claims

    @property
    def update_bound(self) -> float:
        """S of mechanism `central`: the norm that a hospital's mean update is clipped to."""
        return self.update_norm or self.clipping_norm


@final
class ReportSettings(Section):
    """What the report may show."""

    images: Literal["real", "phantom", "none"] = Field(
        default="phantom", description="real: embed whatever was attacked; phantom: only synthetic images"
    )
