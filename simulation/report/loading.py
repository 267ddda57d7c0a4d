"""Read what a run left in its folder; what is missing is empty."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from configs import InputError

Summary = dict[str, Any]
Row = dict[str, str]


@final
@dataclass(frozen=True)
class RunFiles:
    """A run as the report needs it.

    Attributes:
        folder: where it lies.
        summary: of `summary.json`.
        rounds, targets: the rows of `rounds.csv` and `attacks.csv`.
    """

    folder: Path
    summary: Summary
    rounds: list[Row]
    targets: list[Row]

    @property
    def pictures_allowed(self) -> bool:
        """Whether the settings let images into the report."""
        wanted = self.summary["experiment"]["report"]["images"]
        return wanted == "real" or (wanted == "phantom" and self.summary["data"] == "phantom")


def read_summary(folder: Path) -> Summary:
    """Return a folder's `summary.json`.

    Raises:
        InputError: if there is none, or it cannot be read.
    """
    path = folder / "summary.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{folder}: has no summary.json; it is not the folder of a finished run.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON; run again with --resume.") from error


def read_run(folder: Path, summary: Summary) -> RunFiles:
    """Return a run's summary with its tables."""
    return RunFiles(folder, summary, _rows(folder / "rounds.csv"), _rows(folder / "attacks.csv"))


def number(text: str | None) -> float | None:
    """Read a cell of a table; None where it is empty or not a finite number."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def _rows(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: value or "" for key, value in row.items() if key} for row in csv.DictReader(file)]
