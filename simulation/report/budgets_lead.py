"""The first screen of a study of budgets: which budget, why, how accurate, how risky, and what is not promised."""

from dataclasses import dataclass
from typing import final

from simulation.comparing_quiet import noticed
from simulation.report import phrases
from simulation.report.budgets_accuracy import clipping_words, larger_units, within_words
from simulation.report.budgets_numbers import Row, capital, exact, of
from simulation.report.budgets_risk import bound
from simulation.report.budgets_rows import Budgets, Setting, goal
from simulation.report.numbers import budget, counted, decimal, listed, percent, significant
from simulation.report.placements_words import SEATS
from simulation.report.words_budget import EMPTY_ABOVE

WITH = {
    "local": "with noise at each hospital",
    "distributed": "with noise shared in a secure sum",
    "central": "with noise at the server",
    "pooled": "with all data in one place",
}
EMPTY_BOUND = 0.99  # from which on a bound is said to rule nothing out


@final
@dataclass(frozen=True)
class Answer:
    """One of the questions of the first screen.

    Attributes:
        question: in a reader's words.
        number: the answer in a glance.
        lines: what the number needs to be understood, a sentence each.
    """

    question: str
    number: str
    lines: tuple[str, ...]


@final
@dataclass(frozen=True)
class Lead:
    """The first sentence of the page.

    Attributes:
        level: its tone, as in the style sheet.
        text: what is recommended, or that nothing is.
        about: which setting the answers below are about.
        why: the reasons.
    """

    level: str
    text: str
    about: str
    why: tuple[str, ...]


def lead(budgets: Budgets) -> Lead:
    """Say which budget is recommended and why, or why none is."""
    found, chosen = budgets.study["recommended"], budgets.recommended
    if chosen is None:
        what = ", the setting that came closest" if _tried(budgets) else ", the smallest budget tried"
        about = f"The answers below are for {budgets.shown.label}{what if budgets.candidates else ''}."
        return Lead(_tone(budgets), f"No budget is recommended{_because(budgets)}.", about, tuple(found["why"]))
    metric, allowed = budgets.measure.label, significant(budgets.tolerance)
    name = f"ε = {budget(chosen.budget)} {WITH[chosen.mechanism]}"
    quiet = "There and at every smaller budget tried, no attack that was tried was shown to do better than guessing"
    if found["shown"]:
        text = f"Recommended: {name}. {quiet}, and privacy is shown to cost at most {allowed} {metric}."
        about = "Of all settings that pass both tests it is the one with the least noise."
    else:
        text = (
            f"Recommended with a reservation: {name}. {quiet}; that privacy costs at most {allowed} {metric} is likely "
            "and not shown."
        )
        about = "No setting is shown to pass both tests; of those that may, it is the one with the least noise."
    tests = counted(sum(a["above_null"] is not None for a in chosen.row["attacks"]), "test")
    about = f"That is no proof that none does ({tests} there, each at 5%). {about}"
    level = "quiet" if found["shown"] else "mixed"
    return Lead(level, text, f"{about} The answers below are for it.", tuple(found["why"]))


def answers(budgets: Budgets) -> tuple[Answer, ...]:
    """Answer the questions of the first screen for the setting that it is about."""
    setting = budgets.shown
    return (_accuracy(budgets, setting), _risk(setting), _budget(budgets, setting), _not_promised(budgets, setting))


def _tone(budgets: Budgets) -> str:
    return "mixed" if any(s.attack for s in budgets.settings) else "untested"


def _tried(budgets: Budgets) -> bool:
    """Whether any setting that may be recommended was attacked."""
    return any(s.attack for m in budgets.candidates for s in budgets.of(m))


def _because(budgets: Budgets) -> str:
    """Say in a few words why no budget is recommended; empty where no single reason covers all mechanisms."""
    candidates = budgets.candidates
    if not candidates:
        return ": no mechanism with a budget was tried"
    if all(s.row["against_none"] is None for s in budgets.settings):
        return ": nothing was trained without privacy to compare with"
    first = [budgets.of(m)[0] for m in candidates]
    if all(s.attack is None for s in first):
        return ": no attack was tested"
    if all(s.loud for s in first):
        return ": even at the smallest budget tried an attack did better than guessing"
    if not any(s.quiet or s.loud for s in first):
        return ": at the smallest budget tried the tests leave open whether an attack does better than guessing"
    return _too_dear(budgets)


