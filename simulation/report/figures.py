"""The figures of a run: utility over its rounds, its budgets, and what the attacks got."""

from collections.abc import Mapping, Sequence
from typing import Any

from simulation.measures import Measure, guesses_of, label, leading, scale_start
from simulation.report import phrases
from simulation.report.figures_attacks import copies_figure, recognised_figure
from simulation.report.frame import (
    LEFT,
    RIGHT,
    TOP,
    ChartRow,
    Dot,
    Figure,
    legend_line,
    legend_mark,
    round_axis,
    row_chart,
    upright_axis,
)
from simulation.report.loading import RunFiles, number
from simulation.report.many import MANY, spent, spread
from simulation.report.numbers import counted, decimal, significant
from simulation.report.outcomes import Outcome
from simulation.report.plot import (
    MARKS,
    Drawing,
    Scale,
    decades,
    linear,
    logarithmic,
    round_steps,
    shortened,
    spread_labels,
)
from simulation.report.subgroups import people_figure
from simulation.report.tables import Table, cut, hospital_table

Summary = dict[str, Any]
Points = list[tuple[int, float]]
MOST_LINES = 6
BOTTOM = 270.0


def run_figures(run: RunFiles, found: Sequence[Outcome]) -> dict[str, Figure]:
    """Return the figures for which a run has numbers, by key: utility, people, epsilon, copies, recognised."""
    figures = (
        utility_figure(run),
        people_figure(run.summary),
        epsilon_figure(run.summary),
        copies_figure(found),
        recognised_figure(found),
    )
    return {figure.key: figure for figure in figures if figure is not None}


