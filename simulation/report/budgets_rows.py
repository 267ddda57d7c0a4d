"""The rows of a study of budgets, as the report reads them: settings with their names, figures with their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

from configs import InputError
from simulation.comparing_quiet import quiet
from simulation.measures import Measure, leading
from simulation.report import phrases
from simulation.report.budgets_numbers import Figures, Row, number
from simulation.report.numbers import percent

FEDERATED = ("local", "distributed", "central")
# From the one that promises single images most to the one that promises nothing; what stands first is shown first.
ORDER = ("distributed", "local", "central", "pooled", "alone", "none", "clip_only", "noise_only")

# What an attack may achieve, as it stands after "images".
GOALS: Mapping[str, str] = MappingProxyType(
    {
        "copied": "copied (SSIM above 0.9)",
        "visible": "made visible",
        "identified": "recognised among decoys",
        "informed": "recognised when shown the candidates",
        "members": "told apart from images that were not used",
        "labels": "counted by their class",
    }
)


# The same in a table's cell.
BRIEF: Mapping[str, str] = MappingProxyType(
    {
        "copied": "copied",
        "visible": "visible",
        "identified": "recognised",
        "informed": "recognised if shown",
        "members": "membership",
        "labels": "labels",
    }
)


@final
@dataclass(frozen=True)
class Setting:
    """One mechanism at one budget, its seeds together.

    Attributes:
        row: of `summary["settings"]`.
        several: whether more than one mechanism of the study has budgets.
    """

    row: Row
    several: bool

    @property
    def mechanism(self) -> str:
        """As in the settings."""
        return str(self.row["mechanism"])

    @property
    def budget(self) -> float | None:
        """Epsilon that was asked for; None without one."""
        return number(self.row["budget"])

    @property
    def label(self) -> str:
        """For people: 'ε = 8 (noise at each hospital)'."""
        return phrases.setting(self.mechanism, self.budget, several=self.several)

    @property
    def utility(self) -> Figures:
        """On all held-out records."""
        return Figures.of(self.row["utility"])

    @property
    def cost(self) -> Figures:
        """Utility less that of federated training without privacy."""
        return Figures.of(self.row["against_none"], "difference")

    @property
    def attack(self) -> Row | None:
        """What achieved most over its null; None where nothing was tested."""
        return self.row["attack"]

    @property
    def loud(self) -> list[Row]:
        """The attacks above their null, all tests of the setting allowed for."""
        return [attack for attack in self.row["attacks"] if attack["above_null"]]

    @property
    def quiet(self) -> bool:
        """Whether attacks were tested that could have been noticed, and none was: the rule of the recommendation."""
        return quiet(self.row["attacks"])

    @property
    def epsilon(self) -> float | None:
        """What the worst-off pays, at most; None without a claim."""
        return self.row["epsilon"]["upper"] if self.row["epsilon"] else None


@final
class Budgets:
    """A study's settings, and what was compared between them.

    Raises:
        InputError: if the summary compares nothing: it was written by an earlier version.
    """

    def __init__(self, study: Row) -> None:
        if "settings" not in study:
            raise InputError(
                "the study's summary.json compares no settings; run `fedward budgets` with --resume and the same --out "
                "to compare its finished runs."
            )
        self.study = study
        rows: Sequence[Row] = study["settings"]
        self.several = len({row["mechanism"] for row in rows if number(row["budget"]) is not None}) > 1
        self.settings = sorted((Setting(row, self.several) for row in rows), key=_place)

    @property
    def first(self) -> Row:
        """The summary of the first run."""
        return self.study["cells"][0]["summary"]

    @property
    def measure(self) -> Measure:
        """The leading metric."""
        return leading(self.first)

    @property
    def tolerance(self) -> float:
        """How much of the leading metric privacy may cost."""
        return float(self.study["recommended"]["tolerance"])

    @property
    def heldout(self) -> str:
        """How many records were kept aside: '1,002 images'."""
        return phrases.heldout(self.first)

    @property
    def seeds(self) -> int:
        """The most seeds that a setting was run with."""
        return max((int(s.row["seeds"]) for s in self.settings), default=0)

    @property
    def hospitals(self) -> int:
        """How many there are."""
        return max((len(s.row["hospitals"]) for s in self.settings), default=0)

    def get(self, mechanism: str, budget: float | str | None = None) -> Setting | None:
        """Return a setting; None where it was not run."""
        wanted = number(budget)
        return next((s for s in self.settings if s.mechanism == mechanism and s.budget == wanted), None)

    @property
    def attacked(self) -> bool:
        """Whether any attack was tested in any setting."""
        return any(s.attack for s in self.settings)

    def of(self, mechanism: str) -> list[Setting]:
        """Return a mechanism's settings with a budget, the smallest first."""
        own = [s for s in self.settings if s.mechanism == mechanism and s.budget is not None]
        return sorted(own, key=lambda s: s.budget or 0.0)

    @property
    def mechanisms(self) -> list[str]:
        """The mechanisms that were run, in the order in which they are shown."""
        return [m for m in ORDER if any(s.mechanism == m for s in self.settings)]

    @property
    def recommended(self) -> Setting | None:
        """The recommended setting; None where there is none."""
        found = self.study["recommended"]
        return None if found["budget"] is None else self.get(found["mechanism"], found["budget"])

    @property
    def candidates(self) -> list[str]:
        """The mechanisms of which one may be recommended: federated ones with budgets, pooled data without any."""
        return [m for m in FEDERATED if self.of(m)] or [m for m in ("pooled",) if self.of(m)]

    @property
    def shown(self) -> Setting:
        """The setting that the first screen is about.

        The recommended one. Where there is none, what came closest: of the candidates' settings in which no attack was
        above its null the one of the highest utility, else the one of the smallest budget, else any.
        """
        priced = [s for m in self.candidates for s in self.of(m)]
        quiet = [s for s in priced if s.quiet and s.utility.estimate is not None]
        best = max(quiet, key=lambda s: s.utility.estimate or 0.0, default=None)
        strict = min(priced, key=lambda s: (s.budget or 0.0, ORDER.index(s.mechanism)), default=None)
        return self.recommended or best or strict or self.settings[0]


def rate(attack: Row) -> str:
    """Write how often an attack got what it wanted: '3 of 120 (2.5%, 95% interval 0.5% to 7.1%)'."""
    ends = f"95% interval {percent(attack['low'])} to {percent(attack['high'])}"
    return f"{attack['hits']:,} of {attack['targets']:,} ({percent(attack['rate'])}, {ends})"


def goal(attack: Row) -> str:
    """Return what an attack achieves, as it stands after 'images'."""
    return GOALS.get(attack["goal"], str(attack["goal"]))


def _place(setting: Setting) -> tuple[float, int]:
    """Without a budget first, then large before small; at equal budgets by mechanism."""
    size = setting.budget if setting.budget is not None else float("inf")
    return -size, ORDER.index(setting.mechanism) if setting.mechanism in ORDER else len(ORDER)
