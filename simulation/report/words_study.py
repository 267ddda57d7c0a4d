"""What a study found: its runs grouped by mechanism and budget, in sentences."""

from dataclasses import dataclass
from typing import Any, final

from simulation.measures import Measure, leading
from simulation.report import phrases
from simulation.report.outcomes import Outcome, outcomes
from simulation.report.words_attacks import attack_words
from simulation.report.words_budget import protection_words

Summary = dict[str, Any]


@final
@dataclass(frozen=True)
class Group:
    """All runs of a study with one mechanism and one budget; they differ in their seed, or in who trained alone.

    Attributes:
        mechanism: as in the settings.
        budget: epsilon, or None where the study names none.
        label: for people.
        cells: the study's own rows.
    """

    mechanism: str
    budget: float | None
    label: str
    cells: tuple[Summary, ...]

    @property
    def summaries(self) -> list[Summary]:
        """The summaries of the runs."""
        return [cell["summary"] for cell in self.cells]

    @property
    def outcomes(self) -> list[Outcome]:
        """What the attacks achieved, all seeds together."""
        return outcomes([row for s in self.summaries for row in s["attacks"]])

    @property
    def measure(self) -> Measure:
        """The leading metric, of the first run."""
        return leading(self.summaries[0])

    @property
    def utility(self) -> list[float]:
        """The leading metric of every run that has it."""
        return self.metrics(self.measure.key)

    def metrics(self, name: str) -> list[float]:
        """Return a metric of every run that has it."""
        values = [(s.get("metrics") or {}).get(name) for s in self.summaries]
        return [float(v) for v in values if v is not None]


def groups_of(study: Summary) -> list[Group]:
    """Group a study's cells by mechanism and budget: without a budget first, then large before small."""
    found: dict[tuple[str, float | None], list[Summary]] = {}
    for cell in study["cells"]:
        number = None if cell["budget"] in (None, "none") else float(cell["budget"])
        found.setdefault((str(cell["mechanism"]), number), []).append(cell)
    order = list(phrases.MECHANISMS)

    def place(key: tuple[str, float | None]) -> tuple[float, int]:
        mechanism, number = key
        at = order.index(mechanism) if mechanism in order else len(order)
        return (-(number if number is not None else float("inf")), at)

    several = len({mechanism for mechanism, number in found if number is not None}) > 1
    return [Group(*key, phrases.setting(*key, several=several), tuple(found[key])) for key in sorted(found, key=place)]


def group_words(group: Group) -> list[str]:
    """Return what was promised to one group and what leaked, its seeds together; its utility stands in the tables."""
    first = group.summaries[0]
    return [*protection_words(first), *attack_words(group.outcomes, first)]
