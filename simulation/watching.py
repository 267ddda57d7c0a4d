"""Follow a run's events: show progress per hospital and round, and evaluate models while the next rounds run."""

import threading
from pathlib import Path
from typing import Any, Protocol, final

from server.checkpoints import read_arrays
from server.events import EventLog, read_events
from simulation.evaluation import Evaluator

LOOK = 0.2  # seconds between two looks at the event log


class Display(Protocol):
    """Something that shows events to a person."""

    def show(self, event: dict[str, Any]) -> None:
        """Show one event."""
        ...


@final
class Watcher:
    """A thread beside the engine: the same for every engine, since it reads files only.

    Use as a context; leaving it waits until every checkpoint that is due was evaluated.
    """

    def __init__(self, log: Path, checkpoints: Path, evaluator: Evaluator, display: Display | None) -> None:
        self._path = log
        self._log = EventLog(log)
        self._checkpoints = checkpoints
        self._evaluator = evaluator
        self._display = display
        self._offset = 0
        self._evaluated: set[int] = set()
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._look()
                self._stop.wait(LOOK)
            self._look()
        except BaseException as error:  # shown to the caller when the context ends
            self._error = error

    def _look(self) -> None:
        for event, offset in list(read_events(self._path, self._offset)):
            self._offset = offset
            if event["event"] == "evaluated":
                self._evaluated.add(int(event["round"]))
            if self._display is not None:
                self._display.show(event)
        for path in sorted(self._checkpoints.glob("round-*.safetensors")):
            round_number = int(path.stem.removeprefix("round-"))
            if round_number not in self._evaluated:
                arrays, _ = read_arrays(path)
                overall, by_hospital = self._evaluator.measure(arrays, round_number)
                self._evaluated.add(round_number)
                self._log.write("evaluated", round=round_number, metrics=overall, hospitals=by_hospital)
