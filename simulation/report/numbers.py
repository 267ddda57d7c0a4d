"""How numbers are written for people."""

from collections.abc import Sequence

DASH = "–"
_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def decimal(value: float | None, places: int = 2) -> str:
    """Write a number with so many decimals; a dash where there is none."""
    return DASH if value is None else f"{value:.{places}f}"


def significant(value: float | None, digits: int = 3) -> str:
    """Write a number with so many significant digits: 0.0123, 8.5, 1,200,000, 3.4 × 10⁹."""
    if value is None:
        return DASH
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    size = abs(rounded)
    if size >= 1e7 or size < 1e-4:
        return _power(rounded, digits)
    if size >= 100:
        return f"{rounded:,.0f}"
    return f"{rounded:.{digits}g}"


def budget(value: float | str | None) -> str:
    """Write a privacy budget: 8, 1,000, 10⁹; `none` and nothing as words."""
    if value is None or isinstance(value, str):
        return "none"
    return significant(value)


def percent(rate: float | None) -> str:
    """Write a rate as a percentage, finer where it is small and never rounded to 0 or 100 unless it is."""
    if rate is None:
        return DASH
    if rate in (0, 1) or 0.0995 <= rate < 0.995:
        return f"{100 * rate:.0f}%"
    if rate >= 0.9995:
        return "over 99.9%"
    if rate >= 0.995:
        return f"{100 * rate:.1f}%"
    return f"{100 * rate:.2g}%" if rate >= 1e-5 else "under 0.001%"


def interval(bounds: Sequence[float]) -> str:
    """Write an interval of rates."""
    return f"{percent(bounds[0])} to {percent(bounds[1])}"


def p_value(value: float | None) -> str:
    """Write a p-value: 'p = 0.03', 'p < 0.001', or a dash."""
    if value is None:
        return DASH
    if value < 0.001:
        return "p < 0.001"
    return f"p = {value:.2g}"


def counted(number: int, noun: str) -> str:
    """Write a number of things: '1 image', '1,280 images'."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(items: Sequence[str], most: int = 6) -> str:
    """Join words as people do: 'a, b and c'; what goes beyond `most` is counted."""
    if len(items) > most:
        items = [*items[: most - 1], f"{len(items) - most + 1:,} more"]
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def _power(value: float, digits: int) -> str:
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = f"10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    factor = float(mantissa)
    return power if factor == 1 else f"{factor:g} × {power}"
