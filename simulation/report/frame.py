"""What every figure has: a legend, a table, axes and rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from simulation.report.plot import Drawing, Scale, linear, mark, round_steps, shortened
from simulation.report.tables import Table

LEFT, RIGHT, TOP = 46.0, 468.0, 30.0
ROW = 46.0


@final
@dataclass(frozen=True)
class Figure:
    """A figure with its table.

    Attributes:
        key: its id in the page.
        title, caption: what it shows, and what its numbers assume.
        svg: the drawing.
        legend: (mark as SVG, meaning).
        table: the numbers.
    """

    key: str
    title: str
    caption: str
    svg: str
    legend: tuple[tuple[str, str], ...]
    table: Table


@final
@dataclass(frozen=True)
class Dot:
    """A mark in a row chart; `lift` moves it off the rail in pixels, so that equal values stay visible."""

    value: float | None
    shape: str
    look: str
    interval: tuple[float, float] | None = None
    lift: float = 0.0


@final
@dataclass(frozen=True)
class ChartRow:
    """One row of a row chart: its name, a remark at the right end, its marks."""

    name: str
    remark: str
    dots: tuple[Dot, ...]


def legend_mark(shape: str, look: str) -> str:
    """Return a mark for a legend."""
    return _key(mark(8, 8, shape, look))


def legend_line(look: str) -> str:
    """Return a piece of line for a legend."""
    return _key(f'<line class="{look}" x1="0" y1="8" x2="16" y2="8"/>')


def upright_axis(
    drawing: Drawing, scale: Scale, ticks: Sequence[float], write: Callable[[float], str], name: str
) -> None:
    """Draw a vertical axis with grid lines; its name stands above it."""
    drawing.text(0, 14, name, "name")
    for tick in ticks:
        drawing.line(LEFT, scale(tick), RIGHT, scale(tick), "grid")
        drawing.text(LEFT - 6, scale(tick) + 4, write(tick), "tick", "end")


def round_axis(drawing: Drawing, rounds: int, end: float, bottom: float) -> Scale:
    """Draw a horizontal axis of rounds and return its scale."""
    scale = linear(1, max(2, rounds), LEFT + 4, end)
    last = -100.0
    for tick in sorted({1, *(round(t) for t in round_steps(1, max(2, rounds), 5))}):
        if 1 <= tick <= rounds and scale(tick) - last > 28:
            drawing.text(scale(tick), bottom + 18, f"{tick:,}", "tick", "middle")
            last = scale(tick)
    drawing.text((LEFT + end) / 2, bottom + 36, "round", "name", "middle")
    return scale


def row_chart(
    title: str,
    rows: Sequence[ChartRow],
    scale: Scale,
    ticks: Sequence[tuple[float, str]],
    axis: str,
    height: float = ROW,
) -> str:
    """Draw one row per thing, all on one horizontal scale, and return the SVG; `height` is that of a row."""
    bottom = TOP + height * len(rows)
    said = "; ".join(f"{row.name}: {row.remark}" for row in rows)
    drawing = Drawing(bottom + 26, title, f"{said}.")
    drawing.text(0, 14, axis, "name")
    for value, text in ticks:
        drawing.line(scale(value), TOP - 4, scale(value), bottom, "grid")
        drawing.text(scale(value), bottom + 18, text, "tick", "middle")
    for k, row in enumerate(rows):
        top = TOP + height * k
        drawing.text(0, top + 10, shortened(row.name, 34), "label halo")
        drawing.text(RIGHT + 8, top + 10, row.remark, "tick halo", "end")
        y = top + 6 + height / 2
        drawing.line(0, y, RIGHT + 8, y, "rail")
        for dot in row.dots:
            if dot.interval is not None:
                at = y - dot.lift
                drawing.line(scale(dot.interval[0]), at, scale(dot.interval[1]), at, f"{dot.look} span")
        for dot in row.dots:
            if dot.value is not None:
                drawing.mark(scale(dot.value), y - dot.lift, dot.shape, dot.look, 5.5)
    return drawing.svg()


def _key(inside: str) -> str:
    return f'<svg class="key" viewBox="0 0 16 16" aria-hidden="true">{inside}</svg>'