def _too_dear(budgets: Budgets) -> str:
    """Say that what is quiet costs too much; empty where that is not so of every mechanism."""
    candidates = budgets.candidates
    quiet, most = [s.cost for m in candidates for s in _quiet(budgets, m)], -budgets.tolerance
    if quiet and all(cost.estimate is not None and cost.estimate < most for cost in quiet):
        shown = all(cost.high is not None and cost.high < most for cost in quiet)
        costs = "privacy is shown to cost more than" if shown else "the estimated cost of privacy is above"
        allowed = f"{significant(budgets.tolerance)} {budgets.measure.label}"
        return f": where no attack was shown to do better than guessing, {costs} {allowed}"
    return ""


def _quiet(budgets: Budgets, mechanism: str) -> list[Setting]:
    """Return a mechanism's settings from the smallest budget up to where one is not quiet."""
    found: list[Setting] = []
    for setting in budgets.of(mechanism):
        if not setting.quiet:
            break
        found.append(setting)
    return found


def _accuracy(budgets: Budgets, setting: Setting) -> Answer:
    measure, own = budgets.measure, setting.utility
    number = "not measured" if own.estimate is None else f"{measure.label} {exact(own.estimate)}"
    guess = f"; {decimal(measure.guess)} is guessing" if measure.guess is not None else ""
    seeds = "one seed" if setting.row["seeds"] == 1 else f"mean of {setting.row['seeds']} seeds"
    first = capital(own.why if own.estimate is None else own.span)
    lines = [f"{first}; {of(budgets.heldout)} never trained on, {seeds}{guess}."]
    if measure.key == "auroc" and own.estimate is not None:
        lines.append(f"It tells {significant(100 * own.estimate)} of 100 pairs of images apart; guessing: 50.")
    others = (
        (capital(phrases.mechanism("none")), budgets.get("none")),
        ("All data in one place, same ε", budgets.get("pooled", setting.budget) if setting.budget else None),
        ("All data in one place, without privacy", budgets.get("pooled")),
    )
    lines += within_words(budgets, setting)
    lines += [f"{name}: {s.utility.said}." for name, s in others if s is not None and s is not setting]
    if setting.mechanism != "none" and setting.row["against_none"] is not None:
        lines.append(f"What privacy changes, image by image: {setting.cost.said_signed}.")
        lines += clipping_words(budgets, setting)
    return Answer("How accurate is the model?", number, tuple(lines))


def _risk(setting: Setting) -> Answer:
    question, attack = "What could an attacker get?", setting.attack
    lines: list[str] = []
    if attack is None:
        number = "not tested"
        lines.append(f"{capital(setting.row['why'].get('attack', 'no attack was made'))}.")
    else:
        number = f"{attack['hits']:,} of {attack['targets']:,}"
        seat = SEATS.get(attack["placement"], attack["placement"])
        ends = f"95% interval {percent(attack['low'])} to {percent(attack['high'])}"
        better = "better than guessing (95% confidence)" if attack["above_null"] else "not shown to be better than that"
        if not attack["above_null"] and noticed(dict(attack)):
            better = "better by its own test, and not shown to be once all tests are allowed for"
        lines += [
            f"images {goal(attack)}: {percent(attack['rate'])}, {ends}. The strongest attack tried: "
            f"{attack['attack']}, from the seat of {seat}.",
            f"Guessing gets {percent(attack['null'])}: the attack is {better}.",
            *_widest(setting, attack),
        ]
    lines.append(bound_words(setting))
    return Answer(question, number, tuple(lines))


def _widest(setting: Setting, strongest: Row) -> list[str]:
    """Say which attack may have got most, by the upper end of its interval, where that is another one."""
    tests = [
        a for a in setting.row["attacks"] if a["above_null"] is not None and a["goal"] not in ("members", "labels")
    ]
    most = max(tests, key=lambda a: a["high"], default=strongest)
    if most["high"] <= strongest["high"]:
        return []
    return [
        f"Least is known of images {goal(most)}: {most['hits']:,} of {most['targets']:,}, by {most['attack']}; the "
        f"true rate may be up to {percent(most['high'])} (guessing: {percent(most['null'])})."
    ]


