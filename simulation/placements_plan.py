"""What a study of placements runs: which federated runs, and from which seat each attack watches which of them."""

from dataclasses import dataclass
from functools import partial
from typing import final, get_args

from pydantic import ValidationError

from configs import Experiment, InputError, Study
from configs.adversary import AttackName, Placement
from configs.experiment import SUMMED_ONLY
from server.adversary.base import BROADCAST, START, Attack, MissingCapabilityError, require
from server.adversary.placements import placement as seat_of
from server.adversary.registry import attack
from simulation.seating import check_adversary
from simulation.setup import prepare
from simulation.study import Cell, cells, sentence
from tasks.base import Task

PLACEMENT_NAMES: tuple[Placement, ...] = tuple(name for name in get_args(Placement) if name != "none")
ATTACK_NAMES: tuple[AttackName, ...] = get_args(AttackName)
NOT_SO = "not with these settings"


@final
@dataclass(frozen=True)
class Traffic:
    """One federated run whose messages are recorded, and watched from one or more seats.

    Attributes:
        name: of its folder: the setting, then what is sent (`watched`, `sum`, `planted-imprint`, ...).
        experiment: as it is run.
    """

    name: str
    experiment: Experiment


@final
@dataclass(frozen=True)
class Watch:
    """How an attempt is made.

    Attributes:
        experiment: with the adversary in its seat.
        traffic: the run that is watched from there.
    """

    experiment: Experiment
    traffic: Traffic


@final
@dataclass(frozen=True)
class Attempt:
    """One attack from one seat at one setting: a cell of the table for one seed.

    Attributes:
        cell: the setting and the seed.
        placement, attack: their names.
        watch: how it is made; None where it cannot be.
        reason: why it cannot be, in words; empty where it can.
        short: the same in a few words.
    """

    cell: Cell
    placement: Placement
    attack: AttackName
    watch: Watch | None
    reason: str = ""
    short: str = ""


def plan(study: Study) -> list[Attempt]:
    """Return every attempt of a study; nothing is run or written.

    Placements that change nothing share one run per setting and seed: it is recorded once and watched from each
    seat. The placements of a secure sum share another. Every attack that changes the model that is sent has a run of
    its own, so that no attack works on a model that another one has bent. The secure sum runs exactly where a
    placement watches it, whatever `training.secure_sum` says.

    Raises:
        InputError: if the study could not run even without an adversary, or an axis names nobody's seat.
    """
    placements: tuple[Placement, ...] = study.axes.placements or PLACEMENT_NAMES
    if "none" in placements:
        raise InputError("study.placements: at 'none' nobody sits; leave it out.")
    if "alone" in (study.axes.mechanisms or (study.experiment.privacy.mechanism,)):
        raise InputError("study.mechanisms: under 'alone' nothing leaves a hospital, so nobody sits anywhere; drop it.")
    found: list[Attempt] = []
    for cell in cells(study):
        setup = prepare(_honest(cell.experiment))
        hospitals = [h.name for h in setup.deal.hospitals]
        runs: dict[str, str] = {}  # why a run cannot start, by its name
        for name in placements:
            for attacked in study.axes.attacks or ATTACK_NAMES:
                found.append(_attempt(cell, name, attacked, setup.task, hospitals, runs))
    return found


def _attempt(
    cell: Cell, placement: Placement, name: AttackName, task: Task, hospitals: list[str], runs: dict[str, str]
) -> Attempt:
    """Return an attempt with its run, or with the reason why it cannot be."""
    refused = partial(Attempt, cell, placement, name, None)
    seat = seat_of(placement)
    tried = attack(name, cell.experiment.adversary)
    try:
        require(tried, placement, seat.capabilities)
    except MissingCapabilityError as error:
        return refused(str(error), f"needs {' and '.join(sorted(tried.needs - seat.capabilities))}")
    least = cell.experiment.hospitals.smallest_sum
    if placement in SUMMED_ONLY and len(hospitals) < least:
        few = (
            f"hospitals refuse to be summed with fewer than {least} (hospitals.smallest_sum); here are {len(hospitals)}"
        )
        return refused(few, "too few hospitals for a sum")
    try:
        seated = _seated(cell.experiment, placement, (name,))
        check_adversary(seated, task, hospitals)
        traffic = _traffic(cell, placement, tried, name)
    except ValidationError as error:
        return refused(sentence(error), NOT_SO)
    except InputError as error:
        return refused(str(error), NOT_SO)
    if traffic.name not in runs:
        runs[traffic.name] = _why_not(traffic.experiment)
    if runs[traffic.name]:
        return refused(runs[traffic.name], NOT_SO)
    return Attempt(cell, placement, name, Watch(seated, traffic))


def _traffic(cell: Cell, placement: Placement, tried: Attack, name: AttackName) -> Traffic:
    """Return the run that an attack from a seat watches."""
    summed = placement in SUMMED_ONLY or _only_summed(cell.experiment)
    if START in tried.needs:
        return Traffic(f"{cell.name}/started-{name}", _seated(cell.experiment, "release", (name,)))
    if BROADCAST in tried.needs:
        liar: Placement = "malicious_aggregate" if summed else "malicious_server"
        return Traffic(f"{cell.name}/{'sum-' * summed}planted-{name}", _seated(cell.experiment, liar, (name,)))
    if summed:
        return Traffic(f"{cell.name}/sum", _seated(cell.experiment, "aggregate", ()))
    return Traffic(f"{cell.name}/watched", _seated(cell.experiment, "server", ()))


def _why_not(experiment: Experiment) -> str:
    try:
        prepare(experiment)
    except InputError as error:
        return str(error)
    return ""


def _seated(experiment: Experiment, placement: Placement, attacks: tuple[AttackName, ...]) -> Experiment:
    """Return the experiment with the adversary in a seat, and a secure sum where that is what it watches."""
    settings = experiment.adversary
    seats = placement in ("wire", "hospital") or settings.public_data == "other_hospitals"
    return experiment.updated(
        training={"secure_sum": placement in SUMMED_ONLY or _only_summed(experiment)},
        adversary={
            "placement": placement,
            "attacks": attacks,
            "seat": settings.seat if seats else None,
            "colluders": settings.colluders if placement == "hospital" else 0,
        },
    )


def _honest(experiment: Experiment) -> Experiment:
    return experiment.updated(
        training={"secure_sum": _only_summed(experiment)},
        adversary={"placement": "none", "seat": None, "colluders": 0},
    )


def _only_summed(experiment: Experiment) -> bool:
    """Whether the mechanism has no run without a secure sum."""
    return experiment.privacy.mechanism == "distributed"
