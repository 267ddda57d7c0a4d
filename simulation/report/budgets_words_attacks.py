"""What a grid says about attacks: where they stop working, what noise at the server hides, what promises nothing."""

from simulation.report import phrases
from simulation.report.budgets_numbers import Row, capital, number, of
from simulation.report.budgets_rows import Budgets, Setting, goal, rate
from simulation.report.numbers import budget, listed, percent
from simulation.report.placements_words import SEATS
from simulation.report.words_budget import EMPTY_ABOVE, NO_FORMAL_SAFETY

SHORT_GOALS = {
    "copied": "copying images",
    "visible": "making images visible",
    "identified": "recognising images among decoys",
    "informed": "recognising images when shown the candidates",
    "members": "telling who was trained on",
    "labels": "counting labels",
}


def death_words(budgets: Budgets) -> list[str]:
    """Say for each mechanism up to which budget attacks of each kind did no better than guessing."""
    tried = [m for m in budgets.mechanisms if budgets.of(m) and any(s.attack for s in budgets.of(m))]
    if not tried:
        return ["No attack was tested at any budget, so where attacks stop working is not known."]
    words = [
        "Better than guessing means: with 95% confidence, all tests of a setting allowed for. No better means: not "
        "shown by any test (each by itself at 5%) though a rate of one half would have been noticed; that is no proof. "
        "Nothing was measured between budgets."
    ]
    for name in tried:
        alike: dict[str, list[str]] = {}
        for key, row in budgets.study["deaths"][name].items():
            alike.setdefault(_death(budgets, name, key, row), []).append(SHORT_GOALS[key])
        parts = [capital(f"{listed(goals)}: {ending}") for ending, goals in alike.items()]
        words.append(f"{capital(phrases.mechanism(name))}. {'. '.join(parts)}.")
    if any(s.budget is not None and s.budget >= EMPTY_ABOVE for name in tried for s in budgets.of(name)):
        words.append(NO_FORMAL_SAFETY)
    return words


def _death(budgets: Budgets, mechanism: str, key: str, row: Row) -> str:
    quiet, loud = row["quiet_up_to"], row["loud_from"]
    if quiet is None and loud is None:
        tested = any(a["goal"] == key and a["above_null"] is not None for s in _all(budgets, mechanism) for a in s)
        return "left open at the smallest budget tried: too few images, or no judgement" if tested else "not tested"
    if loud is None:
        bare = number(quiet) is None
        return (
            f"no better than guessing at any budget tried{', nor without privacy' if bare else f' up to {_at(quiet)}'}"
        )
    better = "without privacy" if number(loud) is None else f"at {_at(loud)}"
    if quiet is not None:
        return f"no better than guessing up to {_at(quiet)}, better {better}"
    first = number(loud) == min(s.budget or 0.0 for s in budgets.of(mechanism))
    return f"better than guessing {better}, {'the smallest budget tried' if first else 'below which nothing is known'}"


def _all(budgets: Budgets, mechanism: str) -> list[list[Row]]:
    return [s.row["attacks"] for s in budgets.settings if s.mechanism == mechanism]


def _at(value: float | str | None) -> str:
    return "no budget" if number(value) is None else f"ε = {budget(value)}"


def central_words(budgets: Budgets) -> list[str]:
    """Say whom noise at the server protects, and what the server itself got."""
    own = budgets.of("central")
    if not own:
        return []
    at = budgets.get("central", budgets.shown.budget) or own[0]
    words = [
        "The server clips whole updates and adds the noise. The budget counts hospitals: it limits what whoever "
        "receives the model learns about any one of them. It is no budget of a single image, and cannot be held "
        "against the others.",
        "The server sees every update before the noise, so nothing protects from it.",
    ]
    if at.attack is not None:
        better = "better than guessing (95% confidence)" if at.attack["above_null"] else "not shown to be better"
        words.append(f"At {at.label}: {attack_words(at)}, {better}.")
    return words


def empty_words(budgets: Budgets) -> list[str]:
    """Say of the settings without a promise what was got there, and that nothing is claimed for them."""
    heads = {
        "none": "Federated, without privacy: nothing is limited, nothing is added.",
        "clip_only": "Clipping only: the influence of each image is limited; there is no noise, so no budget.",
        "noise_only": "Noise only: nobody's influence is limited, so no noise is large enough to claim a budget.",
    }
    words: list[str] = []
    for name, head in heads.items():
        setting = budgets.get(name)
        if setting is None:
            continue
        got = f" The strongest attack: {attack_words(setting)}." if setting.attack else " No attack was tested."
        words.append(f"{head} {budgets.measure.label} {setting.utility.said}, {of(budgets.heldout)}.{got}")
    return words


def attack_words(setting: Setting) -> str:
    """Write what the strongest attack got: '3 of 120 (..) images copied by imprint (..); guessing gets 0%'."""
    attack = setting.attack
    if attack is None:
        return "not tested"
    seat = SEATS.get(attack["placement"], attack["placement"])
    null = percent(attack["null"])
    return f"{rate(attack)} images {goal(attack)} by {attack['attack']} ({seat}); guessing gets {null}"
