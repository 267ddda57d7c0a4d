"""What each attack achieved, in sentences: every rate with its interval, its number and its null."""

from collections.abc import Sequence
from typing import Any

from simulation.report import phrases
from simulation.report.numbers import counted, decimal, interval, listed, p_value, percent
from simulation.report.outcomes import SIGNIFICANT, Level, Outcome, Share, others

Summary = dict[str, Any]

NO_ADVERSARY = "No adversary was part of this run. The report therefore says nothing about what could be reconstructed."
VERDICTS: dict[Level, tuple[str, str]] = {
    "copied": (
        "Images could be copied.",
        "From what left the hospitals, an attack made near-exact copies of images, more than somebody "
        "makes who saw nothing from them.",
    ),
    "recognised": (
        "Images could be recognised.",
        "Nothing was copied beyond what somebody gets who saw nothing, but what was reconstructed is "
        "enough to tell which image was used, more often than chance.",
    ),
    "informed": (
        "Someone who already holds an image could sometimes tell that it was used.",
        "Nothing was copied or recognised beyond guessing from the updates alone; but shown the candidate "
        "images, the adversary picked the right one more often than chance.",
    ),
    "quiet": (
        "No attack that was tried did measurably better than guessing.",
        "That is a finding about the attacks tried here, not a guarantee against all others.",
    ),
    "untested": ("No attack was tried.", "This says nothing about what could be reconstructed."),
}


def attack_words(found: Sequence[Outcome], summary: Summary) -> list[str]:
    """Say who attacked and what each attack achieved; that nobody did, where nobody did."""
    words: list[str] = []
    for name in dict.fromkeys(o.placement for o in found):
        words.append(f"Who attacked: {phrases.placement(name)}.")
        for outcome in found:
            if outcome.placement == name:
                words.extend(_outcome_words(outcome, summary))
    words += other_words(others(summary["attacks"]))
    return words or [NO_ADVERSARY]


def facts(outcome: Outcome) -> list[tuple[str, str, str]]:
    """Write what one attack achieved in at most three lines: measure, count and rate, null."""
    lines: list[tuple[str, str, str]] = []
    if outcome.recovered is not None:
        null = "none measured" if outcome.null is None else percent(outcome.null)
        lines.append(("Copied", _short(outcome.recovered), null))
    if outcome.rank1 is not None:
        lines.append(("Recognised", _short(outcome.rank1), chance(outcome)))
    if outcome.informed is not None:
        lines.append(("Recognised if shown", _short(outcome.informed), chance(outcome)))
    return lines


def chance(outcome: Outcome) -> str:
    """Write how often the true image comes first by chance; updates may differ in their number of decoys."""
    return f"{'≤ ' if outcome.most_decoys > outcome.decoys else ''}{percent(outcome.chance)}"


def public_words(rows: Sequence[Summary]) -> str:
    """Say what the adversary owned beforehand; empty where it is not known."""
    known = sorted({str(r["public_data"]) for r in rows if r.get("public_data")})
    return f"Beforehand the adversary owned {listed(known)}." if known else ""


def _outcome_words(outcome: Outcome, summary: Summary) -> list[str]:
    words = [_matched(outcome) if _only_matches(outcome) else _copies(outcome, summary)]
    if outcome.mean_ssim is not None and outcome.null_mean_ssim is not None:
        words.append(
            f"On average a reconstruction has a similarity (SSIM) of {decimal(outcome.mean_ssim)} to the "
            f"true image; the null reaches {decimal(outcome.null_mean_ssim)}. Medical images of one kind are "
            "all alike, so an SSIM above 0.5 means nothing without that null."
        )
    even = outcome.decoys == outcome.most_decoys
    decoys = counted(outcome.decoys, "decoy") if even else f"{outcome.decoys:,} to {outcome.most_decoys:,} decoys"
    null = f"the null, chance, is {'' if even else 'at most '}{percent(outcome.chance)}"
    if outcome.rank1 is not None:
        words.append(
            f"Hidden among {decoys}, the true image came first for {_counts(outcome.rank1)}; {null} "
            f"({_judged(outcome.rank1)})."
        )
    if outcome.informed is not None:
        words.append(
            f"Shown the candidates, the adversary picks the right one for {_counts(outcome.informed)}; "
            f"{null} ({_judged(outcome.informed)})."
        )
    if outcome.bound_worst_case is not None:
        words.append(_bound(outcome.bound_worst_case, outcome.decoys + 1))
    return words


