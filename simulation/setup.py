"""Everything a run needs before its first message, checked before anything is written."""

from dataclasses import dataclass
from typing import final

import numpy as np

import tasks
from clients.planning import Plan, plan_deal
from configs import Experiment, InputError
from server.central import central_plan
from simulation.seating import check_adversary
from tasks.base import Records, Splits, Task
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
        heldout_by_hospital: positions in `heldout` that belong to each hospital's site or deal; all, where the data
            are pooled.
        shares: the same for every hospital of the federation, also where the data are pooled or one trains alone:
            what the same people are compared on.
        plans: by hospital.
        fingerprint: of the dataset.
        notes: what was left out of the dataset and why, and what it cannot tell, a sentence each.
    """

    experiment: Experiment
    task: Task
    deal: Deal
    heldout: Records
    heldout_by_hospital: dict[str, list[int]]
    shares: dict[str, list[int]]
    plans: dict[str, Plan]
    fingerprint: str
    notes: tuple[str, ...] = ()


def prepare(experiment: Experiment, splits: Splits | None = None) -> Setup:
    """Load, deal and plan.

    Args:
        experiment: the run.
        splits: its dataset, where it is loaded already.

    Raises:
        InputError: for whatever makes the run impossible; nothing has been written to the run's folder then.
    """
    task = tasks.get(experiment.task)
    build(task.spec)  # what cannot be built is said before anything is read
    splits = task.load() if splits is None else splits
    training, heldout = splits.parts(experiment.task.holdout)
    dealt = deal_experiment(experiment, training)
    shares = _shares(experiment, [h.name for h in dealt.federation], heldout)
    names = [h.name for h in dealt.hospitals]
    _check_quorum(experiment, names)
    experiment.runtime.ray.sort(names, [h.name for h in dealt.federation])
    if experiment.adversary.placement != "none":
        check_adversary(experiment, task, names)
    if experiment.privacy.mechanism == "central":
        central_plan(experiment, len(names))  # a budget that no noise reaches is said before anything is written
    return Setup(
        experiment=experiment,
        task=task,
        deal=dealt,
        heldout=heldout,
        heldout_by_hospital=_of_places(names, shares, heldout),
        shares=shares,
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
    fewest = experiment.hospitals.smallest_sum
    if training.secure_sum and size < fewest:
        raise InputError(
            f"training.secure_sum: {size} hospitals a round, where hospitals.smallest_sum lets none be summed with "
            f"fewer than {fewest}; ask more hospitals, or lower it."
        )
    if training.stragglers >= 1:
        raise InputError("training.stragglers: with probability 1 no hospital ever answers; lower it.")


def _shares(experiment: Experiment, federation: list[str], heldout: Records) -> dict[str, list[int]]:
    """Say which held-out records stand for which hospital of the federation: its own site's, or an equal deal."""
    if experiment.hospitals.partition == "natural":
        return {name: np.flatnonzero(heldout.sites == name).tolist() for name in federation}
    if len(federation) == 1:
        return {federation[0]: list(range(len(heldout)))}
    settings = experiment.hospitals.model_copy(update={"max_records": None, "min_units": 1, "only": None})
    try:
        parts = deal(heldout, settings, experiment.seed)
    except InputError:  # fewer held-out units than hospitals: utility is global only
        return {name: [] for name in federation}
    position = {int(row): i for i, row in enumerate(heldout.rows)}
    return {h.name: sorted(position[int(row)] for row in h.records.rows) for h in parts.hospitals}


def _of_places(places: list[str], shares: dict[str, list[int]], heldout: Records) -> dict[str, list[int]]:
    """Return each place's share; a place that is none of the federation's hospitals (`pooled`) has all of it."""
    return {name: shares[name] if name in shares else list(range(len(heldout))) for name in places}
