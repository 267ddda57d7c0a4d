"""A cell of a study as work to be done, here or in another process, and how it is done."""

import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

from rich.console import Console

from configs import Experiment, FedwardError, InputError

PATIENCE = 60.0  # seconds: a process that was killed may hold its folder's lock a moment longer
LOOK = 0.2
FAILURE = "failure.txt"


@final
@dataclass(frozen=True)
class Job:
    """A cell that is not finished.

    Attributes:
        name: the cell's.
        experiment: as it is run, with the engine that runs it.
        folder: where.
    """

    name: str
    experiment: Experiment
    folder: Path


class Watching(Protocol):
    """Somebody who is told how a grid gets on."""

    def started(self, job: Job) -> None:
        """A cell has begun, or is taken up again."""
        ...

    def lost(self, job: Job, why: str) -> None:
        """The worker of a cell has died, and the cell is going to be taken up again."""
        ...

    def ended(self, job: Job, error: str | None) -> None:
        """A cell has finished; with a sentence where it failed."""
        ...

    def look(self) -> None:
        """Some time has passed."""
        ...


def attempt(job: Job, console: Console | None = None) -> str | None:
    """Run a cell to its end, from where it was left; never raises but for an interruption.

    Args:
        job: the cell.
        console: where the run shows its progress; None is silent.

    Returns:
        None, or the sentence that says why it failed; where it is an error of ours, its traceback lies in the cell's
        folder.
    """
    from simulation.run import simulate  # here: it imports the engines, and one of them runs jobs

    try:
        _wait_until_free(job.folder)
        simulate(job.experiment, job.folder, resume=True, console=console)
    except FedwardError as error:
        return str(error)
    except Exception as error:
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / FAILURE).write_text(traceback.format_exc(), encoding="utf-8")
        return f"{type(error).__name__}: {error} (where it happened: {job.folder / FAILURE})"
    (job.folder / FAILURE).unlink(missing_ok=True)
    return None


def _wait_until_free(folder: Path) -> None:
    """Return when nobody holds the folder.

    Raises:
        InputError: if somebody still does after a while.
    """
    from simulation.folder import RunFolder

    until = time.monotonic() + PATIENCE
    while True:
        try:
            with RunFolder(folder).locked():
                return
        except InputError:
            if time.monotonic() > until:
                raise
            time.sleep(LOOK)
