"""A plan as JSON and as tables."""

import math
from typing import Any

from rich.console import Console
from rich.table import Table

import privacy
from simulation.budgets_plan_rows import PlanRow


def row_content(row: PlanRow) -> dict[str, Any]:
    """Return one row as JSON content, with every hospital; null where nothing is known or claimed."""
    head: dict[str, Any] = {"mechanism": row.setting.mechanism, "budget": row.setting.budget}
    if row.places is None:
        return {**head, "why": row.why}
    worst, most = row.worst_off(), row.most()
    noises = [t.noise_multiplier for t in row.terms if t.noise_multiplier is not None]
    added = [t.noise_added for t in row.terms if t.noise_added is not None]
    return {
        **head,
        "noise_multiplier": {"min": min(noises), "max": max(noises)} if noises else None,
        "noise_added": {"min": min(added), "max": max(added)} if added else None,
        "noise_on_mean": {"min": float(row.noise_on_mean.min()), "max": float(row.noise_on_mean.max())},
        "epsilon": _price(worst.epsilon),
        "epsilon_opacus_rdp": _finite(worst.epsilon.opacus_rdp) if worst.epsilon else None,
        "delta": row.delta,
        "steps": row.steps,
        "protects": row.protection.protects,
        "against": row.protection.against,
        "bounds": {"prior": most.prior, "worst_case": most.worst_case, "relaxed": row.relaxed},
        "noise_more_than_needed": row.more,
        "places": _places(row),
        "notes": list(row.notes),
    }


def _places(row: PlanRow) -> list[dict[str, Any]]:
    """Return every hospital (or the one place, or the server) with its terms."""
    places = row.places
    if places is None:
        return []
    per_class = [
        {
            "noise_multiplier": t.noise_multiplier,
            "noise_added": t.noise_added,
            "epsilon_upper": _finite(t.epsilon.upper) if t.epsilon else None,
            "epsilon_opacus_rdp": _finite(t.epsilon.opacus_rdp) if t.epsilon else None,
            "worst_case": t.worst_case,
        }
        for t in row.terms
    ]
    size = "hospitals" if row.setting.mechanism == "central" else "units"
    each = row.noise_on_mean.tolist() if len(row.noise_on_mean) == len(places.names) else None
    alone = row.setting.mechanism == "alone"
    return [
        {
            "name": name,
            size: int(places.units[k]),
            "sample_rate": float(places.rates[k]),
            **per_class[int(places.members[k])],
            **({"noise_on_mean": each[k]} if alone and each else {}),
        }
        for k, name in enumerate(places.names)
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _price(price: privacy.Epsilon | None) -> dict[str, Any] | None:
    if price is None or not math.isfinite(price.upper):
        return None
    return {"lower": price.lower, "estimate": price.estimate, "upper": price.upper, "method": price.method}


def show_rows(rows: list[PlanRow], out: Console) -> None:
    """Print one line per mechanism and budget; smallest / median / largest hospital where they differ."""
    table = Table(title="Plan: nothing was trained", title_justify="left")
    for name in ("mechanism", "budget"):
        table.add_column(name)
    for name in ("epsilon", "opacus'", "noise multiplier", "a hospital adds", "noise on the mean", "found at most"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("protects")
    before = rows[0].setting.mechanism
    for row in rows:
        if row.setting.mechanism != before:
            table.add_section()
        before = row.setting.mechanism
        budget = "as given" if row.setting.budget is None else _budget(row.setting.budget)
        if row.places is None:
            table.add_row(row.setting.mechanism, budget, *["-"] * 6, "cannot be")
            continue
        three = [row.terms[int(row.places.members[k])] for k in row.places.spread()]
        table.add_row(
            row.setting.mechanism,
            budget,
            _differing([t.epsilon.upper if t.epsilon else None for t in three]),
            _differing([t.epsilon.opacus_rdp if t.epsilon else None for t in three]),
            _differing([t.noise_multiplier for t in three]),
            _differing([t.noise_added for t in three]),
            _means(row),
            _differing([t.worst_case for t in three]),
            row.protection.protects or "nobody",
        )
    out.print(table)
    for mechanism, words in {r.setting.mechanism: r.protection for r in rows if r.protection.protects}.items():
        out.print(f"{mechanism} protects each {words.protects} from {words.against}.", highlight=False)
    for why in dict.fromkeys(f"{r.setting.mechanism} cannot be: {r.why}" for r in rows if r.why):
        out.print(why, highlight=False)


def show_equal(rows: list[dict[str, Any]], out: Console) -> None:
    """Print what mechanisms pay at equal noise, one line per budget of pooled data."""
    if not rows:
        return
    mechanisms = list(dict.fromkeys(r["mechanism"] for r in rows))
    table = Table(title="What each pays at equal noise on the mean gradient (epsilon)", title_justify="left")
    for name in ("noise on the mean", *mechanisms):
        per_hospital = " (per hospital)" if name == "central" else ""
        table.add_column(f"{name}{per_hospital}", justify="right")
    for mean in dict.fromkeys(r["noise_on_mean"] for r in rows):
        paid = {r["mechanism"]: r["epsilon_upper"] for r in rows if r["noise_on_mean"] == mean}
        table.add_row(_short(mean), *[_short(paid[m]) for m in mechanisms])
    out.print(table)


def _means(row: PlanRow) -> str:
    if row.places is None or len(row.noise_on_mean) == 1:
        return _short(float(row.noise_on_mean[0]))
    return _differing([float(row.noise_on_mean[k]) for k in row.places.spread()])


def _differing(three: list[float | None]) -> str:
    """Return smallest / median / largest hospital's value, or the one that is all of theirs."""
    shown = [_short(v) for v in three]
    return shown[0] if len(set(shown)) == 1 else " / ".join(shown)


def _budget(budget: float | str) -> str:
    return budget if isinstance(budget, str) else f"{budget:g}"


def _short(value: float | None) -> str:
    """Return three digits: 0.0131, 1.02, 1,270, 1.3e-05."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{float(f'{value:.3g}'):,.0f}" if 1e3 <= abs(value) < 1e5 else f"{value:.3g}"
