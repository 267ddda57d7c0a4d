"""Progress for people, on standard error: bars in a terminal, a line now and then elsewhere."""

import time
from typing import Any, final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from simulation.measures import label

MOST_BARS = 12
SHOWN = 2  # metrics beside the bar: the more telling ones come first
SECONDS_BETWEEN_LINES = 15.0


@final
class ProgressDisplay:
    """Shows rounds, hospitals and utility of one run. Use as a context."""

    def __init__(self, console: Console, rounds: int, title: str) -> None:
        self._console = console
        self._rounds = rounds
        self._title = title
        self._bars: dict[str, TaskID] = {}
        self._last_line = 0.0
        self._done = 0
        self._utility = ""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._total = self._progress.add_task(title, total=rounds, note="")

    def __enter__(self) -> "ProgressDisplay":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: dict[str, Any]) -> None:
        """Show one event of the run's log."""
        kind = event["event"]
        if kind == "introduced" and len(self._bars) < MOST_BARS:
            name = str(event["hospital"])
            noise = float(event["noise_multiplier"])
            note = f"{event['units']} records" + (f", noise {noise:.3g}" if noise else "")
            if name not in self._bars:
                self._bars[name] = self._progress.add_task(f"  {name}", total=self._rounds, note=note)
        elif kind in ("released", "declined"):
            self._hospital(event, kind)
        elif kind == "lost":
            again = "; asked again" if event["again"] else ""
            self._line(f"round {event['round']}: {event['hospital']} lost ({event['reason']}){again}")
        elif kind == "finished":
            self._done = int(event["round"])
            self._progress.update(self._total, completed=self._done, note=self._utility)
            self._now_and_then()
        elif kind == "evaluated":
            found = event["metrics"]
            parts = [f"{label(k)} {v:.3f}" for k, v in list(found.items())[:SHOWN] if v is not None]
            self._utility = f"{', '.join(parts)} after round {event['round']}"

    def _hospital(self, event: dict[str, Any], kind: str) -> None:
        bar = self._bars.get(str(event["hospital"]))
        if bar is not None:
            self._progress.update(bar, completed=int(event["round"]))
        if kind == "declined" and not str(event["reason"]).startswith("straggler"):
            self._line(f"round {event['round']}: {event['hospital']} declined ({event['reason']})")

    def _now_and_then(self) -> None:
        if self._console.is_terminal:
            return
        now = time.monotonic()
        if now - self._last_line > SECONDS_BETWEEN_LINES or self._done == self._rounds:
            self._last_line = now
            self._line(
                f"{self._title}: round {self._done} of {self._rounds}{'; ' if self._utility else ''}{self._utility}"
            )

    def _line(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False)
