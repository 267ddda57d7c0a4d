"""Tables of a report: plain cells with a caption, the first column naming the row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from simulation.measures import leading
from simulation.report import phrases
from simulation.report.many import MANY, ends, ends_note
from simulation.report.numbers import DASH, counted, decimal, significant

Summary = dict[str, Any]
MOST_ROWS = 60


@final
@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: what it shows, with the assumptions that its numbers need.
        columns: their headings.
        rows: cells as text; the first one is the row's heading.
        note: what was left out, and the file where everything stands.
        words: positions of columns that hold words, not numbers.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    words: tuple[int, ...] = ()


def cut(rows: Sequence[tuple[str, ...]], file: str) -> tuple[tuple[tuple[str, ...], ...], str]:
    """Keep the first rows of a long table and say where the others are."""
    left = len(rows) - MOST_ROWS
    return tuple(rows[:MOST_ROWS]), f"{counted(left, 'more row')} in {file}." if left > 0 else ""


def hospital_table(summary: Summary) -> Table:
    """Return data, noise, budget and utility of every hospital."""
    measure = leading(summary)
    everybody = summary["hospitals"]
    many = len(everybody) > MANY
    shown = ends(everybody, lambda h: _told(h, summary, measure.key)) if many else everybody
    rows = [
        (
            str(h["name"]),
            f"{h['records']:,}",
            f"{h['units']:,}",
            significant(h["sample_rate"]),
            significant(h["noise_multiplier"]) if h["noise_multiplier"] else "no noise",
            significant(h["clipping_norm"]) if h["clipping_norm"] is not None else "not clipped",
            f"{h['steps']:,}",
            significant(h["epsilon"]["upper"]) if h["epsilon"] else "no claim",
            _bracket(h["epsilon"]),
            significant(h["epsilon_opacus_rdp"]),
            significant(h["delta"]) if h["epsilon"] else DASH,
            _own(h, summary, measure.key),
        )
        for h in shown
    ]
    kept, note = (tuple(rows), ends_note(everybody, len(rows))) if many else cut(rows, "hospitals.csv")
    of = f"parts of {phrases.heldout(summary)}"
    who = "hospitals" if many else "every hospital"
    unit = phrases.per_unit(summary)
    return Table(
        f"What {who} gave and spent. ε is per {unit} and for the whole run (all noisy steps), at "
        f"the δ of its row; what may be claimed is 'at most'. {measure.label} is of the final model on the "
        f"held-out images of that hospital, {of}, with its 95% interval where there are enough; "
        f"{decimal(measure.guess)} is guessing.",
        (
            "Hospital",
            "Images",
            f"Units ({unit}s)",
            "Sample rate",
            "Noise multiplier",
            "Clipping norm",
            "Steps",
            "ε at most",
            "ε bracket, method",
            "ε by RDP (Opacus)",
            "δ",
            measure.label,
        ),
        kept,
        note,
        words=(8,),
    )


def settings_table(experiments: Sequence[tuple[str, Summary]]) -> Table:
    """Return all settings of one experiment, or those in which several differ, side by side."""
    flats = [dict(_flat(content)) for _, content in experiments]
    keys = [key for key in flats[0] if len(flats) == 1 or len({one.get(key) for one in flats}) > 1]
    keys += sorted({key for one in flats[1:] for key in one} - set(flats[0]))
    rows = tuple((key, *(one.get(key, DASH) for one in flats)) for key in keys)
    caption = "Every setting of the experiment." if len(flats) == 1 else "Settings in which the runs differ."
    return Table(caption, ("Setting", *(name for name, _ in experiments)), rows, words=(*range(1, len(flats) + 1),))


def _told(hospital: Summary, summary: Summary, key: str) -> float | None:
    """Return a hospital's utility where it has an interval: the best and worst of a few images each are chance."""
    row = summary["intervals"]["hospitals"].get(hospital["name"])
    return None if row is None or row["low"] is None else (hospital["metrics"] or {}).get(key)


def _own(hospital: Summary, summary: Summary, key: str) -> str:
    """Write a hospital's utility with its interval."""
    value = (hospital["metrics"] or {}).get(key)
    row = summary["intervals"]["hospitals"].get(hospital["name"])
    if value is None or row is None or row["low"] is None:
        return decimal(value, 3)
    return f"{decimal(value, 3)} ({decimal(row['low'])} to {decimal(row['high'])})"


def _bracket(epsilon: Summary | None) -> str:
    if not epsilon:
        return DASH
    return f"{significant(epsilon['lower'], 4)} to {significant(epsilon['upper'], 4)}, {epsilon['method']}"


def _flat(content: Summary, prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in content.items():
        if isinstance(value, dict):
            rows.extend(_flat(value, f"{prefix}{key}."))
        else:
            rows.append((f"{prefix}{key}", _plain(value)))
    return rows


def _plain(value: object) -> str:
    if value is None or value == []:
        return "not set"
    if isinstance(value, list | tuple):
        return ", ".join(str(v) for v in value)
    return str(value)
