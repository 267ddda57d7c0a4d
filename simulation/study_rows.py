"""One line per cell of a study, for `budgets.csv`."""

from typing import Any

Row = dict[str, Any]


def budget_row(row: Row) -> Row:
    """Return one line of `budgets.csv`: utility, price, and each attack summed over the hospitals.

    Where the promise is made to hospitals (`central`), the price and the noise are the server's.
    """
    summary = row["summary"]
    hospitals, central = summary["hospitals"], summary.get("central")
    promised = [central] if central else hospitals
    claimed = [h["epsilon"]["upper"] for h in promised if h["epsilon"]]
    rdp = [h["epsilon_opacus_rdp"] for h in promised if h["epsilon_opacus_rdp"] is not None]
    noises = [h["noise_multiplier"] for h in promised]
    out: Row = {
        **{key: row[key] for key in ("cell", "mechanism", "budget", "seed", "hospital")},
        **summary["metrics"],
        "protects": promised[0]["unit"] if claimed else None,
        "epsilon_upper": max(claimed) if len(claimed) == len(promised) else None,
        "epsilon_opacus_rdp": max(rdp) if rdp else None,
        "noise_multiplier_min": min(noises),
        "noise_multiplier_max": max(noises),
        "noise_added_max": None if central else max(h["noise_added"] for h in hospitals),
    }
    for name in sorted({a["attack"] for a in summary["attacks"]}):
        out.update(_attack_columns(name, [a for a in summary["attacks"] if a["attack"] == name and a["targets"]]))
    return out


def _attack_columns(name: str, own: list[Row]) -> Row:
    images = [a for a in own if a["yields"] == "images"]
    if images or not own:
        return {f"{name}_{key}": value for key, value in pooled_attack(images).items()}
    judged = [a for a in own if a.get("success") is not None]
    out: Row = {}
    for key in ("success", "success_null"):
        known = [(a[key], a["targets"]) for a in judged if a.get(key) is not None]
        out[f"{name}_{key}"] = sum(v * n for v, n in known) / sum(n for _, n in known) if known else None
    return out


def pooled_attack(rows: list[Row]) -> Row:
    """Return the rates of one attack over several hospitals, weighted by their targets."""
    targets = sum(r["targets"] for r in rows)
    ranked = sum(r["ranked"] for r in rows)

    def over(key: str, weight: str, total: int) -> float | None:
        if not total or any(r.get(key) is None for r in rows if r[weight]):
            return None
        return sum(r[key] * r[weight] for r in rows if r[weight]) / total

    return {
        "targets": targets,
        "recovered": over("recovered", "targets", targets),
        "null_recovered": over("null_recovered", "targets", targets),
        "visible": over("visible", "targets", targets),
        "null_visible": over("null_visible", "targets", targets),
        "paper_recovered": over("paper_recovered", "targets", targets),
        "paper_null_recovered": over("paper_null_recovered", "targets", targets),
        "public_distance": over("public_distance", "targets", targets),
        "mean_ssim": over("mean_ssim", "targets", targets),
        "null_mean_ssim": over("null_mean_ssim", "targets", targets),
        "ranked": ranked,
        "decoys": min((r["decoys"] for r in rows if r["ranked"]), default=0),
        "rank1": over("rank1", "ranked", ranked),
        "identified_informed": over("identified_informed", "ranked", ranked),
        "bound_worst_case": max(
            (r["bound_worst_case"] for r in rows if r["bound_worst_case"] is not None), default=None
        ),
    }


def flat_row(row: Row) -> Row:
    """Return one row of `summary["settings"]` as one line of `settings.csv`: nested values by dotted names.

    What has rows of its own there (cells, hospitals, every attack tried) is left to `summary.json`.
    """
    out: Row = {}
    for key, value in row.items():
        if key in ("cells", "hospitals", "attacks"):
            continue
        if isinstance(value, dict):
            out.update({f"{key}.{inner}": v for inner, v in flat_row(value).items()})
        else:
            out[key] = value
    return out