def _only_matches(outcome: Outcome) -> bool:
    return all(row.get("yields") == "candidates" for row in outcome.rows)


def _matched(outcome: Outcome) -> str:
    how = phrases.attack(outcome.attack)
    return f"The attack '{outcome.attack}'{f' {how}' if how else ''}; it rebuilds no image."


def other_words(rows: Sequence[Summary]) -> list[str]:
    """Say what attacks got that yield labels or members, or why they could not be run, a sentence each."""
    words: list[str] = []
    for row in rows:
        lead = f"The attack '{row['attack']}' {phrases.attack(row['attack'])}".rstrip()
        if row.get("success") is None:
            words.append(f"{lead}; on {row['hospital']} it could not be judged: {row.get('why', 'nothing to judge')}.")
            continue
        span = f", 95% interval {interval(tuple(row['success_ci']))}" if row.get("success_ci") else ""
        p = row.get("success_p")
        judged = "not tested" if p is None else p_value(p)
        words.append(
            f"{lead}. On {row['hospital']} it reached {percent(row['success'])} ({row['success_name']}{span}); the "
            f"null reaches {percent(row.get('success_null'))} ({judged})."
        )
    return words


def _copies(outcome: Outcome, summary: Summary) -> str:
    how = phrases.attack(outcome.attack)
    rounds = f"round{'s' if len(outcome.rounds) > 1 else ''} {listed([f'{r:,}' for r in outcome.rounds])}"
    lead = f"The attack '{outcome.attack}'{f' {how}. It' if how else ''}"
    share = outcome.recovered
    if share is None:
        return f"{lead} found no image to reconstruct in {rounds}, so there is no rate to report."
    null = (
        "No null was measured, so this rate cannot be judged."
        if outcome.null is None
        else f"Somebody who saw nothing from the hospitals (the null) copies {percent(outcome.null)}."
    )
    return (
        f"{lead} copied {_counts(share)} in {rounds} of {summary['rounds']:,}; a copy has a similarity "
        f"(SSIM) above 0.9. {null} In {outcome.above_null} of "
        f"{counted(len(outcome.rows), 'attacked update')} it copied more than the null (exact paired test at "
        "5%, one by one)."
    )


def _bound(bound: float, fewest: int) -> str:
    if bound >= 0.99:
        return (
            "The formal worst-case bound on recognising one image among its candidates from everything sent up to "
            f"then is about 1 ({percent(bound)}, with {fewest:,} candidates): it rules nothing out."
        )
    return (
        f"Whatever an adversary knows and tries, it cannot recognise an image among {fewest:,} or more "
        f"candidates from everything sent up to then with a probability above {percent(bound)} (worst-case "
        "bound). Later rounds are not in it."
    )


def _counts(share: Share) -> str:
    return f"{share.hits:,} of {counted(share.total, 'image')} ({_rate(share)})"


def _short(share: Share) -> str:
    return f"{share.hits:,} of {share.total:,} ({percent(share.rate)})"


def _rate(share: Share) -> str:
    return f"{percent(share.rate)}, 95% interval {interval(share.interval)}"


def _judged(share: Share) -> str:
    if share.p is None:
        return "not tested"
    return f"{'more' if share.p < SIGNIFICANT else 'no more'} than chance explains, {p_value(share.p)}"
