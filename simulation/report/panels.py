"""One setting of a study, or one run of a comparison, in a panel: what it reaches, what the attacks got, pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from simulation.measures import leading
from simulation.report import phrases
from simulation.report.budgets_rows import Setting
from simulation.report.gallery import MOST, Strip, strips, why_none
from simulation.report.loading import RunFiles
from simulation.report.numbers import decimal
from simulation.report.outcomes import Outcome, level, outcomes
from simulation.report.words_attacks import VERDICTS, facts
from simulation.report.words_study import Group


@final
@dataclass(frozen=True)
class Panel:
    """One setting of a study, or one run of a comparison, as the first screen shows it."""

    label: str
    level: str
    verdict: str
    utility: str
    facts: tuple[tuple[str, str, str], ...]
    strip: Strip | None
    missing: str


def setting_panel(group: Group, setting: Setting, run: RunFiles, targets: int) -> Panel:
    """Return the panel of a study's setting; the pictures are of its first run."""
    measure = group.measure
    works = f"{measure.label} {setting.utility.said} on {phrases.heldout(run.summary)}"
    return _panel(group.label, group.outcomes, works, run, targets)


def run_panel(name: str, run: RunFiles, targets: int) -> Panel:
    """Return the panel of a run."""
    measure, on = leading(run.summary), phrases.heldout(run.summary)
    value = measure.value
    works = "" if value is None else f"{measure.label} {decimal(value)} on {on}; guessing {decimal(measure.guess)}"
    return _panel(name, outcomes(run.summary["attacks"]), works, run, targets)


def columns_of(panels: int) -> int:
    """Return how many panels stand side by side: rows as even as they can be, at most four in one."""
    if panels <= 4:
        return max(1, panels)
    return min((3, 4), key=lambda n: (-panels % n, n))


def targets_of(columns: int) -> int:
    """Return how many images fit into one of so many panels."""
    return {1: MOST, 2: 6, 3: 4}.get(columns, 3)


def _panel(label: str, found: Sequence[Outcome], works: str, run: RunFiles, targets: int) -> Panel:
    reached = level(found)
    lines = tuple(facts(found[0])) if found else ()
    shown = strips(run, targets)
    strip = shown[0] if shown else None
    return Panel(label, reached, VERDICTS[reached][0], works, lines, strip, why_none(run))
