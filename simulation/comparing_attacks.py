"""Whether an attack beats its null in a setting of a study: hospitals and seeds together, all tests allowed for."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import beta

from simulation.placements_rows import SIGNIFICANT, pooled_row
from simulation.scoring.exact_tests import binomial_p, clopper_pearson, holm

Row = dict[str, Any]

# What an attack may achieve, and under which key a pooled row says how often. `success` is a goal by what is yielded.
SUCCESS: Mapping[str, str] = {"images": "copied", "candidates": "informed", "members": "members", "labels": "labels"}
MORE: Mapping[str, str] = {"visible": "visible", "rank1": "identified", "identified_informed": "informed"}
GOALS = ("copied", "visible", "identified", "informed", "members", "labels")
PAIRED = ("copied", "visible")  # tested against the null image by image
SURE = 0.8  # probability with which a rate is called noticeable
NOBODY = "nobody sits in an adversary's seat here, so nothing was tried"


def attack_rows(root: Path, cells: Sequence[Row]) -> list[Row]:
    """Return one row per attack and goal that was tried in a setting, hospitals and seeds together.

    Each row is JSON: placement, attack, goal, targets, hits, rate, low, high (exact, Clopper-Pearson, 95 %), null, p
    (one-sided), p_adjusted (Holm over all rows of the setting), above_null (p_adjusted < .05), noticed_from (the
    smallest true rate that this test would have noticed with 80 % probability; None where none, or where it is not
    known), bound_worst_case and bound_relaxed. Where nothing could be counted, a "why" says so.

    How rows of releases are merged, and which test each goal has: `simulation.placements_rows.pooled_row`.

    Args:
        root: the study's folder.
        cells: of one mechanism and budget.
    """
    found: dict[tuple[str, str], list[Row]] = {}
    for cell in cells:
        for row in cell["summary"]["attacks"]:
            found.setdefault((row["placement"], row["attack"]), []).append(row)
    targets = [target for cell in cells for target in read_targets(root / cell["folder"])] if found else []
    rows: list[Row] = []
    for (placement, attack), own in found.items():
        of = [t for t in targets if t["attack"] == attack and t["placement"] == placement]
        rows += _goals(placement, attack, pooled_row(own, of))
    return judged(rows)


def judged(rows: Sequence[Row]) -> list[Row]:
    """Return rows with p_adjusted, above_null and noticed_from, from their p, targets, null and releases."""
    tested = [row for row in rows if row["p"] is not None]
    adjusted = iter(holm([row["p"] for row in tested]) if tested else [])
    out: list[Row] = []
    for row in rows:
        p = next(adjusted) if row["p"] is not None else None
        shown = {key: value for key, value in row.items() if key != "releases"}
        out.append(
            {
                **shown,
                "p_adjusted": p,
                "above_null": None if p is None else p < SIGNIFICANT,
                "noticed_from": None if p is None else _noticed_from(row, SIGNIFICANT / len(tested)),
            }
        )
    return out


def best_attack(rows: Sequence[Row]) -> Row | None:
    """Return the row that achieved most over its null; those above their null first. None where nothing was tested."""
    tested = [row for row in rows if row["above_null"] is not None]
    return max(tested, key=lambda row: (row["above_null"], row["rate"] - row["null"]), default=None)


def noticed_from(targets: int, null: float, level: float, *, paired: bool, releases: int = 1) -> float | None:
    """Return the smallest true rate at which a one-sided exact test is significant with 80 % probability.

    Args:
        targets: trials, taken to be independent.
        null: rate of the null; of a paired test the share of targets on which the null succeeds, all of them taken
            to be lost by the attack (which then needs more to be noticed).
        level: of the test, adjusted for all others.
        paired: McNemar's exact test instead of the binomial one.
        releases: how many tests of as many targets each are merged by Bonferroni; 1: all targets in one test.

    Returns:
        None where not even a success on every target would be significant.
    """
    each, alpha = targets // releases, level / releases
    lost = round(null * each)

    def p(hits: int) -> float:
        return binomial_p(hits, hits + lost, 0.5) if paired else binomial_p(hits, each, null)

    least = next((k for k in range(1, each + 1) if p(k) < alpha), None)
    if least is None:
        return None
    sure = 1 - (1 - SURE) ** (1 / releases)
    return float(beta.ppf(sure, least, each - least + 1))  # P(at least k of n) is the beta distribution's at the rate


def read_targets(folder: Path) -> list[dict[str, str]]:
    """Return the rows of a run's `attacks.csv`; none where no image was attacked."""
    path = folder / "attacks.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _noticed_from(row: Row, level: float) -> float | None:
    if row["goal"] in ("members", "labels"):
        return None  # tests on ranks and on simulated labels, not on counts
    paired = row["goal"] in PAIRED
    releases = row["releases"] if row["goal"] == "visible" else 1
    return noticed_from(row["targets"], row["null"], level, paired=paired, releases=max(1, releases))


def _goals(placement: str, attack: str, pooled: Row) -> list[Row]:
    """Return the goals of one attack; of those beside its success only what was counted."""
    head: Row = {"placement": placement, "attack": attack}
    yields = str(pooled["yields"])
    rows = [{**head, **_rate(SUCCESS[yields], pooled["n"], pooled, "success", pooled["success_null"])}]
    if yields == "images":
        chance = 1 / (pooled["decoys"] + 1)
        for key, goal in MORE.items():
            count = pooled["targets" if key == "visible" else "ranked"]
            null = pooled["null_visible"] if key == "visible" else chance
            if pooled[key] is not None and pooled[f"{key}_p"] is not None:
                rows.append({**head, **_rate(goal, count, pooled, key, null)})
    return rows


def _rate(goal: str, count: int, pooled: Row, key: str, null: float | None) -> Row:
    rate, p = pooled[key], pooled[f"{key}_p"]
    bounds = goal in ("identified", "informed")
    row: Row = {"goal": goal, "targets": count, "hits": None, "rate": None, "low": None, "high": None}
    row |= {"null": null, "p": None, "releases": pooled["releases"]}
    row |= {k: pooled[k] if bounds else None for k in ("bound_worst_case", "bound_relaxed")}
    if rate is None or not count or p is None or null is None:
        return {**row, "why": pooled["why"] or "no image was drawn in the attacked rounds"}
    hits = round(rate * count)
    low, high = clopper_pearson(hits, count)
    return {**row, "hits": hits, "rate": rate, "low": low, "high": high, "p": p}
