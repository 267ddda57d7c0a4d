"""Studies of budgets as their summary.json has them, made by hand: figures are given, what follows is counted."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simulation.comparing_recommended import deaths, recommended
from tests.simulation.report.folders import HOSPITALS, mechanism_summary, write_run

Row = dict[str, Any]
Grid = Mapping[tuple[str, float | str], tuple[float, str]]

AGAINST = {
    "pooled": "whoever sees the models; not who holds the pooled data",
    "local": "the server, other hospitals and the public",
    "distributed": "the server, the public and each other hospital by itself",
    "central": "whoever receives the models, other hospitals too; not the server",
    "alone": "whoever sees its models; nothing else leaves the hospital",
}
NOISE = {"pooled": 1.0, "local": 2.0, "distributed": 1.2, "central": 50.0, "alone": 9.0}
RECORDS = dict(zip(HOSPITALS, (320, 80, 640, 160), strict=True))

# (utility, what the attacks got): the usual picture, in which 8 is the budget to take.
USUAL: Grid = {
    ("none", "none"): (0.88, "copied"),
    ("pooled", "none"): (0.885, "copied"),
    ("alone", "none"): (0.8, "nobody"),
    ("clip_only", "none"): (0.88, "copied"),
    ("noise_only", "none"): (0.7, "copied"),
    **{(m, 1e9): (0.88, "copied") for m in ("pooled", "local", "distributed", "central")},
    **{(m, 8.0): (0.875, "quiet") for m in ("pooled", "distributed")},
    ("local", 8.0): (0.85, "informed"),
    ("central", 8.0): (0.6, "copied"),
    ("alone", 8.0): (0.7, "nobody"),
    **{(m, 1.0): (0.7, "quiet") for m in ("pooled", "local", "distributed")},
    ("central", 1.0): (0.55, "copied"),
}

# One mechanism only, and pooled data that nobody attacks.
DEMO: Grid = {("none", "none"): (0.88, "copied"), ("local", 1e9): (0.87, "copied"), ("local", 8.0): (0.875, "quiet")}
BARE: Grid = {("none", "none"): (0.88, "nobody"), ("pooled", 8.0): (0.8, "nobody")}
GRIDS = {"usual": USUAL, "demo": DEMO, "bare": BARE}


def interval(estimate: float | None, half: float = 0.01, n: int = 160, key: str = "estimate") -> Row:
    """Return a figure with an interval of so much to either side."""
    if estimate is None:
        return {key: None, "low": None, "high": None, "n": n, "units": n - 9, "why": "one class only"}
    return {key: estimate, "low": estimate - half, "high": estimate + half, "n": n, "units": n - 9}


def difference(value: float | None, half: float = 0.01) -> Row:
    """Return a paired difference."""
    row = interval(value, half, key="difference")
    return {key: row[key] for key in row if key not in ("n", "units")} | {"seeds": 2}


def attack(goal: str, hits: int, targets: int, null: float, above: bool, bound: float | None = None) -> Row:
    """Return what an attack got."""
    rate = hits / targets
    return {
        "placement": "malicious_server",
        "attack": "imprint",
        "goal": goal,
        "targets": targets,
        "hits": hits,
        "rate": rate,
        "low": max(0.0, rate - 0.07),
        "high": min(1.0, rate + 0.07),
        "null": null,
        "p": 1e-9 if above else 0.4,
        "p_adjusted": 1e-8 if above else 1.0,
        "above_null": above,
        "noticed_from": 0.05 if goal == "copied" else 0.17,
        "bound_worst_case": bound,
        "bound_relaxed": bound,
    }


def attacks(got: str, bound: float | None) -> list[Row]:
    """Return the attacks of a setting: nothing tried, nothing got, images recognised when shown, images copied."""
    if got == "nobody":
        return []
    copied, informed = got == "copied", got in ("copied", "informed")
    return [
        attack("copied", 180 if copied else 0, 200, 0.0, copied),
        attack("identified", 50 if copied else 3, 64, 0.05, copied, bound),
        attack("informed", 60 if copied else 20 if informed else 4, 64, 0.05, informed, bound),
    ]


def setting(key: tuple[str, float | str], utility: float | None, got: str, bare: float | None, seeds: int) -> Row:
    """Return one row of `settings`; `bare` is the utility of the federation without privacy."""
    mechanism, budget = key
    priced = not isinstance(budget, str)
    bound = None if not priced or mechanism == "central" else 1.0 if budget > 100 else 0.08 * budget / 8
    tried = attacks(got, bound)
    noise = 10.0 / float(budget) if priced else 3.6 if mechanism == "noise_only" else None
    hospitals = {
        name: {
            **interval(None if utility is None else utility - 0.05 * k, 0.04, 40 + k),
            "records": None if mechanism == "pooled" else RECORDS[name],
            "sample_rate": 0.2,
            "noise_multiplier": noise or 0.0,
            "noise_added": (noise or 0.0) * (0.58 if mechanism == "distributed" else 1.0),
            "epsilon_upper": budget if priced else None,
            "epsilon_opacus_rdp": float(budget) * 1.1 if priced else None,
        }
        for k, name in enumerate(HOSPITALS)
    }
    worst = HOSPITALS[-1]
    known = utility is not None
    return {
        "mechanism": mechanism,
        "budget": budget,
        "cells": [f"{mechanism}-{budget}-seed-{10 + k}" for k in range(seeds)],
        "seeds": seeds,
        "metric": "auroc",
        "utility": interval(utility),
        "hospitals": hospitals,
        "worst_hospital": {"name": worst, **{k: hospitals[worst][k] for k in ("estimate", "low", "high")}}
        if known
        else None,
        "minority": {
            "class": "attention",
            "metric": "recall",
            **interval(None if utility is None else 0.4, 0.1, 40),
            "specificity": interval(None if utility is None else 0.93, 0.02, 120),
            "against_none": None if bare is None else difference(None if utility is None else 0.0),
        },
        "noise_multiplier": {"min": noise, "max": noise} if noise else None,
        "noise_on_mean": 0.0 if noise is None else noise * NOISE.get(mechanism, 1.0) / 100,
        "epsilon": {"lower": budget, "estimate": budget, "upper": budget, "method": "rigorous"} if priced else None,
        "epsilon_opacus_rdp": float(budget) * 1.1 if priced else None,
        "delta": 1e-5 if priced else None,
        "protects": ("hospital" if mechanism == "central" else "image") if priced else None,
        "against": AGAINST[mechanism] if priced else "nobody",
        "bounds": {"prior": 0.0125, "worst_case": 1.0 if budget > 100 else 0.09, "relaxed": 0.05} if priced else None,
        "attack": max(tried, key=lambda a: (a["above_null"], a["rate"] - a["null"]), default=None),
        "attacks": tried,
        "against_none": None if bare is None else difference(None if utility is None else utility - bare),
        "against_pooled": None,
        "why": {} if tried else {"attack": "nobody sits in an adversary's seat here, so nothing was tried"},
    }


def study(grid: Grid = USUAL, *, seeds: int = 2, tolerance: float = 0.02, **changes: Any) -> Row:
    """Return a study's summary; cells are of the first setting of each mechanism's kind."""
    bare = grid[("none", "none")][0] if ("none", "none") in grid else None
    settings = [setting(key, *value, bare, seeds) for key, value in grid.items()]
    cells = [
        {
            "cell": name,
            "mechanism": row["mechanism"],
            "budget": row["budget"],
            "seed": 10 + k,
            "hospital": None,
            "folder": f"cells/{name}",
            "summary": mechanism_summary(row["mechanism"], row["budget"]),
        }
        for row in settings
        for k, name in enumerate(row["cells"])
    ]
    content: Row = {
        "kind": "study",
        "title": "hand-made",
        "axes": {"tolerance": tolerance},
        "refused": [],
        "notes": [],
        "cells": cells,
        "settings": settings,
        "equal_noise": equal_noise(grid),
        "joining": joining(grid),
        "price": price(grid),
        "deaths": deaths(settings),
        "recommended": recommended(settings, tolerance),
        "intervals": {"level": 0.95, "how": f"Intervals come from images and {seeds} seeds."},
    }
    return content | changes


def joining(grid: Grid) -> list[Row]:
    """Return what each hospital gains: the first one does, the second loses, for the others nothing is shown."""
    rows: list[Row] = []
    for mechanism, budget in grid:
        if mechanism in ("none", "local", "distributed", "central") and ("alone", budget) in grid:
            for name, gain in zip(HOSPITALS, (0.1, -0.08, 0.005, None), strict=True):
                joined = None if gain is None else 0.75 + gain
                head = {"budget": budget, "hospital": name, "mechanism": mechanism}
                rows.append(head | {"alone": 0.75, "joined": joined} | difference(gain, 0.02))
    return rows


def price(grid: Grid) -> list[Row]:
    """Return what federation costs beside pooled data."""
    return [
        {"budget": b, "mechanism": m, "noise_ratio": NOISE.get(m)} | difference(grid[m, b][0] - grid["pooled", b][0])
        for m, b in grid
        if m in ("none", "local", "distributed", "central") and ("pooled", b) in grid
    ]


def equal_noise(grid: Grid) -> list[Row]:
    """Return what mechanisms pay at pooled's noise."""
    return [
        {
            "budget": b,
            "noise_on_mean": 0.01,
            "mechanism": m,
            "noise_multiplier": 1.0,
            "epsilon_upper": float(b) * NOISE[m],
            "protects": "hospital" if m == "central" else "image",
            "note": "Utility is that of the pooled cell in law.",
        }
        for p, b in grid
        if p == "pooled" and not isinstance(b, str)
        for m in ("pooled", "local", "distributed", "central")
    ]


def write(folder: Path, content: Row, pictured: Sequence[str] = ("none", "distributed")) -> Path:
    """Write a study's folder; the runs of some mechanisms with their tables and pictures."""
    for cell in content["cells"]:
        if cell["mechanism"] in pictured:
            write_run(folder / cell["folder"], cell["summary"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
