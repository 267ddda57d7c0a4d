"""A figure with its interval, and how a study's report writes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from simulation.report.numbers import DASH, decimal

Row = Mapping[str, Any]


@final
@dataclass(frozen=True)
class Figures:
    """A number with its interval, and what it was measured on.

    Attributes:
        estimate: None where it could not be measured.
        low, high: the 95 % interval; None without one.
        n: records; None where the row does not say.
        why: why a part is missing; empty where nothing is.
    """

    estimate: float | None
    low: float | None
    high: float | None
    n: int | None = None
    why: str = ""

    @classmethod
    def of(cls, row: Row | None, key: str = "estimate", why: str = "it was not measured") -> "Figures":
        """Read a row; a missing one is not measured."""
        if row is None:
            return cls(None, None, None, why=why)
        return cls(row[key], row["low"], row["high"], row.get("n"), str(row.get("why", "")))

    @classmethod
    def loose(cls, row: Row | float | None) -> "Figures":
        """Read a figure that may be a bare number, or lack its interval."""
        if isinstance(row, Mapping):
            return cls(row.get("estimate"), row.get("low"), row.get("high"), row.get("n"), str(row.get("why", "")))
        return cls(row, None, None, why="" if row is not None else "it was not measured")

    @property
    def short(self) -> str:
        """For a table: '0.842 (0.801 to 0.873)'."""
        if self.estimate is None:
            return DASH
        return exact(self.estimate) if self.low is None else f"{exact(self.estimate)} ({self.ends})"

    @property
    def signed(self) -> str:
        """A difference for a table: '−0.030 (−0.061 to +0.010)'."""
        if self.estimate is None:
            return DASH
        return f"{plus(self.estimate)}{'' if self.low is None else f' ({plus(self.low)} to {plus(self.high)})'}"

    @property
    def ends(self) -> str:
        """The interval."""
        return f"{exact(self.low)} to {exact(self.high)}"

    @property
    def said(self) -> str:
        """For a sentence: '0.842 (95% interval 0.801 to 0.873)', or why there is none."""
        if self.estimate is None:
            return f"not measured ({self.why})"
        return f"{exact(self.estimate)} ({self.span})"

    @property
    def span(self) -> str:
        """The interval in words, or why there is none."""
        return f"no interval: {self.why}" if self.low is None else f"95% interval {self.ends}"

    @property
    def said_signed(self) -> str:
        """A difference for a sentence."""
        if self.estimate is None:
            return f"not measured ({self.why})"
        ends = f"95% interval {plus(self.low)} to {plus(self.high)}"
        return f"{plus(self.estimate)} ({f'no interval: {self.why}' if self.low is None else ends})"


def number(budget: float | str | None) -> float | None:
    """Return a budget as a number, None without one."""
    return None if budget is None or isinstance(budget, str) else float(budget)


def exact(value: float | None) -> str:
    """Write a metric: with three decimals, since tolerances are a few hundredths."""
    return decimal(value, 3)


def plus(value: float | None) -> str:
    """Write a difference with its sign: +0.030, −0.012, 0.000."""
    if value is None:
        return DASH
    text = exact(abs(value))
    return text if float(text) == 0 else f"{'+' if value > 0 else '−'}{text}"


def of(records: int | str) -> str:
    """Write what a figure was measured on, kept together on its line: 'n = 1,002'."""
    return f"n\u00a0=\u00a0{records if isinstance(records, str) else f'{records:,}'}"


def capital(text: str) -> str:
    """Begin a sentence."""
    return f"{text[:1].upper()}{text[1:]}"
