"""What of a study can run, and what a reader has to know: settled before the first run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import tasks
from clients.planning import plans
from configs import Experiment, InputError, Study
from configs.experiment import Budget
from configs.sections import PRICED, Mechanism
from server.central import central_plan
from simulation.seating import check_adversary
from simulation.setup import prepare
from simulation.study import Cell, Federation, Federations, Refused, draft
from tasks.base import Splits


@final
@dataclass(frozen=True)
class Outline:
    """A study, looked over.

    Attributes:
        cells: what runs, in the order of the table.
        refused: what cannot be, and why.
        notes: what the settings do not show: deltas too large for the data, and cells that nobody attacks.
        fingerprint: of the dataset.
    """

    cells: tuple[Cell, ...]
    refused: tuple[Refused, ...]
    notes: tuple[str, ...]
    fingerprint: str


def outline(study: Study) -> Outline:
    """Look a study over: every deal is made and every noise calibrated, nothing is run or written.

    Raises:
        InputError: if the data cannot be read or dealt, the adversary cannot sit where the experiment puts it, or
            none of the cells can run.
    """
    base, federations = study.experiment, Federations(study.experiment)
    seeds = study.axes.seeds or (base.seed,)
    known = {seed: federations.of(seed) for seed in seeds}
    if base.adversary.placement != "none":
        check_adversary(base, tasks.get(base.task), list(known[seeds[0]].units))
    found, refused = draft(study, federations)
    reasons = {(r.mechanism, r.budget): r for r in refused}
    for group in _groups(found).values():
        for cell, why in _why_not(group, known[group[0].seed], federations.splits):
            if why:
                reasons.setdefault((cell.mechanism, cell.budget), Refused(cell.mechanism, cell.budget, why))
    kept = tuple(cell for cell in found if (cell.mechanism, cell.budget) not in reasons)
    if not kept:
        raise InputError(next(iter(reasons.values())).why)
    return Outline(
        cells=kept,
        refused=tuple(reasons.values()),
        notes=(*_delta_notes(base, kept, known), *_unattacked(base, kept)),
        fingerprint=known[seeds[0]].fingerprint,
    )


def _groups(found: Sequence[Cell]) -> dict[tuple[Mechanism, int], list[Cell]]:
    """Return the cells by mechanism and seed: within a group they differ in nothing but their noise."""
    groups: dict[tuple[Mechanism, int], list[Cell]] = {}
    for cell in found:
        groups.setdefault((cell.mechanism, cell.seed), []).append(cell)
    return groups


def _why_not(group: Sequence[Cell], federation: Federation, splits: Splits) -> Iterator[tuple[Cell, str]]:
    """Say for each cell of a group why it cannot run; an empty sentence where it can."""
    try:
        prepare(group[0].experiment, splits)
        all_of_them = ""
    except InputError as error:
        all_of_them = str(error)
    priced: dict[Budget, str] = {}
    for cell in group:
        if cell.budget not in priced:  # hospitals that train alone are planned together
            priced[cell.budget] = _unpriced(cell.experiment, federation)
        own = priced[cell.budget]
        # What the first cell alone lacks is its own noise; anything else, the whole group lacks.
        yield cell, own or ("" if all_of_them == priced[group[0].budget] else all_of_them)


def _unpriced(experiment: Experiment, federation: Federation) -> str:
    """Return why no noise can be planned; empty where it can."""
    units, records = federation.units, federation.records
    if experiment.privacy.mechanism == "pooled":
        units, records = {"pooled": sum(units.values())}, {"pooled": sum(records.values())}
    try:
        plans(experiment, units, records)
        if experiment.privacy.mechanism == "central":
            central_plan(experiment, len(units))
    except InputError as error:
        return str(error)
    return ""


def _delta_notes(base: Experiment, found: Sequence[Cell], known: Mapping[int, Federation]) -> Iterator[str]:
    """Say where delta is so large that giving one record away whole would be within the promise."""
    delta = base.privacy.delta
    claiming: dict[Mechanism, None] = {c.mechanism: None for c in found if c.mechanism in PRICED and _claims(c)}
    for mechanism in claiming:
        largest: dict[str, int] = {}
        for federation in known.values():
            for name, n in _protected(mechanism, federation, base.unit).items():
                largest[name] = max(n, largest.get(name, 0))
        over = {name: n for name, n in largest.items() if delta * n >= 1}
        if over:
            worst = max(over, key=lambda name: over[name])
            more = f" and {len(over) - 1} more" if len(over) > 1 else ""
            yield (
                f"privacy.delta: {delta:g} is not below 1/{over[worst]} of {worst}{more} under '{mechanism}': giving "
                f"one away whole would be within the promise; lower it."
            )


def _claims(cell: Cell) -> bool:
    return cell.experiment.privacy.epsilon != "none"


def _protected(mechanism: Mechanism, federation: Federation, unit: str) -> dict[str, int]:
    """Return how many stand behind one promise, by whose they are."""
    if mechanism == "central":
        return {f"the {len(federation.units)} hospitals": len(federation.units)}
    if mechanism == "pooled":
        total = sum(federation.units.values())
        return {f"the pooled {unit}s": total}
    return {f"the {unit}s at {name}": n for name, n in federation.units.items()}


def _unattacked(base: Experiment, found: Sequence[Cell]) -> Iterator[str]:
    """Say under which mechanisms nobody sits, or fewer attacks can be made, though the experiment names them."""
    wanted = base.adversary
    if wanted.placement == "none":
        return
    for mechanism in dict.fromkeys(c.mechanism for c in found):
        own = next(c.experiment.adversary for c in found if c.mechanism == mechanism)
        if mechanism == "alone":
            yield "Under 'alone' nothing leaves a hospital, so nobody attacks it."
        elif own.placement == "none":
            yield (
                f"Under '{mechanism}' nobody can sit at placement '{wanted.placement}' with these attacks, so it is "
                f"not attacked."
            )
        elif set(own.attacks) != set(wanted.attacks):
            lost = ", ".join(sorted(set(wanted.attacks) - set(own.attacks)))
            yield f"Under '{mechanism}' the placement is '{own.placement}', from where {lost} cannot be made."
