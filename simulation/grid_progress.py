"""Progress of a grid for people: a line per running cell and one for all in a terminal, a line per end elsewhere."""

import time
from dataclasses import dataclass
from typing import final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from server.events import read_events
from simulation.cell_jobs import Job

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_LINES = 60.0


@final
@dataclass
class _Running:
    """A cell at work, as far as its event log tells."""

    job: Job
    bar: TaskID
    began: float
    offset: int = 0
    rounds: int = 0

    @property
    def share(self) -> float:
        return self.rounds / self.job.experiment.training.rounds


@final
class GridProgress:
    """Shows a grid of cells. Use as a context; cells may run in other processes, since it reads their event logs.

    Args:
        console: where to; None is silent.
        total: cells of the study.
        finished: how many of them were finished before.
    """

    def __init__(self, console: Console | None, total: int, finished: int) -> None:
        self._console = console or Console(quiet=True)
        self._total, self._before, self._done = total, finished, finished
        self._began = self._last_look = self._last_line = time.monotonic()
        self._running: dict[str, _Running] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._all = self._progress.add_task("cells", total=total, completed=finished, note="")

    def __enter__(self) -> "GridProgress":
        self._progress.start()
        if self._before:
            self._line(f"{self._before} of {self._total} cells were finished before and are kept")
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def started(self, job: Job) -> None:
        """Give a cell its line."""
        rounds = job.experiment.training.rounds
        bar = self._progress.add_task(f"  {job.name}", total=rounds, note="rounds")
        self._running[job.name] = _Running(job, bar, time.monotonic())

    def lost(self, job: Job, why: str) -> None:
        """Say that a cell is taken up again."""
        self._forget(job)
        self._line(f"{job.name}: {why}; it is taken up again where it stopped")

    def ended(self, job: Job, error: str | None) -> None:
        """Take a cell's line away and say how it ended."""
        seconds = time.monotonic() - self._forget(job).began
        if error is not None:
            self._line(f"{job.name}: failed: {error}")
            return
        self._done += 1
        self._progress.update(self._all, completed=self._done, note=self.left())
        left = f"; {self.left()}" if self.left() else ""
        self._line(f"cell {self._done} of {self._total}: {job.name} took {duration(seconds)}{left}")

    def look(self) -> None:
        """Look at the event logs, not too often."""
        now = time.monotonic()
        if now - self._last_look < SECONDS_BETWEEN_LOOKS:
            return
        self._last_look = now
        for one in self._running.values():
            for event, offset in read_events(one.job.folder / "events.jsonl", one.offset):
                one.offset = offset
                if event["event"] == "finished":
                    one.rounds = int(event["round"])
            note = "rounds" if one.share < 1 else "rounds; attacks and tables"
            self._progress.update(one.bar, completed=one.rounds, note=note)
        self._progress.update(self._all, note=self.left())
        if not self._console.is_terminal and now - self._last_line > SECONDS_BETWEEN_LINES:
            at = [f"{one.job.name} round {one.rounds}" for one in self._running.values()]
            left = f"; {self.left()}" if self.left() else ""
            self._line(f"{self._done} of {self._total} cells; running: {', '.join(at)}{left}")

    def left(self) -> str:
        """Write about how long the rest will take, as far as cells take alike; empty before anything is known."""
        new = self._done - self._before + sum(one.share for one in self._running.values())
        if new < 0.5 or self._done == self._total:
            return ""
        rest = self._total - self._before - new
        return f"about {duration((time.monotonic() - self._began) * rest / new)} left"

    def _forget(self, job: Job) -> _Running:
        one = self._running.pop(job.name)
        self._progress.remove_task(one.bar)
        return one

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        self._progress.console.print(text, highlight=False, markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Write a duration: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
