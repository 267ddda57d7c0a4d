"""How well a model works, and for whom, in sentences."""

from collections.abc import Sequence
from typing import Any

from simulation.measures import Measure, label, leading
from simulation.report import phrases
from simulation.report.numbers import decimal, listed, significant

Summary = dict[str, Any]
Row = dict[str, Any]
MOST_NAMED = 3


def utility_words(summary: Summary) -> tuple[str, ...]:
    """Say how well the model works, on how many images, and whether the attack spoilt it."""
    measure, heldout = leading(summary), phrases.heldout(summary)
    if measure.value is None:
        return (f"How well the model works could not be measured on the {heldout} kept aside for it.",)
    words = [
        f"{_meaning(measure, summary)} This was measured on {heldout} that no hospital trained on{_span(measure)}."
    ]
    clean = summary.get("clean")
    before = (clean or {}).get("metrics", {}).get(measure.key)
    if summary["attacks"] and clean is not None and before is not None and clean["round"] != summary["rounds"]:
        words.append(
            f"After round {clean['round']}, the last one that was not attacked, {measure.label} was {decimal(before)}; "
            f"after the last round, with the attack, {decimal(measure.value)}."
        )
    words.extend(_classes(summary))
    return tuple(words)


def people_words(summary: Summary) -> tuple[str, ...]:
    """Say for whom the model works worst, and for whom that could not be measured."""
    rows: list[Row] = summary["subgroups"]
    known = ranked(rows, leading(summary).key)
    words: list[str] = []
    if len(known) > 1:
        parts = [f"{name_of(row)} ({_figure(row)})" for row in known[:MOST_NAMED]]
        words.append(
            f"Of {len(known)} subgroups that could be measured it works worst for {listed(parts)}. The worst of many "
            "is partly chance; each interval is for one subgroup alone."
        )
        words.extend(_below(known, summary))
    recalls = [row for row in rows if row["group"] == "class" and row["estimate"] is not None]
    if len(recalls) > 1:
        least = min(recalls, key=lambda row: row["estimate"])
        words.append(f"By class it does worst on '{least['value']}' ({_figure(least)}).")
    unknown = [name_of(row) for row in rows if row["estimate"] is None]
    if unknown:
        words.append(
            f"For {listed(unknown)} it could not be measured: too few, or nothing to tell apart. That is no sign that "
            "it works there: what training with privacy loses, it tends to lose in small groups first."
        )
    return tuple(words)


def ranked(rows: Sequence[Row], key: str) -> list[Row]:
    """Return the measured subgroups in one metric, the worst first; classes are not subgroups."""
    known = [row for row in rows if row["metric"] == key and row["estimate"] is not None and row["group"] != "class"]
    return sorted(known, key=lambda row: (row["estimate"], row["group"], row["value"]))


def name_of(row: Row) -> str:
    """Return what a subgroup is called: 'sex: female'."""
    return f"{row['group']}: {row['value']}"


def span_of(measure: Measure) -> str:
    """Write the interval of the leading metric, or why there is none."""
    if measure.interval is None:
        return f"not given ({measure.why})"
    return f"{decimal(measure.interval[0])} to {decimal(measure.interval[1])}"


def _below(known: Sequence[Row], summary: Summary) -> list[str]:
    value = leading(summary).value
    clear = [name_of(r) for r in known if value is not None and r["high"] is not None and r["high"] < value]
    if not clear:
        return []
    return [f"For {listed(clear)} the whole interval lies below the figure for everybody ({decimal(value)})."]


def _figure(row: Row) -> str:
    span = "" if row["low"] is None else f", 95% interval {decimal(row['low'])} to {decimal(row['high'])}"
    return f"{label(row['metric'])} {decimal(row['estimate'])}{span}, n = {row['n']:,}"


def _span(measure: Measure) -> str:
    if measure.interval is None:
        return f"; there is no interval: {measure.why}"
    return f"; the 95% interval is {span_of(measure)}"


def _classes(summary: Summary) -> list[str]:
    names: list[str] = summary["utility"]["class_names"]
    present = (summary.get("metrics") or {}).get("classes_present")
    if present is None or len(names) < 3:
        return []
    balanced, area = summary["metrics"].get("balanced_accuracy"), summary["metrics"].get("auroc")
    return [
        f"{present:.0f} of {len(names):,} classes were among the images; with every class counting the "
        f"same, the rare ones too, {decimal(balanced)} of the images are called right (balanced accuracy) and AUROC is "
        f"{decimal(area)}."
    ]


def _meaning(measure: Measure, summary: Summary) -> str:
    value = measure.value or 0.0
    if measure.key == "auroc":
        guess = f"(AUROC {decimal(value)}; 50 of 100 is guessing)"
        pairs = f"{significant(100 * value)} of 100 pairs"
        if len(summary["utility"]["class_names"]) == 2:
            return (
                "Shown one image that needs attention and one that does not, the model gives the higher score to the "
                f"right one in {pairs} {guess}."
            )
        return (
            f"Shown one image of a class and one of another, the model tells them apart in {pairs}, averaged over the "
            f"classes {guess}."
        )
    if measure.key.startswith("dice_"):
        organ = measure.key.removeprefix("dice_").replace("_", " ")
        others = [
            f"{label(key)} {decimal(summary['metrics'][key])} (guessing {decimal(summary['null_metrics'].get(key))})"
            for key in summary["utility"]["metrics"]
            if key.startswith("dice_") and key != measure.key and summary["metrics"].get(key) is not None
        ]
        also = f" Also: {listed(others)}." if others else ""
        return (
            f"What the model outlines as {organ} and what was drawn by hand overlap with a Dice of {decimal(value)}, "
            f"where 1 is the same outline; drawing the mean mask of the training scans into every scan, without "
            f"looking at it, reaches {decimal(measure.guess)}.{also}"
        )
    return f"{measure.label} is {decimal(value)}, where {decimal(measure.guess)} is guessing and 1 is perfect."
