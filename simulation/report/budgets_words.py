"""What a grid says: what joining brings, what federation costs, who pays, where attacks stop working."""

import math
from collections.abc import Sequence

from simulation.report import phrases
from simulation.report.budgets_lead import WITH
from simulation.report.budgets_numbers import Figures, Row, exact, number, of
from simulation.report.budgets_rows import FEDERATED, Budgets, Setting
from simulation.report.numbers import budget, counted, listed, significant

MOST_NAMED = 8


def joining_words(budgets: Budgets) -> list[str]:
    """Say for each hospital what it gets alone and together, at the budget shown first and without privacy."""
    rows: Sequence[Row] = budgets.study["joining"]
    if not rows:
        return ["No hospital was trained alone, so what joining brings is not known."]
    at = budgets.shown.budget
    own = _joined(rows, at, _partner(budgets, rows, at))
    words: list[str] = []
    if own:
        mechanism = own[0]["mechanism"]
        where = f"At ε = {budget(at)}, {WITH[mechanism]}" if mechanism in WITH else "Without privacy"
        words.append(
            f"{where}: {_gains(own)} The difference is {budgets.measure.label} of the common model less that of the "
            "hospital's own, on its own held-out images."
        )
        for row in own[:MOST_NAMED]:
            n = budgets.shown.row["hospitals"][row["hospital"]]["n"]
            change = Figures.of(row, "difference")
            both = row["alone"] is not None and row["joined"] is not None
            pair = f"{exact(row['alone'])} alone, {exact(row['joined'])} joined, " if both else ""
            words.append(f"{row['hospital']}: {pair}{change.said_signed}; {of(n)}.")
        if len(own) > MOST_NAMED:
            words.append(f"{counted(len(own) - MOST_NAMED, 'more hospital')} in joining.csv.")
    for other in _other_budgets(budgets, rows):
        beside = _joined(rows, other, _partner(budgets, rows, other))
        words.append(f"At ε = {budget(other)}, {WITH[beside[0]['mechanism']]}: {_gains(beside)}")
    bare = _joined(rows, None, "none")
    if bare and at is not None:
        words.append(f"Without privacy: {_gains(bare)}")
    return words


def _other_budgets(budgets: Budgets, rows: Sequence[Row]) -> list[float]:
    """Return the budgets beside the one shown first that are spoken of: all where nobody attacked, else none.

    Without attacks nothing singles out the one that is shown first.
    """
    if budgets.attacked:
        return []
    tried = {at for row in rows if (at := number(row["budget"])) is not None}
    return sorted(tried - {budgets.shown.budget})


def _partner(budgets: Budgets, rows: Sequence[Row], at: float | None) -> str:
    """Return the federated mechanism that is held against training alone: the one shown first where it is one."""
    tried = list(dict.fromkeys(str(row["mechanism"]) for row in rows if number(row["budget"]) == at))
    return budgets.shown.mechanism if budgets.shown.mechanism in tried else (tried or ["none"])[0]


def _joined(rows: Sequence[Row], at: float | None, mechanism: str) -> list[Row]:
    return [row for row in rows if number(row["budget"]) == at and row["mechanism"] == mechanism]


def _gains(rows: Sequence[Row]) -> str:
    known = [row for row in rows if row["low"] is not None]
    gain = sum(round(row["low"], 3) > 0 for row in known)
    lose = sum(round(row["high"], 3) < 0 for row in known)
    parts = [f"{gain or 'none'} shown to gain", f"{lose or 'none'} to lose"]
    if same := len(known) - gain - lose:
        parts.append(f"{same} without a difference that could be shown")
    if unknown := len(rows) - len(known):
        parts.append(f"{unknown} without an interval")
    return f"of {counted(len(rows), 'hospital')}, {listed(parts)} (95% intervals, each by itself)."


def price_words(budgets: Budgets) -> list[str]:
    """Say what federation costs beside pooled data: in the leading metric, in noise, and at equal noise in epsilon."""
    rows: Sequence[Row] = budgets.study["price"]
    if not rows:
        return ["No data were pooled, so what federation costs is not known."]
    at = budgets.shown.budget
    others = _other_budgets(budgets, rows)
    told = [b for b in (at, *others) if b is not None]
    words = [_price(budgets, row) for b in told for row in rows if number(row["budget"]) == b]
    words += [_price(budgets, row) for row in rows if number(row["budget"]) is None]
    equal = [
        row
        for row in budgets.study["equal_noise"]
        if number(row["budget"]) == at and row["mechanism"] != "pooled" and row["epsilon_upper"] is not None
    ]
    if equal:
        paid = [
            f"{phrases.mechanism(row['mechanism'])} ε = {significant(row['epsilon_upper'])}"
            f"{' per hospital' if row['protects'] == 'hospital' else ''}"
            for row in equal
        ]
        words.append(f"With as much noise on the mean as pooled data have at ε = {budget(at)}: {listed(paid)}.")
    words += _shared_words(budgets, told)
    if len({b for row in rows if (b := number(row["budget"])) is not None} - set(told)) > 0:
        words.append("The other budgets stand in the table.")
    return words


