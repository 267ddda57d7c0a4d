"""For whom a model works: tables and a figure of the subgroups, and what a study's budgets cost each of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from simulation.measures import label, leading, scale_start
from simulation.report import phrases
from simulation.report.frame import RIGHT, ChartRow, Dot, Figure, legend_mark, row_chart
from simulation.report.numbers import DASH, decimal
from simulation.report.plot import linear, round_steps
from simulation.report.tables import Table, cut
from simulation.report.words_study import Group
from simulation.report.words_utility import name_of, ranked

Summary = Mapping[str, Any]
Row = dict[str, Any]
WORST = 10
FILE = "subgroups.csv"


def people_figure(summary: Summary) -> Figure | None:
    """Draw the worst subgroups with their intervals, below everybody."""
    measure = leading(summary)
    known = ranked(summary["subgroups"], measure.key)
    if len(known) < 2 or measure.value is None:
        return None
    shown = known[:WORST]
    ends = [v for row in shown for v in (row["low"], row["estimate"]) if v is not None]
    low = min(scale_start(measure.key), *(v // 0.1 * 0.1 for v in ends))
    rows = [
        ChartRow("everybody", f"n = {summary['heldout']:,}", (Dot(measure.value, "square", "s1", measure.interval),))
    ]
    for row in shown:
        span = None if row["low"] is None else (float(row["low"]), float(row["high"]))
        dot = Dot(float(row["estimate"]), "disc", "s0", span)
        rows.append(ChartRow(name_of(row), f"n = {row['n']:,}", (dot,)))
    title = "For whom it works worst"
    ticks = [(t, f"{t:g}") for t in round_steps(low, 1.0)]
    svg = row_chart(title, rows, linear(low, 1.0, 8, RIGHT - 8), ticks, measure.label)
    caption = (
        f"{measure.label} of the final model for the {len(shown)} subgroups (of {len(known)} measured) where it is "
        f"lowest, with 95% intervals. {_drawn(summary)} The worst of many is partly chance."
    )
    legend = ((legend_mark("square", "s1"), "everybody"), (legend_mark("disc", "s0"), "subgroup"))
    return Figure("people", title, caption, svg, legend, people_table(summary))


def people_table(summary: Summary) -> Table:
    """Return every subgroup, the worst of each metric first, those without a figure last with the reason."""
    lead = leading(summary).key

    def place(row: Row) -> tuple[bool, bool, float, str]:
        return row["estimate"] is None, row["metric"] != lead, row["estimate"] or 0.0, name_of(row)

    rows = [
        (
            name_of(row),
            label(row["metric"]),
            decimal(row["estimate"]),
            DASH if row["low"] is None else f"{decimal(row['low'])} to {decimal(row['high'])}",
            f"{row['n']:,}",
            f"{row['units']:,}",
            row["reason"] or DASH,
        )
        for row in sorted(summary["subgroups"], key=place)
    ]
    kept, note = cut(rows, FILE)
    unit = summary["utility"]["unit"]
    return Table(
        f"The final model by subgroup, the worst first. {_drawn(summary)} 'Called right' (recall): the share of the "
        "images of a class that the model gives to that class.",
        (
            "Subgroup",
            "Measure",
            "Value",
            "95% interval",
            f"{phrases.noun(summary).capitalize()}s",
            f"Independent {unit}s",
            "Not measured",
        ),
        kept,
        note,
        words=(1, 6),
    )


def cost_table(groups: Sequence[Group]) -> Table | None:
    """Return what every setting of a study reaches per subgroup, first seed, the largest loss first."""
    if len(groups) < 2:
        return None
    columns = [{(r["group"], r["value"], r["metric"]): r for r in g.summaries[0]["subgroups"]} for g in groups]
    keys = [k for k, row in columns[0].items() if row["estimate"] is not None]
    if not keys:
        return None

    def loss(key: tuple[str, str, str]) -> float:
        after = [c[key]["estimate"] for c in columns[1:] if key in c and c[key]["estimate"] is not None]
        return min(after, default=float("inf")) - columns[0][key]["estimate"]

    everybody = [g.measure for g in groups]
    rows = [
        (
            "everybody",
            everybody[0].label,
            f"{groups[0].summaries[0]['heldout']:,}",
            *(decimal(m.value) for m in everybody),
        )
    ]
    for key in sorted(keys, key=loss):
        row = columns[0][key]
        rows.append((name_of(row), label(key[2]), f"{row['n']:,}", *(_cell(c.get(key)) for c in columns)))
    kept, note = cut(rows, f"{FILE} of each run")
    return Table(
        "What each setting reaches for whom, with 95% intervals, of the first seed. Sorted by what is lost against the "
        "first setting: privacy tends to cost small groups most, and a mean over everybody hides it.",
        ("Subgroup", "Measure", "n", *(g.label for g in groups)),
        kept,
        note,
        words=(1,),
    )


def _cell(row: Row | None) -> str:
    if row is None or row["estimate"] is None:
        return DASH
    span = "" if row["low"] is None else f" ({decimal(row['low'])} to {decimal(row['high'])})"
    return f"{decimal(row['estimate'])}{span}"


def _drawn(summary: Summary) -> str:
    return f"Whole {summary['utility']['unit']}s were drawn again 1,000 times from the held-out ones."
