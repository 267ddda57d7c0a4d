"""The four tiles at the top of a run's page: who trained, how well, what was promised, what leaked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from simulation.measures import leading
from simulation.report import phrases
from simulation.report.numbers import counted, decimal, interval, percent, significant
from simulation.report.outcomes import Outcome, level
from simulation.report.phrases import per_unit
from simulation.report.words_attacks import chance
from simulation.report.words_budget import EMPTY_ABOVE, highest_epsilon
from simulation.report.words_utility import span_of

Summary = dict[str, Any]


@final
@dataclass(frozen=True)
class Tile:
    """A number for people: what it is about, the number, and what it assumes."""

    about: str
    number: str
    meaning: str


def run_tiles(summary: Summary, found: Sequence[Outcome]) -> list[Tile]:
    """Return the tiles of a run."""
    return [_trained(summary), _works(summary), _promised(summary), _leaked(found)]


def _trained(summary: Summary) -> Tile:
    images = counted(sum(int(h["records"]) for h in summary["hospitals"]), phrases.noun(summary))
    rounds = counted(int(summary["rounds"]), "round")
    mechanism = summary["experiment"]["privacy"]["mechanism"]
    if mechanism == "pooled":
        return Tile("Trained", "One collection", f"{images} brought together in one place; {rounds}")
    if mechanism == "alone":
        return Tile("Trained alone", str(summary["hospitals"][0]["name"]), f"{images}, {rounds}; no update left")
    hospitals = counted(len(summary["hospitals"]), "hospital")
    return Tile(
        "Trained together",
        hospitals,
        f"{images}, {rounds}; {phrases.noun(summary)}s stayed, one update a round left at most",
    )


def _works(summary: Summary) -> Tile:
    measure, heldout = leading(summary), phrases.heldout(summary)
    if measure.value is None:
        return Tile("Works", "not measured", f"on the {heldout} kept aside")
    span = f"; 95% interval {span_of(measure)}"
    if measure.key == "auroc":
        means = f"pairs of images told apart (AUROC {decimal(measure.value)}{span}; n = {heldout} not trained on; "
        return Tile("Works", f"{significant(100 * measure.value)} of 100", f"{means}guessing: 50)")
    means = f"{measure.label}{span}; n = {heldout} not trained on; guessing: {decimal(measure.guess)}; 1 is perfect"
    return Tile("Works", decimal(measure.value), means)


def _promised(summary: Summary) -> Tile:
    epsilon = highest_epsilon(summary)
    if epsilon is None:
        some = any(h["epsilon"] for h in summary["hospitals"])
        why = "some hospitals claim no budget" if some else _why_nothing(summary)
        return Tile("Promised", "nothing", why)
    by_server = summary.get("central")
    promise = by_server or next(h for h in summary["hospitals"] if h["epsilon"])
    unit, delta = (by_server["unit"] if by_server else per_unit(summary)), significant(promise["delta"])
    means = f"privacy budget per {unit}, whole run (except with a probability of δ = {delta})"
    means += ", not from the server" if by_server else ""
    means += (
        f"; so large that it rules nothing out for {'a hospital' if by_server else 'an image'} that took part"
        if epsilon >= EMPTY_ABOVE
        else "; small is private"
    )
    return Tile("Promised", f"ε ≤ {significant(epsilon)}", means)


def _why_nothing(summary: Summary) -> str:
    settings = summary["experiment"]["privacy"]
    bare = "no noise was added, nothing was limited"
    if settings["epsilon"] == "none":
        return bare
    return {
        "none": bare,
        "clip_only": "clipping alone adds no noise, so it protects nobody",
        "noise_only": "noise without a limit on single images claims nothing",
    }.get(settings["mechanism"], "no privacy budget is claimed")


def _leaked(found: Sequence[Outcome]) -> Tile:
    tried = [o for o in found if o.recovered or o.informed]
    if not tried:
        return Tile("Leaked", "not tested", "no attack was part of this run")
    outcome = tried[0]
    worst = level(found)
    if worst in ("recognised", "informed"):
        key = "rank1" if worst == "recognised" else "informed"
        with_share = [(o, s) for o in tried if (s := getattr(o, key)) is not None]
        best, share = max(with_share, key=lambda pair: pair[1].rate)
        shown = " when shown the candidates" if worst == "informed" else f" among {best.decoys + 1:,} or more"
        means = f"images recognised{shown} ({percent(share.rate)}, {interval(share.interval)}); null: "
        return Tile("Leaked", f"{share.hits:,} of {share.total:,}", f"{means}{chance(best)} by chance")
    copied = outcome.recovered
    if copied is None:
        return Tile("Leaked", "not tested", "no attack was part of this run")
    null = "no null was measured" if outcome.null is None else f"null: {percent(outcome.null)} by seeing nothing"
    means = f"images copied ({percent(copied.rate)}, 95% interval {interval(copied.interval)}); {null}"
    return Tile("Leaked", f"{copied.hits:,} of {copied.total:,}", means)
