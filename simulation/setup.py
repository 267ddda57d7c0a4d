"""Everything a run needs before its first message, checked before anything is written."""

from dataclasses import dataclass
from typing import final

import numpy as np

import tasks
from clients.planning import Plan, plan_deal
from configs import Experiment, InputError
from simulation.scoring.similarity import WINDOW
from tasks.base import Records, Task
from tasks.dealing import deal_experiment
from tasks.models import build
from tasks.partition import Deal, deal


@final
@dataclass(frozen=True)
class Setup:
    """A run's data and plans.

    Attributes:
        experiment: the run.
        task: its task.
        deal: training records by hospital.
        heldout: the records that utility is measured on.
        heldout_by_hospital: positions in `heldout` that belong to each hospital's site or deal.
        plans: by hospital.
        fingerprint: of the dataset.
        notes: what was left out of the dataset and why, and what it cannot tell, a sentence each.
    """

    experiment: Experiment
    task: Task
    deal: Deal
    heldout: Records
    heldout_by_hospital: dict[str, list[int]]
    plans: dict[str, Plan]
    fingerprint: str
    notes: tuple[str, ...] = ()


def prepare(experiment: Experiment) -> Setup:
    """Load, deal and plan.

    Raises:
        InputError: for whatever makes the run impossible; nothing has been written to the run's folder then.
    """
    task = tasks.get(experiment.task)
    build(task.spec)  # what cannot be built is said before anything is read
    splits = task.load()
    training, heldout = splits.parts(experiment.task.holdout)
    dealt = deal_experiment(experiment, training)
    names = [h.name for h in dealt.hospitals]
    _check_quorum(experiment, names)
    if experiment.adversary.placement != "none":
        _check_adversary(experiment, task)
    return Setup(
        experiment=experiment,
        task=task,
        deal=dealt,
        heldout=heldout,
        heldout_by_hospital=_heldout_parts(experiment, dealt, heldout),
        plans=plan_deal(experiment, dealt),
        fingerprint=splits.fingerprint,
        notes=splits.notes,
    )


def _check_quorum(experiment: Experiment, names: list[str]) -> None:
    training = experiment.training
    size = training.cohort or len(names)
    if size > len(names):
        raise InputError(f"training.cohort: {size} hospitals a round, but there are only {len(names)}; lower it.")
    if training.quorum > 1 and (training.quorum > size or training.quorum != int(training.quorum)):
        raise InputError(
            f"training.quorum: {training.quorum:g} releases can never come from {size} hospitals a round; "
            f"set a whole number up to {size}, or a share of the cohort up to 1."
        )
    if training.stragglers >= 1:
        raise InputError("training.stragglers: with probability 1 no hospital ever answers; lower it.")


def _check_adversary(experiment: Experiment, task: Task) -> None:
    from server.adversary.base import MissingCapabilityError, require
    from server.adversary.placements import placement
    from server.adversary.registry import attack

    settings = experiment.adversary
    if min(task.shape[1:]) < WINDOW:
        raise InputError(
            f"adversary.placement: attacks are scored in windows of {WINDOW} pixels a side, and the images have "
            f"{' x '.join(map(str, task.shape[1:]))}; enlarge them, or set it to none."
        )
    chair = placement(settings.placement)
    for name in settings.attacks:
        try:
            require(attack(name, settings), settings.placement, chair.capabilities)
        except MissingCapabilityError as error:
            raise InputError(f"adversary.attacks: {error}; choose another placement or attack.") from error
    if settings.public_data == "none" and "imprint" in settings.attacks:
        raise InputError(
            "adversary.public_data: the imprint attack sets its bins at public quantiles and needs public data; "
            "set it to phantom or same_distribution."
        )


def _heldout_parts(experiment: Experiment, dealt: Deal, heldout: Records) -> dict[str, list[int]]:
    """Say which held-out records stand for which hospital: its own site's, or an equal deal."""
    names = [h.name for h in dealt.hospitals]
    if len(names) == 1:
        return {names[0]: list(range(len(heldout)))}
    if experiment.hospitals.partition == "natural":
        return {name: np.flatnonzero(heldout.sites == name).tolist() for name in names}
    settings = experiment.hospitals.model_copy(update={"max_records": None, "min_units": 1})
    try:
        parts = deal(heldout, settings, experiment.seed)
    except InputError:  # fewer held-out units than hospitals: utility is global only
        return {name: [] for name in names}
    position = {int(row): i for i, row in enumerate(heldout.rows)}
    return {h.name: sorted(position[int(row)] for row in h.records.rows) for h in parts.hospitals}