def utility_figure(run: RunFiles) -> Figure | None:
    """Draw the leading metric over the rounds, overall and of every hospital."""
    measure = leading(run.summary)
    overall = _points(run, measure.key)
    if not overall:
        return None
    names = [str(h["name"]) for h in run.summary["hospitals"]]
    hospitals = {name: points for name in names if (points := _points(run, f"{measure.key}[{name}]"))}
    lowest = min(v for points in (overall, *hospitals.values()) for _, v in points)
    low = min(scale_start(measure.key), lowest // 0.1 * 0.1)
    few = 1 < len(hospitals) <= MOST_LINES
    title = "How well the model works, round by round"
    said = "; ".join(f"round {r}: {measure.label} {v:.2f}" for r, v in (overall[0], overall[-1]))
    drawing = Drawing(BOTTOM + 42, title, f"{said}.")
    y = linear(low, 1.0, BOTTOM, TOP)
    upright_axis(drawing, y, round_steps(low, 1.0), lambda t: f"{t:g}", measure.label)
    x = round_axis(drawing, int(run.summary["rounds"]), 352.0 if few else RIGHT - 6, BOTTOM)
    if measure.guess is not None:
        drawing.line(LEFT, y(measure.guess), RIGHT, y(measure.guess), "guess")
    attacked = sorted({int(a["round"]) for a in run.summary["attacks"]})
    for round_number in attacked[:20]:
        drawing.line(x(round_number), TOP, x(round_number), BOTTOM, "event")
    legend = [(legend_line("s0 line thick"), "all hospitals together")]
    legend += [(legend_line("guess"), "guessing")] if measure.guess is not None else []
    legend += [(legend_line("event"), "attacked round")] if attacked else []
    if few:
        _hospital_lines(drawing, hospitals, x, y)
    elif len(hospitals) > MOST_LINES:
        drawing.area(_band(hospitals, x, y), "band")
        legend.append((legend_line("bandkey"), f"range over {counted(len(hospitals), 'hospital')}"))
    drawing.path([(x(r), y(v)) for r, v in overall], "s0 line thick")
    for r, v in overall:
        drawing.mark(x(r), y(v), "disc", "s0", 3.6)
    caption = (
        f"{measure.label} on {phrases.heldout(run.summary)} that no hospital trained on; a hospital's "
        "line is of its own part of them, so it is less certain. Intervals are computed after the last round only."
    )
    table = _utility_table(run, measure, overall, hospitals)
    return Figure("utility", title, caption, drawing.svg(), tuple(legend), table)


def epsilon_figure(summary: Summary) -> Figure | None:
    """Draw every hospital's budget, or how those of many spread, exactly and as Opacus' RDP accountant prints it."""
    spending = [h for h in summary["hospitals"] if spent(h)]  # who was never asked spent 0, which no decade shows
    if not spending:
        return None
    everybody = len(summary["hospitals"])
    many = everybody > MANY
    shown = spread(spending, spent) if many else [("", h) for h in spending]
    values = [v for _, h in shown for v in (spent(h), h["epsilon_opacus_rdp"]) if v]
    low, high = min(*values, 1.0) / 2, max(*values, 1000.0) * 2
    rows = [
        ChartRow(
            f"{place}: {h['name']}" if place else str(h["name"]),
            f"ε {significant(h['epsilon']['upper'])}; RDP {significant(h['epsilon_opacus_rdp'])}",
            (
                Dot(h["epsilon_opacus_rdp"] or None, "ring", "s2"),
                Dot(h["epsilon"]["upper"], "disc", "s1", (low, float(h["epsilon"]["upper"]))),
            ),
        )
        for place, h in shown
    ]
    title = "The privacy budgets that hospitals spent" if many else "The privacy budget that every hospital spent"
    ticks = [(t, significant(t)) for t in decades(low, high)]
    axis = "ε, logarithmic: to the left is more private"
    svg = row_chart(title, rows, logarithmic(low, high, 8, RIGHT - 4), ticks, axis)
    caption = (
        f"ε per {phrases.per_unit(summary)} over the whole run, at delta {significant(spending[0]['delta'])}: "
        "the upper end of the bracket, which may be claimed, and what the RDP accountant of Opacus would "
        "print for the same noise and steps."
    )
    if (idle := sum(spent(h) == 0 for h in summary["hospitals"])) > 0:
        caption += (
            f" {counted(idle, 'hospital')} of {everybody:,} released nothing and spent nothing; the others are shown."
        )
    legend = (
        (legend_mark("disc", "s1"), "spent, at most (exact accounting)"),
        (legend_mark("ring", "s2"), "what RDP (Opacus) would print"),
    )
    return Figure("epsilon", title, caption, svg, legend, hospital_table(summary))


def _hospital_lines(drawing: Drawing, hospitals: Mapping[str, Points], x: Scale, y: Scale) -> None:
    """Draw one line per hospital, with its name at the end."""
    end = x(max(r for points in hospitals.values() for r, _ in points))
    last = [y(points[-1][1]) for points in hospitals.values()]
    places = spread_labels(last, 18, TOP + 4, BOTTOM)
    for k, (name, points) in enumerate(hospitals.items()):
        look, shape = f"s{k + 1}", MARKS[k]
        drawing.path([(x(r), y(v)) for r, v in points], f"{look} line")
        for r, v in points:
            drawing.mark(x(r), y(v), shape, look, 3.2)
        drawing.line(end + 5, last[k], end + 16, places[k], f"{look} lead")
        drawing.mark(end + 22, places[k], shape, look, 4)
        drawing.text(end + 32, places[k] + 4, shortened(name, 13), "label")


def _band(hospitals: Mapping[str, Points], x: Scale, y: Scale) -> list[tuple[float, float]]:
    by_round: dict[int, list[float]] = {}
    for points in hospitals.values():
        for at, value in points:
            by_round.setdefault(at, []).append(value)
    order = sorted(by_round)
    upper = [(x(r), y(max(by_round[r]))) for r in order]
    return upper + [(x(r), y(min(by_round[r]))) for r in reversed(order)]


def _points(run: RunFiles, column: str) -> Points:
    found = [(number(row.get("round")), number(row.get(column))) for row in run.rounds]
    return [(int(r), v) for r, v in found if r is not None and v is not None]


def _utility_table(run: RunFiles, measure: Measure, overall: Points, hospitals: Mapping[str, Points]) -> Table:
    shown = {name: dict(points) for name, points in list(hospitals.items())[:12]}
    others = [key for key in run.summary["utility"]["metrics"] if key not in (measure.key, "classes_present")]
    measures = [dict(_points(run, key)) for key in others]
    rows = [
        (
            f"{r:,}",
            decimal(v, 3),
            *(decimal(own.get(r), 3) for own in shown.values()),
            *(decimal(own.get(r), 3) for own in measures),
        )
        for r, v in overall
    ]
    kept, note = cut(rows, "rounds.csv")
    return Table(
        f"Utility after each evaluated round, on {phrases.heldout(run.summary)} kept aside. A hospital's column is "
        f"{measure.label} on its own part of them. Guessing reaches {guesses_of(run.summary)}.",
        ("Round", measure.label, *shown, *(label(key) for key in others)),
        kept,
        note,
    )
