"""Utility and risk over the budget in one figure, one for each mechanism that was attacked."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from simulation.measures import scale_start
from simulation.report import phrases
from simulation.report.budgets_axis import LOOKS, BudgetAxis, shifts, span
from simulation.report.budgets_figure_tables import risk_table
from simulation.report.budgets_numbers import Row
from simulation.report.budgets_rows import GOALS, Budgets, Setting
from simulation.report.frame import LEFT, RIGHT, Figure, legend_line, legend_mark
from simulation.report.numbers import percent
from simulation.report.plot import Drawing, Scale, linear, round_steps

TOP, MIDDLE, LOWER, BOTTOM = 30.0, 150.0, 200.0, 400.0
BELOW = 62.0
# What an attack achieves: mark and colour.
LOOKS_OF_GOALS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "copied": ("disc", "s0"),
        "visible": ("triangle", "s5"),
        "identified": ("square", "s3"),
        "informed": ("ring", "s4"),
        "members": ("cross", "s2"),
        "labels": ("diamond", "s2"),
    }
)


def risk_figures(budgets: Budgets) -> list[Figure]:
    """Return a figure for each mechanism with budgets that was attacked, the one shown first before the others."""
    names = [m for m in budgets.mechanisms if any(s.attack for s in budgets.of(m))]
    names.sort(key=lambda name: name != budgets.shown.mechanism)
    return [_figure(budgets, name) for name in names]


def beside(budgets: Budgets, mechanism: str) -> list[Setting]:
    """Return a mechanism's settings, the federation without privacy after them."""
    bare = budgets.get("pooled") if mechanism == "pooled" else budgets.get("none")
    return [*budgets.of(mechanism), *([bare] if bare is not None else [])]


def best(setting: Setting, goal: str) -> Row | None:
    """Return the attack that reached a goal most often beyond its null; None where none was tested."""
    tested = [a for a in setting.row["attacks"] if a["goal"] == goal and a["above_null"] is not None]
    return max(tested, key=lambda a: (a["above_null"], a["rate"] - a["null"]), default=None)


def bound(setting: Setting, key: str) -> float | None:
    """Return the highest bound on an attack of a setting, for as many candidates as that attack had."""
    return max((a[key] for a in setting.row["attacks"] if a.get(key) is not None), default=None)


def _figure(budgets: Budgets, mechanism: str) -> Figure:
    settings = beside(budgets, mechanism)
    goals = [g for g in GOALS if any(best(s, g) for s in settings)]
    name = phrases.mechanism(mechanism)
    title = f"Accuracy and risk at each budget: {name}"
    said = "; ".join(f"{s.label}: {_spoken(budgets, s, goals)}" for s in settings)
    drawing = Drawing(BOTTOM + BELOW, title, f"{said}.")
    x = BudgetAxis(settings)
    _utility(drawing, budgets, settings, x)
    y = linear(0.0, 1.0, BOTTOM, LOWER)
    drawing.text(0, LOWER - 16, "share of the attacked images", "name")
    _grid(drawing, y, 0.0, percent)
    x.draw(drawing, BOTTOM)
    bounds = {
        key: [(x(s), y(v)) for s in settings if (v := bound(s, key)) is not None]
        for key in ("bound_relaxed", "bound_worst_case")
    }
    moved = shifts([*goals, "bounds"], x.width)
    for (key, points), shape in zip(bounds.items(), ("square", "pointer"), strict=True):
        placed = [(at + moved["bounds"], height) for at, height in points]
        drawing.path(placed, f"bound line{' guide' if key == 'bound_relaxed' else ''}")
        for at, height in placed:
            drawing.mark(at, height, shape, "bound", 4)
    for goal in goals:
        _rates(drawing, settings, goal, x, y, moved[goal])
    return Figure(
        f"risk-{mechanism}", title, _caption(budgets), drawing.svg(), _legend(goals, bounds), risk_table(settings)
    )


def _utility(drawing: Drawing, budgets: Budgets, settings: Sequence[Setting], x: BudgetAxis) -> None:
    """Draw the upper panel: the leading metric with its intervals."""
    measure = budgets.measure
    known = [v for s in settings for v in (s.utility.low, s.utility.estimate) if v is not None]
    low = min([scale_start(measure.key), *(v // 0.1 * 0.1 for v in known)])
    y = linear(low, 1.0, MIDDLE, TOP)
    drawing.text(0, 14, measure.label, "name")
    _grid(drawing, y, low, lambda t: f"{t:.3g}", 3)
    points = [
        (x(s), y(s.utility.estimate)) for s in settings if s.utility.estimate is not None and s.budget is not None
    ]
    drawing.path(points, "s1 line")
    for s in settings:
        if s.utility.estimate is not None:
            span(drawing, x(s), y, (s.utility.low, s.utility.high), "s1")
            drawing.mark(x(s), y(s.utility.estimate), *LOOKS["pooled"], 5)


def _rates(drawing: Drawing, settings: Sequence[Setting], goal: str, x: BudgetAxis, y: Scale, shift: float) -> None:
    shape, look = LOOKS_OF_GOALS[goal]
    found = [(s, a) for s in settings if (a := best(s, goal)) is not None]
    drawing.path([(x(s) + shift, y(a["rate"])) for s, a in found if s.budget is not None], f"{look} line guide")
    for s, attack in found:
        at = x(s) + shift
        span(drawing, at, y, (attack["low"], attack["high"]), look)
        drawing.line(at - 4, y(attack["null"]), at + 4, y(attack["null"]), "null tick-null")
        drawing.mark(at, y(attack["rate"]), shape, look, 4.5)


def _grid(drawing: Drawing, y: Scale, low: float, write: Callable[[float], str], most: int = 5) -> None:
    for tick in round_steps(low, 1.0, most):
        drawing.line(LEFT, y(tick), RIGHT, y(tick), "grid")
        drawing.text(LEFT - 6, y(tick) + 4, write(tick), "tick", "end")


def _legend(goals: Sequence[str], bounds: Mapping[str, Sequence[object]]) -> tuple[tuple[str, str], ...]:
    found = [(legend_mark("square", "s1"), "accuracy (above)")]
    found += [(legend_mark(*LOOKS_OF_GOALS[g]), GOALS[g]) for g in goals]
    found.append((legend_line("null tick-null"), "the same by guessing"))
    if bounds["bound_worst_case"]:
        found.append((legend_mark("pointer", "bound"), "worst-case bound on recognising"))
        found.append((legend_mark("square", "bound"), "relaxed bound (a model, no guarantee)"))
    return tuple(found)


def _caption(budgets: Budgets) -> str:
    return (
        f"Above: {budgets.measure.label} on {budgets.heldout}, with 95% intervals. Below: the "
        "strongest attack of each kind, hospitals and seeds together, exact 95% intervals, each image counted as one "
        "independent trial. Bounds hold for recognising "
        "one image that is known to take part, given all updates up to the attacked one, among as many candidates as "
        "the attack had. Lines only guide the eye."
    )


def _spoken(budgets: Budgets, setting: Setting, goals: Sequence[str]) -> str:
    parts = [f"{budgets.measure.label} {setting.utility.short}"]
    parts += [f"{GOALS[g]} {percent(a['rate'])} (null {percent(a['null'])})" for g in goals if (a := best(setting, g))]
    return ", ".join(parts)
