"""The figures of a study: utility, copies and recognition over the privacy budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

from simulation.measures import guesses_of, label, scale_start
from simulation.report import phrases
from simulation.report.frame import LEFT, RIGHT, TOP, Figure, legend_line, legend_mark, upright_axis
from simulation.report.numbers import budget, decimal, percent
from simulation.report.outcomes import Outcome, Share
from simulation.report.plot import MARKS, Drawing, linear, logarithmic, round_steps
from simulation.report.tables import Table
from simulation.report.tables_attacks import budget_table
from simulation.report.words_study import Group

BOTTOM, SLOT = 262.0, 74.0
Value = Callable[[Group], float | None]


@final
@dataclass(frozen=True)
class Series:
    """One curve over the budget."""

    label: str
    value: Value
    shape: str
    look: str
    interval: Callable[[Group], tuple[float, float] | None] | None = None
    shift: float = 0.0


@final
@dataclass(frozen=True)
class Upright:
    """A vertical axis up to 1: name, lower end, how its numbers are written, where guessing lies."""

    name: str
    low: float
    write: Callable[[float], str]
    guess: float | None = None


@final
class BudgetAxis:
    """Budgets on a logarithmic scale; settings without a budget have slots of their own at the right end."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self.budgets = sorted({g.budget for g in groups if g.budget is not None})
        self.slots = [m for m in phrases.MECHANISMS if any(g.mechanism == m and g.budget is None for g in groups)]
        self.edge = RIGHT - SLOT * len(self.slots)
        low, high = (self.budgets[0], self.budgets[-1]) if self.budgets else (1.0, 10.0)
        self._scale = logarithmic(low / 1.2, high * 1.2, LEFT + 22, self.edge - 26)

    def __call__(self, group: Group) -> float:
        """Return where a group stands."""
        if group.budget is not None:
            return self._scale(group.budget)
        return self.edge + SLOT * (self.slots.index(group.mechanism) + 0.5)

    def draw(self, drawing: Drawing) -> None:
        """Draw the axis: only budgets that were tried are written."""
        last = -100.0
        for value in self.budgets:
            at = self._scale(value)
            drawing.line(at, BOTTOM, at, BOTTOM + 5, "axis")
            if at - last > 44:
                drawing.text(at, BOTTOM + 20, budget(value), "tick", "middle")
                last = at
        for k, name in enumerate(self.slots):
            drawing.text(self.edge + SLOT * (k + 0.5), BOTTOM + 20, _slot_name(name), "tick", "middle")
        if self.slots and self.budgets:
            drawing.line(self.edge, TOP, self.edge, BOTTOM + 5, "break")
        if self.budgets:
            name = "privacy budget ε, logarithmic; to the left is more private"
            drawing.text(LEFT, BOTTOM + 42, name, "name")


def study_figures(groups: Sequence[Group]) -> dict[str, Figure]:
    """Return the figures for which a study has numbers, by key."""
    figures = {"budget-utility": utility_over_budget(groups)}
    names = sorted({o.attack for g in groups for o in g.outcomes})
    for name in names:
        figures[f"budget-copies-{name}"] = copies_over_budget(groups, name, len(names) > 1)
        figures[f"budget-recognised-{name}"] = recognised_over_budget(groups, name, len(names) > 1)
    return {key: figure for key, figure in figures.items() if figure is not None}


