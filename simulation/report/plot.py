"""Drawings as SVG text: scales and marks. Colours are CSS classes, so that a page may be light or dark."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal, final

WIDTH = 480
Anchor = Literal["start", "middle", "end"]
Scale = Callable[[float], float]
MARKS = ("disc", "square", "triangle", "diamond", "ring", "cross")


@final
@dataclass
class Drawing:
    """An SVG image under construction. Coordinates are pixels at a width of 480, from the top left."""

    height: float
    title: str
    description: str
    parts: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, look: str) -> None:
        """Draw a straight line."""
        self.parts.append(f'<line class="{look}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def path(self, points: Sequence[tuple[float, float]], look: str) -> None:
        """Draw a line through points; one point alone draws nothing."""
        if len(points) > 1:
            joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            self.parts.append(f'<polyline class="{look}" points="{joined}"/>')

    def area(self, points: Sequence[tuple[float, float]], look: str) -> None:
        """Fill the area within points."""
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polygon class="{look}" points="{joined}"/>')

    def text(self, x: float, y: float, text: str, look: str = "", anchor: Anchor = "start") -> None:
        """Write text; y is its baseline."""
        attributes = f' class="{look}"' if look else ""
        place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
        self.parts.append(f"<text{attributes} {place}>{escape(text)}</text>")

    def mark(self, x: float, y: float, shape: str, look: str, size: float = 4.5) -> None:
        """Draw a mark; shapes tell series apart where colours cannot."""
        self.parts.append(mark(x, y, shape, look, size))

    def svg(self) -> str:
        """Return the image; its title and description are read out by screen readers."""
        name = escape(f"{self.title}. {self.description}", quote=True)
        body = "".join(self.parts)
        return f'<svg viewBox="0 0 {WIDTH} {self.height:.0f}" role="img" aria-label="{name}">{body}</svg>'


def mark(x: float, y: float, shape: str, look: str, size: float = 4.5) -> str:
    """Return one mark as SVG."""
    if shape in ("disc", "ring"):
        return f'<circle class="{look} {shape}" cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"/>'
    if shape == "cross":
        stroke = f"M{x - size:.1f} {y - size:.1f}l{2 * size} {2 * size}m0 {-2 * size}l{-2 * size} {2 * size}"
        return f'<path class="{look} cross" d="{stroke}"/>'
    s = size * 1.15
    corners = {
        "square": [
            (-size * 0.9, -size * 0.9),
            (size * 0.9, -size * 0.9),
            (size * 0.9, size * 0.9),
            (-size * 0.9, size * 0.9),
        ],
        "triangle": [(0, -s), (s, s * 0.8), (-s, s * 0.8)],
        "pointer": [(0, s), (s, -s * 0.8), (-s, -s * 0.8)],
        "diamond": [(0, -s * 1.1), (s * 1.1, 0), (0, s * 1.1), (-s * 1.1, 0)],
    }[shape]
    joined = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon class="{look} {shape}" points="{joined}"/>'


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Return a scale from values to pixels."""
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """Return a logarithmic scale from positive values to pixels."""
    inner = linear(math.log10(low), math.log10(high), start, end)
    return lambda value: inner(math.log10(value))


def decades(low: float, high: float, most: int = 6) -> list[float]:
    """Return the powers of ten from low to high, thinned to at most so many."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    step = max(1, math.ceil((last - first + 1) / most))
    return [10.0**power for power in range(first, last + 1, step)]


def round_steps(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers from low to high, at most about so many."""
    raw = (high - low) / most or 1.0
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(magnitude * factor for factor in (1, 2, 2.5, 5, 10) if magnitude * factor >= raw - 1e-12)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * k, 10) for k in range(first, last + 1)]


def spread_labels(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move labels apart until none is closer than `gap`, within low..high where that is possible."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed: list[float] = []
    for i in order:
        placed.append(max(wanted[i], placed[-1] + gap if placed else low))
    shift = max(0.0, placed[-1] - high) if placed else 0.0
    bottom = high
    for k in reversed(range(len(placed))):
        placed[k] = min(placed[k], bottom) if shift else placed[k]
        bottom = placed[k] - gap
    out = [0.0] * len(wanted)
    for k, i in enumerate(order):
        out[i] = placed[k]
    return out


def shortened(text: str, most: int) -> str:
    """Cut a text that does not fit."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