def _price(budgets: Budgets, row: Row) -> str:
    mechanism, change = row["mechanism"], Figures.of(row, "difference")
    at = number(row["budget"])
    where = "Without privacy" if at is None else f"At ε = {budget(at)}, {WITH[mechanism]}"
    text = (
        f"{where}: {budgets.measure.label} {change.said_signed} beside all data in one place; {of(budgets.heldout)}"
        f"{verdict(change)}."
    )
    if row["noise_ratio"] is None or at is None:
        return text
    if mechanism == "central":
        return (
            f"{text} Its noise is for whole hospitals and on their updates, so it cannot be held against pooled data's."
        )
    ratio = f"The noise on the mean gradient is {significant(row['noise_ratio'])} times that of pooled data"
    if mechanism == "local" and budgets.hospitals:
        root = math.sqrt(budgets.hospitals)
        ratio += f"; {counted(budgets.hospitals, 'hospital')} that draw and add alike give √{budgets.hospitals} = "
        ratio += significant(root)
    return f"{text} {ratio}."


def _shared_words(budgets: Budgets, told: Sequence[float]) -> list[str]:
    """Say what sharing the noise in a secure sum changes beside noise at each hospital."""
    words: list[str] = []
    rows: Sequence[Row] = budgets.study.get("shared_noise") or ()
    for row in (row for b in told for row in rows if number(row["budget"]) == b):
        change = Figures.of(row, "difference")
        words.append(
            f"At ε = {budget(row['budget'])}, noise shared in a secure sum beside noise at each hospital: "
            f"{budgets.measure.label} {change.said_signed}; {of(budgets.heldout)}{verdict(change)}."
        )
    return words


def verdict(change: Figures) -> str:
    """Say which way a difference goes, where its interval tells; by its ends as they are written."""
    if change.low is None or change.high is None:
        return ""
    if round(change.high, 3) < 0:
        return ": less accurate"
    if round(change.low, 3) > 0:
        return ": more accurate"
    return ": no difference is shown"


def paying_words(budgets: Budgets) -> list[str]:
    """Say what small and large hospitals pay: how often their images are drawn, noise, epsilon, accuracy."""
    shown = budgets.shown
    at = next((s for m in (shown.mechanism, *FEDERATED) if (s := budgets.get(m, shown.budget)) and _dealt(s)), None)
    words: list[str] = []
    if at is not None and len(rows := _dealt(at)) > 1:
        small, large = min(rows, key=lambda r: r[1]["records"]), max(rows, key=lambda r: r[1]["records"])
        words.append(
            f"At {at.label} the smallest hospital, {_terms(*small)}; the largest, {_terms(*large)}. {_unequal(rows)}"
        )
    worst = shown.row["worst_hospital"]
    if worst is not None:
        own = Figures.of(shown.row["hospitals"][worst["name"]])
        n = f", {of(own.n)}" if own.n else ""
        words.append(
            f"At {shown.label} the model works worst for {worst['name']}: {budgets.measure.label} {own.said}{n}; over "
            f"all hospitals it is {shown.utility.said}. The worst of several is partly chance."
        )
    rarest = shown.row["minority"]
    if rarest is not None:
        own, bare = Figures.of(rarest), budgets.get("none")
        before = f"; without privacy {Figures.of(bare.row['minority']).said}" if bare and bare is not shown else ""
        what = "share called right (recall)" if rarest["metric"] == "recall" else "overlap (Dice)"
        n = f", {of(own.n)}" if own.n else ""
        words.append(f"Of the rarest class, '{rarest['class']}', the {what} is {own.said}{n}{before}.{_spared(rarest)}")
    return words


def _spared(rarest: Row) -> str:
    """Say how many of the others are rightly not called so: recall alone can be bought by calling more."""
    others = Figures.loose(rarest.get("specificity"))
    if others.estimate is None:
        return ""
    ends = "" if others.low is None else f" ({others.span})"
    return f" Of the others, {exact(others.estimate)}{ends} are rightly not called so (specificity)."


def _dealt(setting: Setting) -> list[tuple[str, Row]]:
    rows = [(name, row) for name, row in setting.row["hospitals"].items() if row["records"] and row["sample_rate"]]
    return rows if setting.mechanism in FEDERATED else []


def _terms(name: str, row: Row) -> str:
    noise = f" and adds noise of {significant(row['noise_added'])} clipping norms" if row["noise_added"] else ""
    paid = f", and pays ε ≤ {significant(row['epsilon_upper'])}" if row["epsilon_upper"] is not None else ""
    return (
        f"{name} ({row['records']:,} records), draws each with probability {significant(row['sample_rate'])} a step"
        f"{noise}{paid}"
    )


def _unequal(rows: Sequence[tuple[str, Row]]) -> str:
    rates = [float(row["sample_rate"]) for _, row in rows]
    if max(rates) - min(rates) <= 1e-9 * max(rates):
        return "All draw at the same rate, so that the same noise buys the same ε at each."
    return "Who draws more often needs more noise for the same ε: with equal batches small hospitals pay most."
