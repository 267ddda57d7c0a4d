"""The figures of a study of budgets: utility and noise over the budget, and each hospital under each mechanism."""

from collections.abc import Sequence

from simulation.measures import scale_start
from simulation.report import phrases
from simulation.report.budgets_axis import LOOKS, BudgetAxis, legend, side_by_side, span
from simulation.report.budgets_figure_tables import hospital_figures_table, noise_table, utility_table
from simulation.report.budgets_numbers import Figures
from simulation.report.budgets_risk import risk_figures
from simulation.report.budgets_rows import Budgets, Setting
from simulation.report.frame import LEFT, RIGHT, TOP, ChartRow, Dot, Figure, legend_line, row_chart, upright_axis
from simulation.report.numbers import budget, significant
from simulation.report.plot import Drawing, Scale, decades, linear, logarithmic, round_steps

BOTTOM = 272.0
BELOW = 62.0  # for the axis
MOST_HOSPITALS = 14
TALL = 64.0  # of a hospital's row, where several mechanisms stand in it; taller where there are more than three
APART = 11.0  # between the mechanisms of a row


def budgets_figures(budgets: Budgets) -> list[Figure]:
    """Return the figures for which a study has numbers."""
    found = [utility_figure(budgets), *risk_figures(budgets), noise_figure(budgets), hospitals_figure(budgets)]
    return [figure for figure in found if figure is not None]


