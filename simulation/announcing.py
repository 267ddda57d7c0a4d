"""How much room the recorded traffic takes, said before a run starts."""

import math
import shutil
from pathlib import Path

from rich.console import Console

from configs import Experiment, InputError
from simulation.setup import Setup
from tasks.models import build

PER_VALUE = 12  # bytes: a float64 release and the float32 broadcast
WORTH_SAYING = 1e9


def announce_views(setup: Setup, folder: Path, console: Console) -> None:
    """Say how much the recorded views will take, before the start; refuse if the disk has no room.

    Raises:
        InputError: naming what to attack less of.
    """
    experiment = setup.experiment
    need = bytes_of_views(setup)
    free = shutil.disk_usage(folder).free
    rounds = len(experiment.attacked_rounds)
    if need > free:
        raise InputError(
            f"adversary.rounds: recording {rounds} rounds takes {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            f"set adversary.keep: sum, attack fewer rounds, or lower the rows of the attack's module."
        )
    if need > WORTH_SAYING:
        console.print(f"views of {rounds} attacked rounds will take about {need / 1e9:.1f} GB", highlight=False)


def bytes_of_views(setup: Setup) -> int:
    """Return about how many bytes the recorded traffic of a run takes."""
    experiment = setup.experiment
    settings = experiment.adversary
    hospitals = len(setup.deal.hospitals)
    agreed = sum(p.numel() for p in build(setup.task.spec).parameters())
    dimension = math.prod(setup.task.shape)
    sent = agreed + _rows(experiment, hospitals) * (dimension + 1) + dimension
    sources = 1 if experiment.training.secure_sum else hospitals
    rounds = 1 if settings.keep == "sum" else len(experiment.attacked_rounds)
    steps = len(experiment.attacked_rounds)  # of the global model, always kept one by one
    return PER_VALUE * (sent * rounds * sources + agreed * steps)


def _rows(experiment: Experiment, hospitals: int) -> int:
    """Return the rows of the module that is planted; at most one attack plants in a run."""
    settings = experiment.adversary
    own = hospitals if settings.imprint.per_hospital else 1
    rows = {
        "imprint": settings.imprint.rows * own,
        "trap_weights": settings.trap_weights.rows,
        "data_traps": settings.data_traps.rows,
    }
    return max((rows.get(name, 0) for name in settings.attacks), default=0)
