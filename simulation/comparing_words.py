"""What speaks for a recommended budget, what against others, and what is not promised: sentences for anybody."""

from collections.abc import Sequence
from typing import Any

from simulation.comparing_quiet import RATE, blind, noticed, tested, unjudged
from simulation.measures import label
from simulation.report.budgets_numbers import plus
from simulation.report.numbers import budget, counted, decimal, listed, p_value, percent, significant
from simulation.report.phrases import setting

Row = dict[str, Any]

# What an attack that reaches a goal has done, as a participle and for a rate.
DONE = {
    "copied": "copied images",
    "visible": "showed images more clearly than guessing does",
    "identified": "picked the right image among decoys",
    "informed": "told somebody who was shown the candidates which image was used",
    "members": "told who was trained on",
    "labels": "counted the labels",
}
BEHIND = (
    "This mechanism comes last because it protects hospitals, not single images, and not from the server: no mechanism "
    "that was tried and protects images will do."
)


def budget_words(row: Row) -> str:
    """Name a setting with a budget: 'ε = 8 (noise at each hospital)'."""
    return setting(row["mechanism"], row["budget"])


def quiet_words(row: Row, tests: Sequence[Row]) -> str:
    """Say that no attack was seen to beat its null at a budget and at all smaller ones tried."""
    names = listed(list(dict.fromkeys(test["attack"] for test in tests)))
    return (
        f"{budget_words(row)}: no attack that was tried ({names}) was shown to do better than guessing, here and at "
        f"every smaller budget tried with this mechanism ({counted(len(tests), 'test')} here, each at 5%); that is no "
        f"proof that none does."
    )


def cost_words(row: Row, tolerance: float, shown: bool) -> str:
    """Say what a setting costs beside federated training without privacy, and whether that is within the tolerance."""
    cost, name = row["against_none"], label(row["metric"])
    allowed = f"The study accepts a loss of {significant(tolerance)}"
    if shown:
        verdict = f"{allowed}, and the whole interval lies within it{', in both cases' if inside(row) else ''}."
    elif any(one["low"] is None for one in costs(row)):
        why = next((one["why"] for one in costs(row) if one.get("why")), "")
        verdict = f"{allowed}; the estimate lies within it, and there is no interval ({why}), so this is not shown."
    else:
        verdict = (
            f"{allowed}; the estimate lies within it and the interval reaches beyond, so this is likely and not shown."
        )
    return f"Its {name} is {_beside(row['utility'], cost)}{_reach(cost)}. {_inside_words(row)}{verdict}"


def inside(row: Row) -> Row | None:
    """Return what a setting costs over pairs of images of one hospital; None where nothing ranks pairs."""
    found = row.get("within_hospitals")
    return found["against_none"] if found else None


def costs(row: Row) -> list[Row]:
    """Return what a setting costs beside federated training without privacy: on all images, and within hospitals."""
    return [cost for cost in (row["against_none"], inside(row)) if cost is not None]


def _inside_words(row: Row) -> str:
    cost = inside(row)
    if cost is None or cost["difference"] is None:
        return ""
    within = row["within_hospitals"]
    return (
        f"Over pairs of images of one hospital ({percent(within['pairs_share'])} of all pairs), where telling "
        f"hospitals apart helps nobody, it is {_beside(within, cost)}{_reach(cost)}. "
    )


def _beside(found: Row, cost: Row) -> str:
    change = cost["difference"]
    said = f"{decimal(abs(change), 3)} {'above' if change > 0 else 'below'}" if change else "exactly"
    return f"{decimal(found['estimate'], 3)}, {said} that of the federation without privacy"


def heard_words(row: Row) -> str:
    """Say why a setting is not quiet (`simulation.comparing_quiet.quiet`); empty where it is."""
    attacks = [attack for attack in row["attacks"] if attack["targets"]]
    tests = tested(attacks)
    if not tests:
        return f"{budget_words(row)}: no attack was tested, so its risk is not known."
    loud = [attack for attack in tests if attack["above_null"]]
    if loud:
        said = [f"{a['attack']} {DONE[a['goal']]} ({_got(a)})" for a in loud]
        return f"{budget_words(row)}: an attack does better than guessing: {listed(said)}."
    if likely := [attack for attack in tests if noticed(attack)]:
        said = [f"{a['attack']} {DONE[a['goal']]} ({_got(a)}; {p_value(a['p'])} by itself)" for a in likely]
        return (
            f"{budget_words(row)}: an attack may do better than guessing: {listed(said)}. With "
            f"{counted(len(tests), 'test')} that is not shown, and not quiet either."
        )
    if missing := [attack for attack in attacks if unjudged(attack)]:
        names = listed([f"{a['attack']} ({a.get('why') or 'no test'})" for a in missing])
        return f"{budget_words(row)}: not every attack could be held against guessing: {names}. Its risk is not known."
    if dull := [attack for attack in tests if blind(attack)]:
        return f"{budget_words(row)}: {listed([_blind(attack) for attack in dull])}."
    return ""


def _got(attack: Row) -> str:
    return f"{percent(attack['rate'])} of {attack['targets']:,}, guessing {percent(attack['null'])}"


def _blind(attack: Row) -> str:
    """Say that a test saw too little."""
    rate = attack["noticed_from"]
    reach = "had all of them been got" if rate is None else f"at a true rate below {percent(rate)}"
    return (
        f"only {counted(attack['targets'], 'image')} {'was' if attack['targets'] == 1 else 'were'} attacked by "
        f"{attack['attack']}: the test could not have noticed {RATE[attack['goal']]}"
        f"{', not even ' if rate is None else ' reliably '}{reach}"
    )


