"""What a study of placements found, in plain words: from which chairs something was got back, where nothing was."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, get_args

from configs.adversary import AttackName, Placement
from simulation.placements_rows import POOLED, findings
from simulation.report import phrases
from simulation.report.budgets_numbers import capital
from simulation.report.numbers import budget, counted, interval, listed, percent

Summary = dict[str, Any]
Row = dict[str, Any]
Setting = tuple[str, float | None]

SEATS: Mapping[str, str] = MappingProxyType(
    {
        "wire": "somebody on one hospital's line",
        "server": "an honest but curious server",
        "malicious_server": "a malicious server",
        "aggregate": "a server behind a secure sum",
        "malicious_aggregate": "a malicious server behind a secure sum",
        "hospital": "another hospital",
        "release": "whoever gets the final model",
        "worst_case": "the worst case of the formal bound",
    }
)
MEASURES: Mapping[str, str] = MappingProxyType(
    {
        "visible": "made visible",
        "rank1": "recognised among decoys",
        "identified_informed": "recognised when shown the candidates",
    }
)
LIMITS = (
    "That the attacks tried here failed is a finding about them and no guarantee against others.",
    "Intervals and tests count every image as an independent trial. Images of one run share a model and often a "
    "release, so the true intervals are somewhat wider.",
)


def pooled_rows(summary: Summary) -> list[Row]:
    """Return the rows in which all seeds are taken together."""
    return [row for row in summary["rows"] if row["seed"] == POOLED]


def setting_of(row: Row) -> Setting:
    """Return a row's mechanism and budget, None where there is no budget."""
    return str(row["mechanism"]), None if row["budget"] in (None, "none") else float(row["budget"])


def settings_of(rows: Sequence[Row]) -> dict[Setting, str]:
    """Return the settings of some rows with their names: without a budget first, then large before small."""
    found = {setting_of(row) for row in rows}
    several = len({mechanism for mechanism, number in found if number is not None}) > 1
    order = sorted(found, key=lambda s: (-(s[1] if s[1] is not None else float("inf")), s[0]))
    return {setting: _label(*setting, several) for setting in order}


def placements_words(summary: Summary) -> list[str]:
    """Return what the study found: what was got back and from where, where nothing was, what was not tried."""
    rows = pooled_rows(summary)
    return [lead_words(rows), *setting_words(rows), *untried_words(rows), *LIMITS]


def lead_words(rows: Sequence[Row]) -> str:
    """Say in one sentence from which chairs something was got back."""
    scored = [row for row in rows if row["success"] is not None]
    if not scored:
        return "No attack could be tried."
    tried = list(dict.fromkeys(row["placement"] for row in scored))
    leaky = [name for name in tried if any(findings(r) for r in scored if r["placement"] == name)]
    if not leaky:
        return f"From none of the {len(tried)} chairs that were tried did an attack get more than its null."
    seats = listed([SEATS.get(name, name) for name in leaky], 8)
    others = [SEATS.get(name, name) for name in tried if name not in leaky]
    rest = f" Nothing beyond the null was got back by {listed(others, 8)}." if others else ""
    return f"Something was got back from {len(leaky)} of {counted(len(tried), 'chair')}: by {seats}.{rest}"


def setting_words(rows: Sequence[Row]) -> list[str]:
    """Say for each setting what was got back from where, the strongest attack of each chair."""
    words: list[str] = []
    for setting, label in settings_of(rows).items():
        own = [row for row in rows if setting_of(row) == setting and row["success"] is not None]
        said = [text for name in dict.fromkeys(row["placement"] for row in own) if (text := _seat_words(own, name))]
        where = capital(label) if setting[1] is None else f"At {label}"
        if said:
            words.append(f"{where}: {'; '.join(said)}.")
        elif own:
            words.append(f"{where} nothing was above its null: no attack from any chair did better than guessing.")
        else:
            words.append(f"{where} nothing could be tried.")
    return words


def untried_words(rows: Sequence[Row]) -> list[str]:
    """Say what was not tried: what cannot be, and what the study left out."""
    words: list[str] = []
    pairs = {(row["placement"], row["attack"]) for row in rows}
    refused = pairs - {(row["placement"], row["attack"]) for row in rows if row["success"] is not None}
    if refused:
        words.append(
            f"Of {counted(len(pairs), 'combination')} of chair and attack, {len(refused)} could not be tried; each "
            "stands in the table with its reason."
        )
    seats = [SEATS[p] for p in get_args(Placement) if p != "none" and p not in {row["placement"] for row in rows}]
    left = [name for name in get_args(AttackName) if name not in {row["attack"] for row in rows}]
    if seats:
        words.append(f"Not tried at all: the chairs of {listed(seats, 8)}.")
    if left:
        words.append(f"Not tried at all: the attacks {listed(left, 8)}.")
    return words


def said_of(row: Row, key: str) -> str:
    """Return what an attack achieved in one measure: 'copied (SSIM > 0.9) 55 of 64 (86%, 95% interval ..)'."""
    if key == "success":
        ends = interval((row["success_low"], row["success_high"]))
        return (
            f"{row['success_name']}: {row['hits']:,} of {row['n']:,} ({percent(row['success'])}, 95% interval {ends}; "
            f"null {percent(row['success_null'])})"
        )
    weight = "targets" if key == "visible" else "ranked"
    null = row["null_visible"] if key == "visible" else 1 / (row["decoys"] + 1)
    hits, total = round(row[key] * row[weight]), row[weight]
    return f"{MEASURES[key]} {hits:,} of {total:,} ({percent(row[key])}; null {percent(null)})"


def _seat_words(rows: Sequence[Row], placement: str) -> str:
    """Write the worst that one chair got: the first measure above its null, images before the rest, then the rate."""
    order = ("success", "visible", "rank1", "identified_informed")
    above = [
        (order.index(found[0]), row["yields"] != "images", -(row[found[0]] or 0.0), row)
        for row in rows
        if row["placement"] == placement
        if (found := findings(row))
    ]
    if not above:
        return ""
    place, _, _, row = min(above, key=lambda entry: entry[:3])
    return f"{SEATS.get(placement, placement)} ({row['attack']}) {said_of(row, order[place])}"


def _label(mechanism: str, number: float | None, several: bool) -> str:
    if number is None:
        return phrases.mechanism(mechanism)
    name = f"ε = {budget(number)}"
    return f"{name} ({phrases.mechanism(mechanism)})" if several else name
