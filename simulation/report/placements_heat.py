"""The heat map of a study of placements: chairs by attacks, one grid per setting, its numbers in the cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from simulation.placements_rows import findings
from simulation.report.numbers import percent
from simulation.report.placements_words import MEASURES, SEATS, setting_of, settings_of

Row = dict[str, Any]

# One hue from light to dark: told apart without colour vision and on paper. Lower ends, of success above the null.
STEPS = (0.02, 0.2, 0.4, 0.6, 0.8)
LONGEST = 64  # of a reason that stands in its cell; a longer one is a numbered note below


@final
@dataclass(frozen=True)
class Square:
    """One cell.

    Attributes:
        look: CSS class: `h0` to `h5` by success above the null, or `cannot`.
        lines: what stands in it, the first one large.
        found: whether something was got back, all tests of the table allowed for.
    """

    look: str
    lines: tuple[str, ...]
    found: bool = False


@final
@dataclass(frozen=True)
class Grid:
    """One setting: a row per chair, a column per attack."""

    label: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Square, ...]], ...]


@final
@dataclass(frozen=True)
class HeatMap:
    """All grids, and the reasons that are too long for a cell."""

    grids: tuple[Grid, ...]
    notes: tuple[str, ...]


def heat_map(rows: Sequence[Row]) -> HeatMap:
    """Return the heat map of pooled rows."""
    notes: list[str] = []
    grids: list[Grid] = []
    attacks = list(dict.fromkeys(str(row["attack"]) for row in rows))
    for setting, label in settings_of(rows).items():
        own = {(row["placement"], row["attack"]): row for row in rows if setting_of(row) == setting}
        seats = list(dict.fromkeys(placement for placement, _ in own))
        lines = tuple(
            (SEATS.get(seat, seat), tuple(_square(own.get((seat, attack)), notes) for attack in attacks))
            for seat in seats
        )
        grids.append(Grid(label, tuple(name.replace("_", " ") for name in attacks), lines))
    return HeatMap(tuple(grids), tuple(notes))


def _square(row: Row | None, notes: list[str]) -> Square:
    if row is None:
        return Square("cannot", ("not in this study",))
    if row["success"] is None:
        return Square("cannot", (_reason(row, notes),))
    above = row["success"] - (row["success_null"] or 0.0)
    lines = [
        f"{round(100 * above):+d}",
        f"{row['hits']:,} of {row['n']:,}, null {percent(row['success_null'])}",
        f"95%: {percent(row['success_low'])}–{percent(row['success_high'])}",
    ]
    found = findings(row)
    for key in ("visible", "rank1", "identified_informed"):
        if key in found:
            lines.append(f"{MEASURES[key]}: {percent(row[key])}")
    if row["reason"]:  # some seeds could not be
        lines.append(_reason(row, notes))
    return Square(f"h{sum(above >= step for step in STEPS)}", tuple(lines), bool(found))


def _reason(row: Row, notes: list[str]) -> str:
    """Return a reason short enough for a cell, or a few words and the number of its note."""
    reason, short = str(row["reason"]), str(row["short"])
    if short.startswith("needs ") or len(reason) <= LONGEST:
        return short if short.startswith("needs ") else reason
    if reason not in notes:
        notes.append(reason)
    return f"{short} (note {notes.index(reason) + 1})"
