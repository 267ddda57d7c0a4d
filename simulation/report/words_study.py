"""What a study found: its runs grouped by mechanism and budget, in sentences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from simulation.measures import Measure, leading
from simulation.report import phrases
from simulation.report.numbers import budget, decimal, listed
from simulation.report.outcomes import Level, Outcome, level, outcomes
from simulation.report.words_attacks import attack_words
from simulation.report.words_budget import CLIPPING_ALONE, EMPTY_ABOVE, NO_FORMAL_SAFETY, protection_words

Summary = dict[str, Any]


@final
@dataclass(frozen=True)
class Group:
    """All runs of a study with one mechanism and one budget; they differ in their seed.

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
    def where(self) -> str:
        """The label as it stands in a sentence: 'at ε = 8', 'with clipping only'."""
        return f"with {self.label}" if self.budget is None else f"at {self.label}"

    @property
    def summaries(self) -> list[Summary]:
        """The summaries of the runs."""
        return [cell["summary"] for cell in self.cells]

    @property
    def outcomes(self) -> list[Outcome]:
        """What the attacks achieved, all seeds together."""
        return outcomes([row for s in self.summaries for row in s["attacks"]])

    @property
    def level(self) -> Level:
        """The worst that the attacks achieved."""
        return level(self.outcomes)

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
    return [Group(*key, _label(*key, several), tuple(found[key])) for key in sorted(found, key=place)]


def findings(groups: Sequence[Group]) -> list[str]:
    """Return what the groups show when they are held side by side."""
    words: list[str] = []
    leaky = [g.where for g in groups if g.level in ("copied", "recognised", "informed")]
    quiet = [g for g in groups if g.level == "quiet"]
    if leaky:
        words.append(f"The attacks got more than guessing gives {listed(leaky)}.")
    budgets = [g for g in quiet if g.budget is not None]
    if budgets:
        best = max(budgets, key=lambda g: g.budget or 0.0)
        reached = best.utility
        there = f" The model's {best.measure.label} there is {decimal(sum(reached) / len(reached))}."
        working = there if reached else ""
        words.append(
            "The largest budget tried at which no attack did measurably better than guessing (the null) is "
            f"{best.label}.{working} Between the budgets that were tried nothing was measured."
        )
    elif leaky:
        words.append("At no budget that was tried did all attacks fail.")
    if any(g.mechanism == "clip_only" for g in groups):
        words.append(CLIPPING_ALONE)
    if any(g.budget is not None and g.budget >= EMPTY_ABOVE for g in groups):
        words.append(NO_FORMAL_SAFETY)
    return words


def group_words(group: Group) -> list[str]:
    """Return utility and leakage of one group, its seeds together."""
    first = group.summaries[0]
    words = [w for w in protection_words(first) if w not in (CLIPPING_ALONE, NO_FORMAL_SAFETY)]
    reached = group.utility
    if reached:
        several = len(reached) > 1
        seeds = f" ({decimal(min(reached))} to {decimal(max(reached))} over {len(reached)} seeds)" if several else ""
        words.append(
            f"{group.measure.label} {decimal(sum(reached) / len(reached))}{seeds} on {phrases.heldout(first)} that no "
            f"hospital trained on; {decimal(group.measure.guess)} is guessing."
        )
    return words + attack_words(group.outcomes, first)


def leading_words(groups: Sequence[Group]) -> str:
    """Return one sentence that names where images leaked and where not, for the top of the page."""
    by_level: dict[Level, list[str]] = {}
    for group in groups:
        by_level.setdefault(group.level, []).append(group.where)
    said: dict[Level, str] = {
        "copied": "images could be copied",
        "recognised": "images could be recognised",
        "informed": "someone who already holds an image could sometimes tell that it was used",
        "quiet": "no attack that was tried did measurably better than guessing",
        "untested": "no attack was tried",
    }
    parts = [f"{said[key]} {listed(by_level[key])}" for key in said if key in by_level]
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def _label(mechanism: str, number: float | None, several: bool) -> str:
    if number is None:
        return phrases.mechanism(mechanism)
    name = f"ε = {budget(number)}"
    return f"{name} ({phrases.mechanism(mechanism)})" if several else name
