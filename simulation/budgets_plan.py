"""Planning without training: noise, prices and bounds of every mechanism and budget of a study."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from rich.console import Console

from configs import InputError, Study
from simulation.budgets_plan_equal import equal_noise_rows
from simulation.budgets_plan_noise import noise_on_mean
from simulation.budgets_plan_rows import PlanRow, rows_of
from simulation.budgets_plan_table import row_content, show_equal, show_rows
from simulation.budgets_plan_terms import protection, settings_of
from simulation.cli_options import print_json
from simulation.study import Federations

MOST_HOSPITALS = 100_000
WORDS = (
    "epsilon is exact, per unit that is protected, for all steps together; opacus' is what its RDP accountant prints. "
    "Noise multipliers are of the clipping norm; the noise on the mean is its deviation per coordinate in one step. "
    "Found at most: bounds the probability with which anybody from whom it protects picks the right one of as many "
    "candidates as the hospital has units (pooled: as there are units, central: as there are hospitals). "
    "a / b / c: a smallest, a median and a largest hospital."
)


@final
@dataclass(frozen=True)
class StudyPlan:
    """A study's plan.

    Attributes:
        units: of every hospital.
        unit: what is counted.
        rows: one per mechanism and budget.
        equal_noise: see :func:`equal_noise_rows`.
        notes: sentences, each once.
    """

    units: Mapping[str, int]
    unit: str
    rows: tuple[PlanRow, ...]
    equal_noise: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return one JSON document with every hospital of every row."""
        return {
            "kind": "plan",
            "hospitals": len(self.units),
            "units": sum(self.units.values()),
            "unit": self.unit,
            "rows": [row_content(r) for r in self.rows],
            "equal_noise": list(self.equal_noise),
            "notes": list(self.notes),
        }


def plan_study(study: Study, sizes: Mapping[str, int] | None = None) -> StudyPlan:
    """Plan every mechanism and budget of a study; nothing is trained.

    Up to 16 different sizes are calibrated one by one, as the hospitals themselves do; with more, hospitals of like
    size get the noise of the smallest of them, and a note says by how much that may be too much.

    Args:
        study: mechanisms and budgets; seeds do not matter, except that data are dealt by the experiment's.
        sizes: units of every hospital by name; None: those of the study's data, which are read and dealt.

    Raises:
        InputError: for sizes that are none, for a batch larger than the data, or if no setting can be.
    """
    units = dict(Federations(study.experiment).of(study.experiment.seed).units if sizes is None else sizes)
    if not units or min(units.values()) < 1 or len(units) > MOST_HOSPITALS:
        raise InputError(f"fedward budgets --plan: give 1 to {MOST_HOSPITALS:,} hospitals of at least one unit each.")
    cohort = study.experiment.training.cohort
    if cohort is not None and cohort > len(units):
        raise InputError(f"training.cohort: {cohort} hospitals a round, but there are only {len(units)}; lower it.")
    rows = rows_of(study, list(settings_of(study)), units)
    budgets = sorted({r.setting.budget for r in rows if isinstance(r.setting.budget, float)})
    equal = equal_noise_rows(study.experiment, units, budgets)
    notes = [*dict.fromkeys(note for row in rows for note in row.notes), *_more(rows)]
    return StudyPlan(units, study.experiment.unit, tuple(rows), tuple(equal), tuple(notes))


def plan_command(study: Study, sizes: Mapping[str, int] | None, console: Console, as_json: bool) -> None:
    """Print a study's plan: as JSON on standard output, or as tables on the console."""
    found = plan_study(study, sizes)
    if as_json:
        print_json(found.to_json())
        return
    total = sum(found.units.values())
    console.print(f"{len(found.units):,} hospitals, {total:,} {found.unit}s.", highlight=False)
    show_rows(list(found.rows), console)
    show_equal(list(found.equal_noise), console)
    for note in (WORDS, *found.notes):
        console.print(note, highlight=False)


def _more(rows: list[PlanRow]) -> list[str]:
    most = max(rows, key=lambda row: row.more)
    if most.more == 0.0:
        return []
    return [
        f"Hospitals of like size get the noise of the smallest of them: at most {math.ceil(1000 * most.more) / 10:g} % "
        f"more than each needs (at epsilon {most.setting.budget:g})."
    ]


__all__ = ["StudyPlan", "equal_noise_rows", "noise_on_mean", "plan_command", "plan_study", "protection"]
