"""What a run or a study means, in sentences that its summary supports."""

from dataclasses import dataclass
from typing import Any, final

from simulation.report import phrases
from simulation.report.limits import run_limits
from simulation.report.numbers import counted, listed
from simulation.report.outcomes import outcomes
from simulation.report.words_attacks import attack_words
from simulation.report.words_budget import protection_words
from simulation.report.words_utility import people_words, utility_words

Summary = dict[str, Any]


@final
@dataclass(frozen=True)
class Chapter:
    """A heading and its sentences."""

    heading: str
    sentences: tuple[str, ...]


def run_words(summary: Summary) -> list[str]:
    """Return what a run's numbers mean: who trained, how well, what was promised, what leaked, the limits.

    Args:
        summary: the run's summary; `words` in it is not read.
    """
    return [sentence for chapter in run_chapters(summary) for sentence in chapter.sentences]


def run_chapters(summary: Summary) -> list[Chapter]:
    """Return the sentences of a run by chapter."""
    found = outcomes(summary["attacks"])
    return [
        Chapter("Who trained", who_words(summary)),
        Chapter("How well it works", (*utility_words(summary), *people_words(summary))),
        Chapter("What was promised", protection_words(summary)),
        Chapter("What leaked, and to whom", tuple(attack_words(found, summary))),
        Chapter("What is not promised", run_limits(summary)),
    ]


def who_words(summary: Summary) -> tuple[str, ...]:
    """Say who trained on what, for how long."""
    hospitals = summary["hospitals"]
    images = counted(sum(int(h["records"]) for h in hospitals), phrases.noun(summary))
    what = phrases.pictures(summary)
    rounds = counted(int(summary["rounds"]), "round")
    if summary["experiment"]["privacy"]["mechanism"] == "pooled":
        return (
            f"One model was trained on {images} brought together in one place, {what}, in {rounds}. "
            "Whoever holds that collection sees every image.",
        )
    if summary["experiment"]["privacy"]["mechanism"] == "alone":
        return (
            f"One hospital ({hospitals[0]['name']}) trained a model by itself on its own {images}, {what}, in "
            f"{rounds}. Nothing left it during training; whoever gets the model gets what it holds.",
        )
    names = listed([str(h["name"]) for h in hospitals])
    together = f"{counted(len(hospitals), 'hospital')} ({names}) trained one model"
    words = [
        f"{together}{' together' if len(hospitals) > 1 else ''} on {images}, {what}, in {rounds}.",
        "The images stayed where they were; what left a hospital was at most one update of the model per round.",
    ]
    absent = [f"{h['name']} ({h['declined']})" for h in hospitals if h.get("declined")]
    if absent:
        words.append(f"Rounds in which a hospital sent nothing: {listed(absent)}.")
    return tuple(words)
