"""The run's event log: one JSON line per thing that happened, for progress, tables and whoever watches."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final


@final
class EventLog:
    """An append-only file of events. A torn last line (after a kill) is ignored by readers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, kind: str, **content: object) -> None:
        """Append one event with its time."""
        line = json.dumps({"event": kind, "time": round(time.time(), 3), **content}, allow_nan=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def read_events(path: Path, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield (event, offset after it) for every whole line from `offset` on."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event, offset