def utility_over_budget(groups: Sequence[Group]) -> Figure | None:
    """Draw the leading metric over the budget, one curve per mechanism."""
    values = [v for g in groups for v in g.utility]
    if not values:
        return None
    measure = groups[0].measure
    low = min(scale_start(measure.key), min(values) // 0.1 * 0.1)
    mechanisms = list(dict.fromkeys(g.mechanism for g in groups))
    series = [
        Series(
            phrases.mechanism(name),
            lambda g, name=name: _mean(g.utility) if g.mechanism == name else None,
            MARKS[k % len(MARKS)],
            f"s{k % 7}",
            lambda g, name=name: _range(g.utility) if g.mechanism == name else None,
        )
        for k, name in enumerate(mechanisms)
    ]
    caption = (
        f"{measure.label} of the final model on {phrases.heldout(groups[0].summaries[0])} that no hospital trained on: "
        "the mean over seeds, with the range over seeds where there are several. Points were measured; lines only "
        "guide the eye."
    )
    title = "How well the model works at each budget"
    svg = _draw(groups, series, title, Upright(measure.label, low, lambda t: f"{t:.3g}", measure.guess))
    legend = [(legend_mark(s.shape, s.look), s.label) for s in series]
    legend += [(legend_line("guess"), "guessing")] if measure.guess is not None else []
    return Figure("budget-utility", title, caption, svg, tuple(legend), utility_table(groups))


def copies_over_budget(groups: Sequence[Group], attack: str, several: bool) -> Figure | None:
    """Draw the share of copied images over the budget, with interval and null."""
    copied = _share_series(attack, "recovered", "copied (SSIM above 0.9), with its 95% interval", "disc", "s0")
    null = Series(
        "null: somebody who saw nothing",
        lambda g: o.null if (o := _of(g, attack)) else None,
        "diamond",
        "null",
    )
    title = f"Images that were copied at each budget{f' ({attack})' if several else ''}"
    caption = (
        "All attacked updates of a budget together; exact intervals, each image counted as one independent "
        "trial. Points were measured; lines only guide the eye."
    )
    return _attack_figure(groups, [copied, null], f"budget-copies-{attack}", title, caption)


def recognised_over_budget(groups: Sequence[Group], attack: str, several: bool) -> Figure | None:
    """Draw the share of recognised targets over the budget, with chance and the formal bounds."""
    informed = _share_series(attack, "informed", "recognised when shown the candidates", "ring", "s3")
    recognised = _share_series(attack, "rank1", "recognised, with its 95% interval", "disc", "s0")
    if not any(s.value(g) is not None for g in groups for s in (informed, recognised)):
        return None
    bounds = [
        Series(
            "worst-case bound up to that update",
            lambda g: o.bound_worst_case if (o := _of(g, attack)) else None,
            "pointer",
            "bound",
            shift=-16,
        ),
        Series(
            "relaxed bound (a model, no guarantee)",
            lambda g: o.bound_relaxed if (o := _of(g, attack)) else None,
            "square",
            "bound",
            shift=16,
        ),
    ]
    null = Series("null: chance", lambda g: o.chance if (o := _of(g, attack)) and o.rank1 else None, "diamond", "null")
    title = f"Images that were recognised among decoys at each budget{f' ({attack})' if several else ''}"
    caption = (
        "Of the true image and its decoys, which the adversary never saw, the true one comes first. Bounds "
        "hold for an image known to take part, given all updates up to the attacked one; the highest is shown. "
        "Marks of one budget stand side by side. Points were measured or computed; lines only guide the "
        "eye."
    )
    series = [*bounds, replace(informed, shift=7, interval=None), replace(recognised, shift=-5), null]
    return _attack_figure(groups, series, f"budget-recognised-{attack}", title, caption)


def _share_series(attack: str, key: str, label: str, shape: str, look: str) -> Series:
    def share(group: Group) -> Share | None:
        outcome = _of(group, attack)
        return None if outcome is None else getattr(outcome, key)

    return Series(
        label,
        lambda g: s.rate if (s := share(g)) else None,
        shape,
        look,
        lambda g: s.interval if (s := share(g)) else None,
    )


def utility_table(groups: Sequence[Group]) -> Table:
    """Return the utility of every setting."""
    first = groups[0].summaries[0]
    lead = groups[0].measure
    keys = [lead.key, *(k for k in first["utility"]["metrics"] if k not in (lead.key, "classes_present"))]
    rows: list[tuple[str, ...]] = []
    for g in groups:
        spread = _range(g.utility)
        measured = [_mean(g.metrics(name)) for name in keys]
        rows.append(
            (
                g.label,
                f"{len(g.cells)}",
                *(decimal(v, 3) for v in measured),
                f"{decimal(spread[0], 3)} to {decimal(spread[1], 3)}" if spread else "one seed",
                f"{g.summaries[0]['heldout']:,}",
            )
        )
    return Table(
        f"Utility of the final model per setting, means over seeds. Guessing reaches {guesses_of(first)}.",
        (
            "Setting",
            "Seeds",
            *(label(key) for key in keys),
            f"{lead.label} over seeds",
            f"Held-out {phrases.noun(first)}s",
        ),
        tuple(rows),
    )


def _attack_figure(groups: Sequence[Group], series: list[Series], key: str, title: str, caption: str) -> Figure | None:
    drawn = [s for s in series if any(s.value(g) is not None for g in groups)]
    if not drawn:
        return None
    svg = _draw(groups, drawn, title, Upright("share of the images", 0.0, percent))
    legend = tuple((legend_mark(s.shape, s.look), s.label) for s in reversed(drawn))
    return Figure(key, title, caption, svg, legend, budget_table(groups))


def _draw(groups: Sequence[Group], series: Sequence[Series], title: str, axis: Upright) -> str:
    said = "; ".join(
        f"{g.label}: {', '.join(f'{s.label} {axis.write(v)}' for s in series if (v := s.value(g)) is not None)}"
        for g in groups
    )
    drawing = Drawing(BOTTOM + 50, title, f"{said}.")
    y = linear(axis.low, 1.0, BOTTOM, TOP)
    upright_axis(drawing, y, round_steps(axis.low, 1.0), axis.write, axis.name)
    x = BudgetAxis(groups)
    x.draw(drawing)
    if axis.guess is not None:
        drawing.line(LEFT, y(axis.guess), RIGHT, y(axis.guess), "guess")
    for one in series:
        known = [(g, v, x(g) + one.shift) for g in groups if (v := one.value(g)) is not None]
        drawing.path(sorted((at, y(v)) for g, v, at in known if g.budget is not None), f"{one.look} line guide")
        for g, v, at in known:
            span = one.interval(g) if one.interval else None
            if span is not None:
                drawing.line(at, y(span[0]), at, y(span[1]), f"{one.look} span")
            drawing.mark(at, y(v), one.shape, one.look, 5.5)
    return drawing.svg()


def _of(group: Group, attack: str) -> Outcome | None:
    return next((o for o in group.outcomes if o.attack == attack), None)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _range(values: Sequence[float]) -> tuple[float, float] | None:
    return (min(values), max(values)) if len(values) > 1 else None


def _slot_name(mechanism: str) -> str:
    return {"none": "no noise", "clip_only": "clip only", "noise_only": "noise only"}.get(mechanism, mechanism)
