"""An experiment (one run) and a study (a grid of runs)."""

import hashlib
import json
from typing import Literal, Self, final

from pydantic import Field, field_validator, model_validator

from configs.adversary import AdversarySettings, AttackName, Placement
from configs.section import Positive, Section
from configs.sections import (
    PHANTOM,
    TWINS,
    HospitalSettings,
    Mechanism,
    PrivacySettings,
    ReportSettings,
    RuntimeSettings,
    TaskSettings,
    TrainingSettings,
    Unit,
)

# The first is the default. An axial slice as unit is allowed, and its price per scan is reported beside.
_UNITS: dict[str, tuple[Unit, ...]] = {
    "ham10000": ("image", "lesion"),
    "radimagenet": ("image",),
    "msd_liver": ("scan", "image"),
}

Budget = float | Literal["none"]

SUMMED_ONLY: tuple[Placement, ...] = ("aggregate", "malicious_aggregate")
SINGLES: tuple[Placement, ...] = ("wire", "server", "malicious_server", "worst_case")


@final
class Experiment(Section):
    """One federated run: frozen, hashable by content, unknown keys refused."""

    task: TaskSettings = TaskSettings()
    hospitals: HospitalSettings = HospitalSettings()
    training: TrainingSettings = TrainingSettings()
    privacy: PrivacySettings = PrivacySettings()
    adversary: AdversarySettings = AdversarySettings()
    runtime: RuntimeSettings = RuntimeSettings()
    report: ReportSettings = ReportSettings()
    seed: int = Field(default=10, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _consistent(self) -> "Experiment":
        if self.hospitals.partition == "natural" and self.hospitals.count is not None:
            raise ValueError("hospitals.count: natural hospitals are counted by the data; leave it empty")
        if self.hospitals.partition != "natural" and self.hospitals.count is None:
            raise ValueError(f"hospitals.count: partition '{self.hospitals.partition}' needs a number of hospitals")
        late = [r for r in self.attacked_rounds if not 1 <= r <= self.training.rounds]
        if late:
            raise ValueError(
                f"adversary.rounds: round {late[0]} is not one of the run's rounds 1..{self.training.rounds}"
            )
        allowed = _UNITS[self.task.name]
        if self.unit not in allowed:
            raise ValueError(f"privacy.unit: '{self.unit}' is none of {self.task.name}'s: {' or '.join(allowed)}")
        cohort, count = self.training.cohort, self.hospitals.count
        if cohort is not None and count is not None and cohort > count:
            raise ValueError(f"training.cohort: {cohort} hospitals a round, but there are only {count}")
        if self.adversary.placement in SUMMED_ONLY and not self.training.secure_sum:
            raise ValueError(
                f"adversary.placement: '{self.adversary.placement}' watches a secure sum; set training.secure_sum: true"
            )
        if self.adversary.placement in SINGLES and self.training.secure_sum:
            raise ValueError(
                f"adversary.placement: '{self.adversary.placement}' reads single releases, which no one holds under "
                f"training.secure_sum; choose {' or '.join(SUMMED_ONLY)}"
            )
        if self.training.secure_sum:
            self._can_be_summed()
        self._mechanism_fits()
        return self

    def _mechanism_fits(self) -> None:
        """Refuse settings under which a mechanism would not protect what it claims to."""
        mechanism, training = self.privacy.mechanism, self.training
        if (self.hospitals.only is not None) != (mechanism == "alone"):
            raise ValueError(
                "hospitals.only: mechanism 'alone', and no other, trains one hospital by itself; name the hospital "
                "there (fedward budgets does it for each)"
            )
        if mechanism in TWINS and training.secure_sum:
            raise ValueError(f"training.secure_sum: mechanism '{mechanism}' has one place only and nothing to sum")
        if mechanism == "distributed" and not training.secure_sum:
            raise ValueError(
                "training.secure_sum: mechanism 'distributed' splits its noise over the hospitals, which protects "
                "inside a secure sum only; set it to true"
            )
        if mechanism == "distributed" and training.local_steps != 1:
            raise ValueError(
                f"training.local_steps: mechanism 'distributed' means one noisy sum per step, so 1 and not "
                f"{training.local_steps}: later steps start from a point that only a share of the noise hides"
            )
        if mechanism == "central" and training.secure_sum:
            raise ValueError(
                "training.secure_sum: mechanism 'central' clips each hospital's update at the server, which does not "
                "see it in a secure sum; set it to false"
            )
        if mechanism == "central" and training.stragglers:
            raise ValueError(
                "training.stragglers: mechanism 'central' prices a hospital that takes part whenever it is drawn; "
                "leave it at 0"
            )

    def _can_be_summed(self) -> None:
        """Refuse settings under which hospitals would refuse every sum, or a view would be wrong."""
        least, quorum = self.hospitals.smallest_sum, self.training.quorum
        sizes = [n for n in (self.training.cohort, self.hospitals.count) if n is not None]
        if sizes and min(sizes) < least:
            raise ValueError(
                f"training.secure_sum: {min(sizes)} hospitals a round, and hospitals.smallest_sum is {least}; "
                f"a sum of fewer tells too much about each"
            )
        if 1 < quorum < least:
            raise ValueError(
                f"training.quorum: {quorum:g} releases would make a round count, and no sum is opened below "
                f"hospitals.smallest_sum, {least}; raise the quorum"
            )
        if self.adversary.placement == "hospital":
            raise ValueError(
                "adversary.placement: 'hospital' takes its own release from the server's record, which holds none "
                "under training.secure_sum; it sees the same models without it"
            )

    @property
    def phantom(self) -> bool:
        """Whether the data are synthetic."""
        return self.task.root == PHANTOM

    @property
    def unit(self) -> Unit:
        """What is drawn, clipped and protected as one: as set, or the dataset's default."""
        return self.privacy.unit or _UNITS[self.task.name][0]

    @property
    def attacked_rounds(self) -> tuple[int, ...]:
        """The rounds that the adversary records and attacks, in order; empty without an adversary."""
        if self.adversary.placement == "none":
            return ()
        chosen = self.adversary.rounds
        if chosen == "all":
            return tuple(range(1, self.training.rounds + 1))
        return tuple(sorted(set(chosen))) if chosen is not None else (self.training.rounds,)

    @property
    def evaluated_rounds(self) -> tuple[int, ...]:
        """The rounds after which utility is measured: every so many, the last, and the last that is not attacked."""
        last = self.training.rounds
        every = self.training.evaluate_every or max(1, last // 20)
        clean = max(set(range(1, last + 1)) - set(self.attacked_rounds), default=last)
        return tuple(sorted({*range(every, last + 1, every), clean, last}))

    def sum_threshold(self, hospitals: int, taking_part: int) -> int:
        """Return with how few releases a secure sum is opened; a round with fewer is void.

        More than two thirds of those that take part, so that a malicious server gets no two lists of survivors signed
        as long as it has fewer than a third of them on its side (Bonawitz et al. 2017, section 6.2).

        Args:
            hospitals: of the whole federation.
            taking_part: those that advertised their keys for the round.
        """
        least = max(self.training.fewest_releases(hospitals), self.hospitals.smallest_sum)
        if self.privacy.mechanism == "distributed":
            # Below it the shares of noise that are left do not reach what the ledgers are charged.
            least = max(least, self.cohort_size(hospitals) - self.privacy.dropouts)
        return max(least, 2 * taking_part // 3 + 1)

    def cohort_size(self, hospitals: int) -> int:
        """Return how many of so many hospitals are asked in a round."""
        return min(self.training.cohort or hospitals, hospitals)

    def digest(self) -> str:
        """Return the sha256 of everything that may change a result.

        `runtime` and `report` may not, and where the data lie does not matter either: the run folder holds the
        data's own fingerprint.
        """
        content = self.model_dump(mode="json", exclude={"runtime", "report"})
        content["task"]["root"] = PHANTOM if self.phantom else "data"
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def updated(self, **sections: dict[str, object]) -> Self:
        """Return a validated copy with some keys of some sections replaced, e.g. ``privacy={"epsilon": 8}``."""
        content = self.model_dump(mode="json")
        for section, values in sections.items():
            content[section] = {**content[section], **values}
        return type(self).model_validate(content)

    def with_seed(self, seed: int) -> Self:
        """Return a copy with another seed."""
        return self.model_copy(update={"seed": seed})


@final
class StudyAxes(Section):
    """The axes of a study. An empty axis keeps the experiment's own value."""

    budgets: tuple[Budget, ...] = ()
    mechanisms: tuple[Mechanism, ...] = ()
    placements: tuple[Placement, ...] = ()
    attacks: tuple[AttackName, ...] = ()
    seeds: tuple[int, ...] = ()
    noise_of: Positive | None = Field(
        default=None, description="epsilon of the cell whose noise `noise_only` takes; empty: the smallest budget"
    )
    tolerance: Positive = Field(
        default=0.02, description="of the recommended budget: how much of the leading metric privacy may cost"
    )

    @field_validator("budgets")
    @classmethod
    def _positive(cls, value: tuple[Budget, ...]) -> tuple[Budget, ...]:
        for budget in value:
            if budget != "none" and not 0 < float(budget) < float("inf"):
                raise ValueError(f"a budget is a positive number or 'none', not {budget}")
        return value


@final
class Study(Section):
    """An experiment and the axes along which it is repeated."""

    experiment: Experiment
    axes: StudyAxes = StudyAxes()