def utility_figure(budgets: Budgets) -> Figure | None:
    """Draw the leading metric over the budget, one series per mechanism, beside the federation without privacy."""
    known = [s for s in budgets.settings if s.utility.estimate is not None]
    if not known:
        return None
    measure, bare = budgets.measure, budgets.get("none")
    lowest = min(v for s in known for v in (s.utility.low, s.utility.estimate) if v is not None)
    low = min(scale_start(measure.key), lowest // 0.1 * 0.1)
    title = "How accurate the model is at each budget"
    said = "; ".join(f"{s.label}: {measure.label} {s.utility.short}" for s in known)
    drawing = Drawing(BOTTOM + BELOW, title, f"{said}.")
    y = linear(low, 1.0, BOTTOM, TOP)
    upright_axis(drawing, y, round_steps(low, 1.0), lambda t: f"{t:.3g}", measure.label)
    lines: list[tuple[str, str]] = []
    if bare is not None and bare.utility.estimate is not None:
        level(drawing, bare.utility, y)
        lines.append((legend_line("s6 level"), f"{phrases.mechanism('none')} (band: 95% interval)"))
    if measure.guess is not None:
        drawing.line(LEFT, y(measure.guess), RIGHT, y(measure.guess), "guess")
        lines.append((legend_line("guess"), "guessing"))
    _series(drawing, known, BudgetAxis(known), y)
    names = [m for m in budgets.mechanisms if any(s.mechanism == m for s in known)]
    caption = (
        f"{measure.label} of the final model on {budgets.heldout} that nobody trained on, mean over seeds, with 95% "
        f"intervals. {budgets.study['intervals']['how']} Marks of one budget stand side by side; lines only guide the "
        "eye. 'No privacy' holds the federation, pooled data and hospitals alone."
    )
    return Figure("utility", title, caption, drawing.svg(), (*legend(names), *lines), utility_table(budgets))


def level(drawing: Drawing, utility: Figures, y: Scale) -> None:
    """Draw the federation without privacy as a line with its interval."""
    if utility.estimate is None:
        return
    if utility.low is not None and utility.high is not None:
        corners = [(LEFT, y(utility.low)), (RIGHT, y(utility.low)), (RIGHT, y(utility.high)), (LEFT, y(utility.high))]
        drawing.area(corners, "levelband")
    drawing.line(LEFT, y(utility.estimate), RIGHT, y(utility.estimate), "s6 level")


def noise_figure(budgets: Budgets) -> Figure | None:
    """Draw the noise on the mean gradient over the budget, one series per mechanism."""
    known = [s for s in budgets.settings if s.row["noise_on_mean"] and s.mechanism != "central"]
    if not known:
        return None
    values = [float(s.row["noise_on_mean"]) for s in known]
    low, high = min(values) / 2, max(values) * 2
    title = "How much noise the mean gradient carries at each budget"
    said = "; ".join(f"{s.label}: {significant(s.row['noise_on_mean'])}" for s in known)
    drawing = Drawing(BOTTOM + BELOW, title, f"{said}.")
    y = logarithmic(low, high, BOTTOM, TOP)
    upright_axis(drawing, y, decades(low, high), significant, "standard deviation per coordinate, logarithmic")
    x, names = BudgetAxis(known), [m for m in budgets.mechanisms if any(s.mechanism == m for s in known)]
    x.draw(drawing, BOTTOM)
    for name, own in side_by_side(known, x).items():
        shape, look = LOOKS[name]
        points = [(at, y(float(s.row["noise_on_mean"])), s) for at, s in own]
        drawing.path([(at, height) for at, height, s in points if s.budget is not None], f"{look} line guide")
        for at, height, _ in points:
            drawing.mark(at, height, shape, look, 5)
    caption = (
        "Standard deviation of the noise on the mean gradient of one step, per coordinate, with every hospital there. "
        "Noise at the server is left out: it is on the mean of whole updates and counts hospitals, so it cannot be "
        "held against the others. Of hospitals that train alone it is that of the noisiest."
    )
    return Figure("noise", title, caption, drawing.svg(), tuple(legend(names)), noise_table(budgets))


def hospitals_figure(budgets: Budgets) -> Figure | None:
    """Draw what each hospital gets under each mechanism, at the budget that the first screen is about."""
    at = budgets.shown.budget
    beside = [s for m in budgets.mechanisms if (s := budgets.get(m, at if m not in ("none",) else None))]
    beside = [s for s in beside if s.mechanism not in ("clip_only", "noise_only")]
    names = list(budgets.shown.row["hospitals"])[:MOST_HOSPITALS]
    own = {name: [(s, Figures.of(s.row["hospitals"][name])) for s in beside] for name in names}
    values = [v for found in own.values() for _, f in found for v in (f.low, f.estimate) if v is not None]
    if len(names) < 2 or not values:
        return None
    low = min(scale_start(budgets.measure.key), min(values) // 0.1 * 0.1)
    rows = [ChartRow(name, _held(found), _dots(found)) for name, found in own.items()]
    where = f"at ε = {budget(at)}" if at is not None else "without privacy"
    title = f"What each hospital gets {where}"
    svg = row_chart(
        title,
        rows,
        linear(low, 1.0, 8, RIGHT - 8),
        [(t, f"{t:.3g}") for t in round_steps(low, 1.0)],
        budgets.measure.label,
        max(TALL, APART * len(beside) + 44),
    )
    left = f" The first {len(names)} of {budgets.hospitals} are drawn." if len(names) < budgets.hospitals else ""
    caption = (
        f"{budgets.measure.label} on each hospital's own held-out images (n at the right), with 95% intervals where "
        "there are enough. 'Each hospital alone' is its own model. A hospital without marks has too few images, or of "
        f"one class only.{left}"
    )
    table = hospital_figures_table(budgets, beside)
    return Figure("hospitals-chart", title, caption, svg, tuple(legend([s.mechanism for s in beside])), table)


def _series(drawing: Drawing, known: Sequence[Setting], x: BudgetAxis, y: Scale) -> None:
    x.draw(drawing, BOTTOM)
    for name, own in side_by_side(known, x).items():
        shape, look = LOOKS[name]
        points = [(at, y(s.utility.estimate or 0.0), s) for at, s in own]
        drawing.path([(at, height) for at, height, s in points if s.budget is not None], f"{look} line guide")
        for at, height, s in points:
            span(drawing, at, y, (s.utility.low, s.utility.high), look)
            drawing.mark(at, height, shape, look, 4.5)


def _held(found: Sequence[tuple[Setting, Figures]]) -> str:
    return f"n = {found[0][1].n:,}" if found and found[0][1].n else ""


def _dots(found: Sequence[tuple[Setting, Figures]]) -> tuple[Dot, ...]:
    dots: list[Dot] = []
    for k, (setting, own) in enumerate(found):
        ends = None if own.low is None or own.high is None else (own.low, own.high)
        lift = ((len(found) - 1) / 2 - k) * APART
        dots.append(Dot(own.estimate, *LOOKS[setting.mechanism], ends, lift))
    return tuple(dots)
