"""The axis of budgets in a study's figures, and how each mechanism is drawn."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import final

from simulation.report import phrases
from simulation.report.budgets_rows import Setting
from simulation.report.frame import LEFT, RIGHT, TOP, legend_mark
from simulation.report.numbers import budget
from simulation.report.plot import Drawing, Scale

# (mark, colour): the same in every figure.
LOOKS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "distributed": ("triangle", "s2"),
        "local": ("disc", "s0"),
        "central": ("diamond", "s3"),
        "pooled": ("square", "s1"),
        "alone": ("ring", "s4"),
        "none": ("pointer", "s6"),
        "clip_only": ("cross", "s5"),
        "noise_only": ("diamond", "s5"),
    }
)
SLOTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"clip_only": ("clip", "only"), "noise_only": ("noise", "only"), "none": ("no", "privacy")}
)
STEP = 7.0  # pixels between marks that stand side by side
LARGEST_IN_FULL = 1e4


@final
class BudgetAxis:
    """Budgets evenly spaced; settings without one have places of their own at the right end.

    Evenly and not to scale: budgets that are tried lie close together at the private end, and far apart at the other.
    """

    def __init__(self, settings: Sequence[Setting]) -> None:
        self.budgets = sorted({s.budget for s in settings if s.budget is not None})
        without = {_slot(s) for s in settings if s.budget is None}
        self.slots = [name for name in SLOTS if name in without]
        self.width = (RIGHT - LEFT) / max(1, len(self.budgets) + len(self.slots))
        self.edge = LEFT + self.width * len(self.budgets)

    def __call__(self, setting: Setting) -> float:
        """Return the middle of a setting's place."""
        if setting.budget is not None:
            return LEFT + self.width * (self.budgets.index(setting.budget) + 0.5)
        return self.edge + self.width * (self.slots.index(_slot(setting)) + 0.5)

    def draw(self, drawing: Drawing, bottom: float) -> None:
        """Write the budgets that were tried below a figure."""
        for k, value in enumerate(self.budgets):
            drawing.text(LEFT + self.width * (k + 0.5), bottom + 20, written(value), "tick", "middle")
        for k, name in enumerate(self.slots):
            for line, word in enumerate(SLOTS[name]):
                at = self.edge + self.width * (k + 0.5)
                drawing.text(at, bottom + 20 + 15 * line, word, "tick", "middle")
        if self.slots and self.budgets:
            drawing.line(self.edge, TOP, self.edge, bottom + 5, "break")
        if self.budgets:
            drawing.text(LEFT, bottom + 54, "privacy budget ε, as tried; to the left is more private", "name")


def shifts(names: Sequence[str], width: float) -> dict[str, float]:
    """Return how far each of some marks stands from the middle of a place of this width."""
    step = min(STEP, 0.8 * width / max(1, len(names)))
    return {name: (k - (len(names) - 1) / 2) * step for k, name in enumerate(names)}


def side_by_side(settings: Sequence[Setting], x: BudgetAxis) -> dict[str, list[tuple[float, Setting]]]:
    """Return by mechanism where its settings stand: those that share a place stand beside each other in it."""
    places: dict[float, list[Setting]] = {}
    for setting in sorted(settings, key=lambda s: list(LOOKS).index(s.mechanism)):
        places.setdefault(x(setting), []).append(setting)
    found: dict[str, list[tuple[float, Setting]]] = {}
    for middle, own in places.items():
        moved = shifts([s.mechanism for s in own], x.width)
        for setting in own:
            found.setdefault(setting.mechanism, []).append((middle + moved[setting.mechanism], setting))
    return {name: sorted(own, key=lambda pair: pair[0]) for name, own in found.items()}


def legend(names: Sequence[str], text: Callable[[str], str] = phrases.mechanism) -> list[tuple[str, str]]:
    """Return the legend of some mechanisms."""
    return [(legend_mark(*LOOKS[name]), text(name)) for name in names]


def span(drawing: Drawing, at: float, scale: Scale, ends: tuple[float | None, float | None], look: str) -> None:
    """Draw an upright interval, where there is one."""
    low, high = ends
    if low is not None and high is not None:
        drawing.line(at, scale(low), at, scale(high), f"{look} span")


def _slot(setting: Setting) -> str:
    return setting.mechanism if setting.mechanism in ("clip_only", "noise_only") else "none"


def written(value: float) -> str:
    """Write a budget for an axis: large ones as powers of ten, which are shorter."""
    if value < LARGEST_IN_FULL:
        return budget(value)
    exponent = len(f"{value:.0f}") - 1
    factor = f"{value / 10.0**exponent:.3g}"
    power = f"10{''.join('⁰¹²³⁴⁵⁶⁷⁸⁹'[int(digit)] for digit in str(exponent))}"
    return power if factor == "1" else f"{factor}×{power}"
