"""A federation of many hospitals on one page: how they spread, and who stands at the ends; the CSV has them all."""

from collections.abc import Callable, Sequence
from typing import Any

from simulation.report.numbers import counted

Hospital = dict[str, Any]

MANY = 60  # hospitals beyond which a page does not name them all
ENDS = 5  # hospitals that are named at each end
SHARES = (
    (0.0, "lowest"),
    (0.25, "a quarter is below"),
    (0.5, "median"),
    (0.75, "a quarter is above"),
    (1.0, "highest"),
)


def spread(hospitals: Sequence[Hospital], value: Callable[[Hospital], float | None]) -> list[tuple[str, Hospital]]:
    """Return the hospitals at the lowest, at the quarters, at the middle and at the highest value, each with its place.

    Hospitals without a value are left out; of equal ones the first by name.
    """
    known = sorted((h for h in hospitals if value(h) is not None), key=lambda h: (value(h), str(h["name"])))
    if not known:
        return []
    return [(words, known[round(share * (len(known) - 1))]) for share, words in SHARES]


def ends(hospitals: Sequence[Hospital], utility: Callable[[Hospital], float | None]) -> list[Hospital]:
    """Return the hospitals that spent most and least, have most and fewest images, and are served best and worst."""
    chosen: dict[str, Hospital] = {}
    for value in (spent, lambda h: float(h["records"]), utility):
        known = sorted((h for h in hospitals if value(h) is not None), key=lambda h: (value(h), str(h["name"])))
        for hospital in (*reversed(known[-ENDS:]), *known[:ENDS]):
            chosen.setdefault(str(hospital["name"]), hospital)
    return list(chosen.values())


def ends_note(hospitals: Sequence[Hospital], named: int) -> str:
    """Say which hospitals of a long table are named and where the others are."""
    return (
        f"Named are those that spent most and least, that have most and fewest images, and, where it can be told, that "
        f"the model serves best and worst; {counted(len(hospitals) - named, 'more row')} in hospitals.csv."
    )


def spent(hospital: Hospital) -> float | None:
    """Return what may be claimed for a hospital: the upper end of its epsilon; None where nothing is."""
    return float(hospital["epsilon"]["upper"]) if hospital["epsilon"] else None
