"""The table of a study of placements: rows of releases pooled by counts, nulls and tests beside them."""

from collections.abc import Sequence
from typing import Any

from simulation.scoring.exact_tests import binomial_p, clopper_pearson, holm
from simulation.scoring.score import RECOVERED_SSIM

Row = dict[str, Any]

POOLED = "all"
# What is averaged over releases, and by which count.
RATES = {
    "recovered": "targets",
    "null_recovered": "targets",
    "visible": "targets",
    "null_visible": "targets",
    "paper_recovered": "targets",
    "paper_null_recovered": "targets",
    "mean_ssim": "targets",
    "null_mean_ssim": "targets",
    "mean_psnr": "targets",
    "null_mean_psnr": "targets",
    "label_error": "targets",
    "null_label_error": "targets",
    "public_distance": "targets",
    "rank1": "ranked",
    "identified_informed": "ranked",
}
TESTS = ("success_p", "visible_p", "rank1_p", "identified_informed_p")
SIGNIFICANT = 0.05


def success_of(row: Row) -> Row:
    """Return what every kind of attack states of its success, in the same words.

    Attack rows carry `success*` themselves; of images that do not, it is the share of copies. `success_n` is what the
    share is of: ranked targets for attacks that are shown candidates, else all targets.
    """
    images = row.get("yields") == "images"
    shown = row.get("yields") in ("candidates", "members")
    count = row.get("success_n", row.get("ranked") if shown else row["targets"])
    return {
        "n": int(count or 0),
        "success": row.get("success", row.get("recovered") if images else None),
        "success_null": row.get("success_null", row.get("null_recovered") if images else None),
        "success_p": row.get("success_p", row.get("above_null_p") if images else None),
        "success_name": row.get("success_name", f"copied (SSIM > {RECOVERED_SSIM:g})" if images else ""),
    }


def pooled_row(rows: Sequence[Row], targets: Sequence[Row]) -> Row:
    """Return the rates of one attack over several releases and seeds, by counts.

    The interval is exact (Clopper-Pearson) for independent trials. Images of one run share a release and a model, and
    seeds draw from the same data, so the true interval is somewhat wider.

    p-values: of images the exact paired test over all images of all releases, of identification the exact binomial
    test at the fewest decoys; of anything else the smallest p-value times their number (Bonferroni), which holds
    however they depend on each other.

    Args:
        rows: of the attack, one per release; may be empty.
        targets: their rows per target image.
    """
    counted = [row | success_of(row) for row in rows]
    of = [row for row in counted if row["n"] and row["success"] is not None]
    n = sum(row["n"] for row in of)
    hits = sum(round(row["success"] * row["n"]) for row in of)
    low, high = clopper_pearson(hits, n) if n else (None, None)
    names = list(dict.fromkeys(row["success_name"] for row in of))
    whys = list(dict.fromkeys(str(row["why"]) for row in counted if row.get("why")))
    return {
        "yields": counted[0]["yields"] if counted else None,
        "releases": len(counted),
        "rounds": max((int(row.get("rounds", 1)) for row in counted), default=0),
        "n": n,
        "hits": hits if n else None,
        "success_name": " or ".join(names) or None,
        "success": hits / n if n else None,
        "success_low": low,
        "success_high": high,
        "success_null": _mean(of, "success_null", "n"),
        "success_p": _success_p(of, targets, hits, n),
        "targets": sum(int(row["targets"]) for row in counted),
        **{key: _mean(counted, key, weight) for key, weight in RATES.items()},
        "visible_p": _bonferroni(counted, "visible_p"),
        "ranked": sum(int(row.get("ranked") or 0) for row in counted),
        "decoys": _decoys(counted),
        "rank1_p": _identified_p(counted, "rank1"),
        "identified_informed_p": _identified_p(counted, "identified_informed"),
        "bound_worst_case": max((r["bound_worst_case"] for r in counted if r.get("bound_worst_case")), default=None),
        "bound_relaxed": max((r["bound_relaxed"] for r in counted if r.get("bound_relaxed")), default=None),
        "why": "; ".join(whys),
    }


def adjust(rows: Sequence[Row]) -> None:
    """Add `*_holm` to the pooled rows: adjusted for every test of the table. Rows of single seeds get none."""
    tests = [(row, key) for row in rows if row["seed"] == POOLED for key in TESTS if row.get(key) is not None]
    adjusted = holm([row[key] for row, key in tests]) if tests else []
    for row in rows:
        row.update({f"{key}_holm": None for key in TESTS})
    for (row, key), value in zip(tests, adjusted, strict=True):
        row[f"{key}_holm"] = value


def findings(row: Row) -> list[str]:
    """Return which of success, visible, rank1 and identified_informed lie above their nulls, all tests allowed for."""
    return [
        key.removesuffix("_p")
        for key in TESTS
        if row.get(f"{key}_holm") is not None and row[f"{key}_holm"] < SIGNIFICANT
    ]


def _success_p(rows: Sequence[Row], targets: Sequence[Row], hits: int, n: int) -> float | None:
    if not rows:
        return None
    if rows[0]["yields"] == "images" and targets:
        pairs = [(_above(t, "ssim"), _above(t, "null_ssim")) for t in targets]
        gained = sum(ours and not null for ours, null in pairs)
        lost = sum(null and not ours for ours, null in pairs)
        return binomial_p(gained, gained + lost, 0.5)  # McNemar's exact test, as for one release
    nulls = [row["success_null"] for row in rows]
    if rows[0]["yields"] == "candidates" and None not in nulls:
        return binomial_p(hits, n, max(nulls))
    return _bonferroni(rows, "success_p")


def _above(target: Row, key: str) -> bool:
    return float(target[key]) > RECOVERED_SSIM


def _identified_p(rows: Sequence[Row], key: str) -> float | None:
    """Return the exact p-value of identification; None where it is the success itself and was tested as such."""
    of = [row for row in rows if row["yields"] == "images" and row.get("ranked") and row.get(key) is not None]
    if not of:
        return None
    hits = sum(round(row[key] * row["ranked"]) for row in of)
    return binomial_p(hits, sum(int(row["ranked"]) for row in of), 1 / (_decoys(of) + 1))


def _decoys(rows: Sequence[Row]) -> int:
    return min((int(row["decoys"]) for row in rows if row.get("ranked")), default=0)


def _bonferroni(rows: Sequence[Row], key: str) -> float | None:
    known = [float(row[key]) for row in rows if row.get(key) is not None]
    return min(1.0, min(known) * len(known)) if known else None


def _mean(rows: Sequence[Row], key: str, weight: str) -> float | None:
    known = [(float(row[key]), int(row[weight])) for row in rows if row.get(key) is not None and row.get(weight)]
    total = sum(count for _, count in known)
    return sum(value * count for value, count in known) / total if total else None