def bound_words(setting: Setting) -> str:
    """Say what the formal bound rules out."""
    bounds, unit = setting.row["bounds"], setting.row["protects"]
    if bounds is None:
        return "No formal bound holds: nothing limits what an attacker may get."
    among = f"{round(1 / bounds['prior']):,} equally likely candidates"
    if bounds["worst_case"] >= EMPTY_BOUND:
        return (
            f"The formal bound on finding one {unit} among {among} is about 1 ({percent(bounds['worst_case'])}): it "
            "rules nothing out, and safety rests on the attacks that were tried."
        )
    rounds = f"rounds the {unit} was asked" if unit == "hospital" else f"steps the {unit} was drawn"
    words = (
        f"Formal bound, for whoever does not know in which {rounds}: finding it among {among} succeeds with a "
        f"probability of at most {percent(bounds['worst_case'])} (guessing: {percent(bounds['prior'])})."
    )
    if (known := bound(setting, "bound_worst_case")) is None:
        return words
    return (
        f"{words} Whoever knows that it took part in the attacked step: at most {percent(known)}, among as many "
        "candidates as the attacks had."
    )


def _budget(budgets: Budgets, setting: Setting) -> Answer:
    question, row = "What does the budget promise?", setting.row
    if setting.epsilon is None:
        return Answer(question, "nothing", ("No budget is claimed: no limit and no noise together protect anybody.",))
    empty = "; so large that it rules nothing out" if setting.epsilon >= EMPTY_ABOVE else "; small is private"
    lines = [
        f"per {row['protects']}, over the whole run, except with a probability of δ = {significant(row['delta'])}"
        f"{empty}.",
        "That is the exact price; papers that use the RDP accountant of Opacus would print "
        f"{significant(row['epsilon_opacus_rdp'])} for the same noise.",
        *larger_units(budgets, setting),
        f"Protects from: {row['against']}.",
    ]
    return Answer(question, f"ε ≤ {significant(setting.epsilon)}", tuple(lines))


def _not_promised(budgets: Budgets, setting: Setting) -> Answer:
    tests: list[Row] = [a for a in setting.row["attacks"] if a["above_null"] is not None]
    lines: list[str] = []
    if tests:
        lines.append(f"Tried here: {listed(list(dict.fromkeys(a['attack'] for a in tests)))}. Others may get more.")
        lines += _unnoticed(tests)
    else:
        lines.append("No attack was tried in this setting, so nothing is known about any.")
    unit = setting.row["protects"]
    if unit is not None and unit != "hospital":
        lines.append(f"The budget counts one {unit}: a patient with several is protected less.")
    if budgets.first["data"] == "phantom":
        lines.append("All images here are synthetic: real patients' images have to be measured anew.")
    return Answer("What is not promised?", "Attacks not tried", tuple(lines))


def _unnoticed(tests: list[Row]) -> list[str]:
    """Say up to which true rate the weakest test may have missed an attack; rates of other goals lie below."""
    known = [a for a in tests if a["noticed_from"] is not None]
    blind = [a for a in tests if a["noticed_from"] is None and a["goal"] not in ("members", "labels")]
    if blind:
        few = counted(int(blind[0]["targets"]), "image")
        return [f"With {few} attacked, no rate of images {goal(blind[0])} would have been noticed."]
    if not known:
        return []
    weakest = max(known, key=lambda a: float(a["noticed_from"]))
    return [
        f"With {counted(int(weakest['targets']), 'image')} attacked, a true rate below "
        f"{percent(weakest['noticed_from'])} of images {goal(weakest)} may go unnoticed."
    ]


def by_mechanism(budgets: Budgets) -> tuple[str, ...]:
    """Say what the same rule would recommend for each mechanism by itself; empty where there is only one."""
    found = budgets.study["recommended"]["by_mechanism"]
    if len(found) < 2:
        return ()
    return tuple(f"{capital(phrases.mechanism(name))}: {_passing(budgets, name, at)}." for name, at in found.items())


def _passing(budgets: Budgets, mechanism: str, at: float | None) -> str:
    if at is not None:
        return f"ε = {budget(at)}"
    return "no budget passes" if any(s.attack for s in budgets.of(mechanism)) else "no attack was tested"
