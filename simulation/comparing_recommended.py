"""Where attacks stop working, which budget is recommended, and what the recommendation does not promise."""

from collections.abc import Sequence
from typing import Any

from configs.sections import PRICED
from simulation.comparing_attacks import GOALS
from simulation.comparing_quiet import quiet, silent, tested
from simulation.comparing_settings import FEDERATED, NO_FEDERATION, amount
from simulation.comparing_words import (
    BEHIND,
    budget_words,
    cost_words,
    costs,
    heard_words,
    not_promised,
    quiet_words,
    refused_words,
)

Row = dict[str, Any]

ALWAYS = ("copied", "visible", "identified", "informed")
NOT_TRIED = "no attack that could achieve this was tried"
UNCLEAR = "at the smallest budget tried the tests could not be judged, or saw too little to call it quiet or loud"


def deaths(settings: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """Return per mechanism and goal {quiet_up_to, loud_from}; budget "none" is larger than any number.

    quiet_up_to: the largest budget at which, and at all smaller ones that were tried, some attack had this goal and
    all that had it were silent (`simulation.comparing_quiet.silent`: judged, noticeable, and each not significant by
    itself). loud_from: the smallest budget at which one was above its null, all tests of the setting allowed for.
    Between and beyond budgets that were tried nothing is known. None (with a "why" where both are) where there is no
    such budget.
    """
    found: dict[str, dict[str, Row]] = {}
    for mechanism in dict.fromkeys(row["mechanism"] for row in settings):
        own = by_budget(settings, mechanism)
        tried = {a["goal"] for row in own for a in row["attacks"] if a["above_null"] is not None}
        found[mechanism] = {goal: _death(own, goal) for goal in GOALS if goal in ALWAYS or goal in tried}
    return found


def _death(rows: Sequence[Row], goal: str) -> Row:
    known = [(row["budget"], [a for a in row["attacks"] if a["goal"] == goal and a["targets"]]) for row in rows]
    still = None
    for budget, attacks in known:
        if not attacks or not all(silent(attack) for attack in attacks):
            break
        still = budget
    loud = next((budget for budget, attacks in known if any(a["above_null"] for a in attacks)), None)
    row: Row = {"quiet_up_to": still, "loud_from": loud}
    if not any(tested(attacks) for _, attacks in known):
        row["why"] = NOT_TRIED
    elif still is None and loud is None:
        row["why"] = UNCLEAR
    return row


def by_budget(settings: Sequence[Row], mechanism: str) -> list[Row]:
    """Return the rows of a mechanism, the smallest budget first."""
    return sorted((row for row in settings if row["mechanism"] == mechanism), key=lambda row: amount(row["budget"]))


def quiet_settings(settings: Sequence[Row], mechanism: str) -> list[Row]:
    """Return a mechanism's settings with a numbered budget, from the smallest, up to where one is not quiet.

    Quiet: `simulation.comparing_quiet.quiet`. A setting of which too little is known ends them too.
    """
    found: list[Row] = []
    for row in by_budget(settings, mechanism):
        if isinstance(row["budget"], str) or not quiet(row["attacks"]):
            break
        found.append(row)
    return found


def within(row: Row, tolerance: float) -> str | None:
    """Return whether a setting's utility is within the tolerance of federated training without privacy.

    Where the leading metric ranks pairs of images, both on all images and over pairs of one hospital: telling hospitals
    apart can make up for what is lost within them.

    Returns:
        "shown" where the whole interval of each is, "not shown" where every estimate is, None where neither is or the
        cost on all images is not known.
    """
    found = costs(row)
    if row["against_none"] is None or row["against_none"]["difference"] is None:
        return None
    if any(cost["difference"] is not None and cost["difference"] < -tolerance for cost in found):
        return None
    return "shown" if all(cost["low"] is not None and cost["low"] >= -tolerance for cost in found) else "not shown"


def best_of(settings: Sequence[Row], mechanism: str, tolerance: float) -> Row | None:
    """Return the setting of a mechanism that is recommended: quiet, useful, and of these the largest epsilon.

    Where for some the cost is shown to be within the tolerance, only those count.
    """
    for answer in ("shown", "not shown"):
        fit = [row for row in quiet_settings(settings, mechanism) if within(row, tolerance) == answer]
        if fit:
            return fit[-1]
    return None


def recommended(settings: Sequence[Row], tolerance: float) -> Row:
    """Return the recommended setting, why, what it costs, and what it does not promise.

    Of every mechanism the smallest noise (largest epsilon) counts at which no attack that was tried was seen to beat
    its null though it could have been (`simulation.comparing_quiet.quiet`), nor at any smaller budget tried, and whose
    utility is within the tolerance of federated training without privacy. Of several mechanisms that protect single
    images the one with the least noise on the mean gradient is taken, of equal ones the one with the higher utility;
    those whose cost is shown to be within the tolerance come first ("shown"). `central` protects hospitals, and its
    noise is on updates: it is recommended only where none of those will do. Pooled data are recommended only where
    nothing federated was tried, and hospitals that train alone never: nobody attacks them.

    Keys: mechanism, budget (None where there is none), why, cost, shown, utility, attack, tolerance, not_promised,
    by_mechanism.
    """
    candidates = _candidates(settings)
    everybody = [m for m in dict.fromkeys(row["mechanism"] for row in settings) if m in PRICED and m != "alone"]
    best = {mechanism: best_of(settings, mechanism, tolerance) for mechanism in everybody}
    chosen = _least_noise([row for m in candidates if (row := best[m]) is not None], tolerance)
    head: Row = {
        "tolerance": tolerance,
        "by_mechanism": {m: None if row is None else row["budget"] for m, row in best.items()},
    }
    if chosen is None:
        why = _why_none(settings, candidates, tolerance)
        empty = dict.fromkeys(("mechanism", "budget", "cost", "shown", "utility", "attack"))
        return {**empty, "why": why, "not_promised": [], **head}
    why = [
        quiet_words(chosen, tested(chosen["attacks"])),
        cost_words(chosen, tolerance, within(chosen, tolerance) == "shown"),
    ]
    why.append(_why_not_more(settings, chosen, tolerance))
    if chosen["mechanism"] == "central":
        why.append(BEHIND)
    return {
        "mechanism": chosen["mechanism"],
        "budget": chosen["budget"],
        "why": why,
        "cost": chosen["against_none"],
        "shown": within(chosen, tolerance) == "shown",
        "utility": chosen["utility"],
        "attack": chosen["attack"],
        "not_promised": not_promised(settings, chosen),
        **head,
    }


def _candidates(settings: Sequence[Row]) -> list[str]:
    numbered = dict.fromkeys(row["mechanism"] for row in settings if not isinstance(row["budget"], str))
    federated = [m for m in numbered if m in FEDERATED]
    return federated or [m for m in numbered if m == "pooled"]


def _least_noise(rows: Sequence[Row], tolerance: float) -> Row | None:
    def order(row: Row) -> tuple[bool, bool, float, float]:
        hospitals, likely = row["mechanism"] == "central", within(row, tolerance) != "shown"
        return hospitals, likely, row["noise_on_mean"], -row["utility"]["estimate"]

    return min(rows, key=order, default=None)


def _why_not_more(settings: Sequence[Row], chosen: Row, tolerance: float) -> str:
    """Say what keeps the next larger budget of the same mechanism from being recommended."""
    larger = [r for r in by_budget(settings, chosen["mechanism"]) if amount(r["budget"]) > amount(chosen["budget"])]
    numbered = [row for row in larger if not isinstance(row["budget"], str)]
    if not numbered:
        return f"{budget_words(chosen)} is the largest budget that was tried with this mechanism."
    return heard_words(numbered[0]) or refused_words(numbered[0], tolerance)


def _why_none(settings: Sequence[Row], candidates: Sequence[str], tolerance: float) -> list[str]:
    """Say why no setting is recommended."""
    if not candidates:
        return ["No mechanism with a budget was tried, so there is none to recommend."]
    if all(row["against_none"] is None for row in settings):
        return [f"No budget is recommended: {NO_FEDERATION}, so what privacy costs cannot be said."]
    words: list[str] = []
    for mechanism in candidates:
        own = [row for row in by_budget(settings, mechanism) if not isinstance(row["budget"], str)]
        still = quiet_settings(settings, mechanism)
        words.append(refused_words(still[-1], tolerance) if still else heard_words(own[0]))
    return words
