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
            drawing.text(LEFT + self.width * (k + 0.5), bottom + 20, _written(value), "tick", "middle")
        for k, name in enumerate(self.slots):
            for line, word in enumerate(SLOTS[name]):
                at = self.edge + self.width * (k + 0.5)
                drawing.text(at, bottom + 20 + 15 * line, word, "tick", "middle")
        if self.slots and self.budgets:
            drawing.line(self.edge, TOP, self.edge, bottom + 5, "break")
        if self.budgets:
            drawing.text(LEFT, bottom + 54, "privacy budget ε, as tried; to the left is more private", "name")


def shifts(names: Sequence[str], width: float) -> dict[str, float]:
    """Return how far each series stands from the middle of a place of this width."""
    step = min(STEP, 0.8 * width / max(1, len(names)))
    return {name: (k - (len(names) - 1) / 2) * step for k, name in enumerate(names)}


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


def _written(value: float) -> str:
    if value < LARGEST_IN_FULL:
        return budget(value)
    return budget(value) if budget(value).startswith("10") and "," not in budget(value) else power(value)


def power(value: float) -> str:
    """Write a large budget as a power of ten, shorter than in full."""
    exponent = len(f"{value:.0f}") - 1
    factor = value / 10.0**exponent
    raised = "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(exponent))
    return f"10{raised}" if factor == 1 else f"{factor:.3g}×10{raised}"
