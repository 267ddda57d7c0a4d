"""Tables of what attacks got, beside their nulls: per update, and per setting of a study."""

from collections.abc import Sequence
from typing import Any

from simulation.report.numbers import DASH, decimal, interval, p_value, percent, significant
from simulation.report.outcomes import Outcome, Share, pooled
from simulation.report.tables import Table, cut
from simulation.report.words_attacks import chance
from simulation.report.words_budget import highest_epsilon
from simulation.report.words_study import Group


def attack_table(found: Sequence[Outcome]) -> Table:
    """Return every attacked update with null, intervals and bounds; several of one attack also together."""
    rows: list[tuple[str, ...]] = []
    for outcome in found:
        if len(outcome.rows) > 1:
            rows.append(_attack_row(outcome, "all together"))
        for row in outcome.rows:
            rows.append(_attack_row(pooled([row]), f"{row['hospital']}, round {row['round']}"))
    kept, note = cut(rows, "summary.json")
    return Table(
        "What each attack got from each update, beside its null. Copied: SSIM above 0.9, exact 95% "
        "interval, each image counted as one independent trial. Recognised: first among its decoys; null: "
        "chance. Bounds: from all updates up to this one, for an image known to take part, candidates equally "
        "likely beforehand; the relaxed one models a weaker adversary and is no guarantee. p-values are "
        "for one test each, not adjusted for many.",
        (
            "Attack and update",
            "Images",
            "Copied",
            "95% interval",
            "Null copies",
            "Mean SSIM (null)",
            "Mean PSNR dB (null)",
            "Recognised",
            "Null (chance)",
            "p",
            "Recognised if shown (null)",
            "Worst-case bound",
            "Relaxed bound",
        ),
        kept,
        note,
    )


def other_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return every attack that yields labels or members, beside its null; why where it could not be judged."""
    shown = [
        (
            f"{row['attack']}: {row['hospital']}, round {row['round']}",
            str(row.get("success_name") or row.get("why") or DASH),
            percent(row.get("success")),
            interval(tuple(row["success_ci"])) if row.get("success_ci") else DASH,
            percent(row.get("success_null")),
            p_value(row["success_p"]) if row.get("success_p") is not None else DASH,
            significant(row["epsilon_lower"]) if row.get("epsilon_lower") is not None else DASH,
        )
        for row in rows
    ]
    kept, note = cut(shown, "summary.json")
    return Table(
        "Attacks that rebuild no image. The lower bound is what the attack itself proves about ε, with 95% confidence; "
        "it lies below the ledger's ε, or no report is made.",
        ("Attack and update", "Measure", "Reached", "95% interval", "Null", "p", "ε at least"),
        kept,
        note,
    )


def budget_table(groups: Sequence[Group]) -> Table:
    """Return one row per mechanism and budget: utility, and every attack beside its null."""
    rows: list[tuple[str, ...]] = []
    name, guess = (groups[0].measure.label, groups[0].measure.guess) if groups else ("Utility", None)
    for group in groups:
        reached = group.utility
        heldout = group.summaries[0]["heldout"]
        claimed = [highest_epsilon(s) for s in group.summaries]
        upper = DASH if any(c is None for c in claimed) else significant(max(c for c in claimed if c is not None))
        head = (f"{decimal(sum(reached) / len(reached)) if reached else DASH} (n = {heldout:,})", upper)
        for outcome in group.outcomes:
            row = _attack_row(outcome, "")
            row_name = group.label if len(group.outcomes) == 1 else f"{group.label}, {outcome.attack}"
            rows.append((row_name, *head, row[2], row[3], row[4], row[5], row[7], row[8], row[10], row[11]))
        if not group.outcomes:
            rows.append((group.label, *head, *("not attacked",), *(DASH,) * 7))
    kept, note = cut(rows, "budgets.csv")
    return Table(
        f"One row per setting; runs with different seeds together ({name}: their mean; n: held-out images; "
        f"{decimal(guess)} is guessing). ε at most: claimed per unit for a whole run; a dash where nothing can be "
        "claimed. Copied: SSIM above 0.9, exact 95% interval. Recognised: first among decoys; its null is "
        "chance. Bound: worst case, from all updates up to the attacked one.",
        (
            "Setting",
            name,
            "ε at most",
            "Copied",
            "95% interval",
            "Null copies",
            "Mean SSIM (null)",
            "Recognised",
            "Null (chance)",
            "Recognised if shown (null)",
            "Worst-case bound",
        ),
        kept,
        note,
    )


def _attack_row(outcome: Outcome, where: str) -> tuple[str, ...]:
    share = outcome.recovered
    return (
        f"{outcome.attack}: {where}",
        f"{share.total:,}" if share else "0",
        f"{share.hits:,} of {share.total:,} ({percent(share.rate)})" if share else DASH,
        interval(share.interval) if share else DASH,
        percent(outcome.null),
        f"{decimal(outcome.mean_ssim)} ({decimal(outcome.null_mean_ssim)})",
        f"{decimal(outcome.mean_psnr, 1)} ({decimal(outcome.null_mean_psnr, 1)})",
        _ranked(outcome.rank1),
        chance(outcome) if outcome.rank1 else DASH,
        p_value(outcome.rank1.p) if outcome.rank1 else DASH,
        f"{_ranked(outcome.informed)} ({chance(outcome)})" if outcome.informed else DASH,
        percent(outcome.bound_worst_case),
        percent(outcome.bound_relaxed),
    )


def _ranked(share: Share | None) -> str:
    return f"{share.hits:,} of {share.total:,} ({percent(share.rate)})" if share else DASH
