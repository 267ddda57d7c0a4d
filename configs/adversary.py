"""The adversary's section: where it sits, what it owns, and what it tries."""

from typing import Literal, final

from pydantic import Field

from configs.section import Positive, Section

Placement = Literal[
    "none",
    "wire",
    "server",
    "malicious_server",
    "aggregate",
    "malicious_aggregate",
    "hospital",
    "release",
    "worst_case",
]
AttackName = Literal[
    "imprint",
    "trap_weights",
    "data_traps",
    "inversion",
    "label_counts",
    "candidate_matching",
    "membership",
    "mean_image",
]


@final
class ImprintSettings(Section):
    """The imprint attack's module."""

    rows: int = Field(default=512, ge=2, le=65_536, description="bins of the measurement; one image per bin is copied")
    components: int = Field(default=400, ge=1, description="most components of the public PCA for the denoised readout")
    per_hospital: bool = Field(
        default=False, description="rows of its own for every hospital, so that a sum keeps hospitals apart"
    )
    share: float = Field(
        default=1.0, gt=0, le=1, description="share of the gradient energy that the module takes; below 1 to stay quiet"
    )


@final
class TrapWeightsSettings(Section):
    """The trap-weights attack's module."""

    rows: int = Field(default=512, ge=2, le=65_536, description="neurons of the trap layer")
    scale: float = Field(default=0.97, gt=0, le=1, description="factor on the positive weights; lower fires less often")
    wiring: Literal["image", "logits"] = Field(
        default="image", description="image: a shift of the image as published; logits: as the imprint is wired"
    )


@final
class DataTrapsSettings(Section):
    """The data traps that a first model carries."""

    rows: int = Field(default=256, ge=2, le=65_536, description="traps; each keeps the first image that fires it")


@final
class InversionSettings(Section):
    """Gradient inversion."""

    objective: Literal["cosine", "dlg", "idlg"] = Field(
        default="cosine", description="cosine + total variation with signed Adam, or squared distance (DLG, iDLG)"
    )
    iterations: int = Field(default=400, ge=1)
    restarts: int = Field(default=1, ge=1, description="the one with the smallest objective is shown")
    learning_rate: Positive = 0.1
    total_variation: float = Field(default=0.02, ge=0)
    most_images: int = Field(default=16, ge=1, description="images guessed at once; a larger batch is cut off there")


@final
class MembershipSettings(Section):
    """Membership inference on the final model."""

    shadows: int = Field(default=16, ge=2, description="reference models trained on the adversary's own images")
    steps: int = Field(default=200, ge=1, description="most steps of a reference model; fewer where the run had fewer")
    learning_rate: Positive = Field(default=2e-3, description="of the reference models' NAdam")


@final
class AdversarySettings(Section):
    """Where the adversary sits and what it tries."""

    placement: Placement = "none"
    seat: str | None = Field(
        default=None, description="placements wire and hospital: which hospital; empty: the first by name"
    )
    colluders: int = Field(
        default=0, ge=0, description="placement hospital: how many other hospitals share what they know"
    )
    attacks: tuple[AttackName, ...] = ("imprint",)
    rounds: tuple[int, ...] | Literal["all"] | None = Field(
        default=None, description="attacked rounds, from 1, or 'all'; empty: the last"
    )
    frozen: bool = Field(default=False, description="a malicious server sends the same weights in all attacked rounds")
    keep: Literal["rounds", "sum"] = Field(
        default="rounds", description="record every attacked release, or only each hospital's running sum of them"
    )
    public_data: Literal["none", "phantom", "other_hospitals", "same_distribution"] = "same_distribution"
    public_images: int = Field(default=3000, ge=8, description="at most so many images as the adversary's public data")
    targets: int = Field(default=100, ge=1, description="at most so many images per hospital are ranked against decoys")
    decoys: int = Field(default=999, ge=1, description="at most so many decoys per target")
    imprint: ImprintSettings = ImprintSettings()
    trap_weights: TrapWeightsSettings = TrapWeightsSettings()
    data_traps: DataTrapsSettings = DataTrapsSettings()
    inversion: InversionSettings = InversionSettings()
    membership: MembershipSettings = MembershipSettings()