def refused_words(row: Row, tolerance: float) -> str:
    """Say why a quiet setting is not recommended: what it costs."""
    head, cost = budget_words(row), row["against_none"]
    if cost is None or cost["difference"] is None:
        why = cost["why"] if cost else "there is no federated run without privacy"
        return f"{head}: what it costs is not known ({why})."
    name, allowed = label(row["metric"]), f"the accepted {significant(tolerance)}"
    where, within = "", inside(row)
    known = within is not None and within["difference"] is not None and cost["difference"] >= -tolerance
    if within and known and min(within["difference"], within["low"] or 0.0) < -tolerance:
        cost, where = within, " over pairs of images of one hospital"
    if cost["difference"] >= -tolerance:
        lost = decimal(max(0.0, -cost["difference"]), 3)
        return f"{head}: the loss of {lost} {name}{where}{_reach(cost)} is not shown to be within {allowed}."
    lost = f"{decimal(-cost['difference'], 3)} {name}{where}{_reach(cost)}"
    if cost["high"] is None or cost["high"] >= -tolerance:
        return f"{head}: it is estimated to lose {lost}; that it exceeds {allowed} is not shown."
    return f"{head}: it loses {lost}, more than {allowed}."


def not_promised(settings: Sequence[Row], chosen: Row) -> list[str]:
    """Return what a recommendation does not promise, a sentence each."""
    tests = tested(chosen["attacks"])
    attacks = listed(list(dict.fromkeys(test["attack"] for test in tests)))
    seats = listed(list(dict.fromkeys(test["placement"] for test in tests)))
    tried = sorted({row["budget"] for row in settings if not isinstance(row["budget"], str)})
    words = [
        f"Safety from attacks that were not tried: these were {attacks}, from the seat '{seats}'. Others may get more.",
        *_power(tests),
        f"Anything about budgets between those that were tried ({listed([budget(b) for b in tried], most=12)}), or "
        f"about other data, models, batch sizes or numbers of rounds.",
        f"Safety for anything but single images that took part in the attacked rounds: {_untested(tests)}.",
        f"Protection from others than these: {chosen['against']}.",
    ]
    words += _bound_words(chosen, tests)
    words += _minority(chosen)
    if not _loud_without(settings):
        words.append(
            "That these attacks work at all: they did no better than guessing without privacy either, or were not "
            "tried there, so their silence says little."
        )
    if chosen["seeds"] == 1:
        words.append("The same result in another run: one seed was run, and the interval is over images only.")
    return words


def _bound_words(chosen: Row, tests: Sequence[Row]) -> list[str]:
    """Say what the bounds allow: whoever knows in which step an image took part may get more."""
    bounds = chosen["bounds"]
    if bounds is None:
        return []
    among = bounds.get("among", "as many as stand behind the promise")
    who = "hospital" if chosen["mechanism"] == "central" else "image"
    said = (
        f"More than the formal bound: whoever knows everything but in which steps the {who} was drawn, and which of "
        f"{round(1 / bounds['prior']):,} equally likely candidates ({among}) it is, may pick the right one with a "
        f"probability of up to {percent(bounds['worst_case'])}"
    )
    known = [a for a in tests if a.get("bound_worst_case") is not None and a["null"]]
    if known:
        most = max(known, key=lambda a: a["bound_worst_case"])
        said += (
            f"; whoever knows that it took part in the attacked step, up to {percent(most['bound_worst_case'])} among "
            f"{round(1 / most['null']):,}"
        )
    return [f"{said}."]


def _minority(chosen: Row) -> list[str]:
    """Say what the rarest class loses, where that is shown."""
    found = chosen.get("minority")
    cost = found.get("against_none") if found else None
    if not found or not cost or cost["high"] is None or cost["high"] >= 0:
        return []
    other = found["specificity"]
    beside = "" if other is None else f", and specificity is {percent(other['estimate'])} there"
    return [
        f"That everybody is served as before: {found['metric']} of the rarest class ({found['class']}) is "
        f"{decimal(found['estimate'], 3)}, {decimal(-cost['difference'], 3)} below that without privacy{_reach(cost)}"
        f"{beside}."
    ]


def _untested(tests: Sequence[Row]) -> str:
    common = "what a hospital's patients have in common was not tested"
    known = any(test["goal"] == "members" for test in tests)
    return common if known else f"who is in the data, and {common}"


def _power(tests: Sequence[Row]) -> list[str]:
    """Say for each goal from which true rate on it would have been noticed: of a quiet setting all are known."""
    words: list[str] = []
    for goal, name in RATE.items():
        own = [test for test in tests if test["goal"] == goal]
        if not own:
            continue
        worst = max(own, key=lambda test: test["noticed_from"])
        words.append(
            f"That rare success is seen: with {worst['targets']:,} attacked, {name} at a true rate below "
            f"{percent(worst['noticed_from'])} would often have gone unnoticed (from there on the test notices it in 4 "
            f"of 5 such studies)."
        )
    return words


def _loud_without(settings: Sequence[Row]) -> bool:
    """Say whether an attack beat its null where nothing protects."""
    bare = [row for row in settings if row["mechanism"] in ("none", "pooled") and isinstance(row["budget"], str)]
    return any(attack["above_null"] for row in bare for attack in row["attacks"])


def _reach(cost: Row) -> str:
    if cost["low"] is None:
        return ""
    ends = f"{plus(cost['low'])} to {plus(cost['high'])}"
    return f" (95% interval of the difference {ends}; seeds: {cost['seeds']})"
