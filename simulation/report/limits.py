"""What a run or a study does not promise."""

from collections.abc import Sequence
from typing import Any

from simulation.report.numbers import listed
from simulation.report.phrases import per_unit

Summary = dict[str, Any]

_OUTSIDE_LEDGER = (
    "Numbers of images, classes and hospitals, and the choice of settings after looking at results, leak "
    "outside the account that is kept here."
)
_COMPOSE = (
    "Each update leaks; budgets of several runs on the same images add up, and a person with images at two "
    "hospitals is exposed by both."
)


def run_limits(summary: Summary) -> tuple[str, ...]:
    """Say what is not promised: other attacks, other rounds, other runs, other units, real data."""
    return _limits([summary])


def study_limits(summaries: Sequence[Summary]) -> tuple[str, ...]:
    """Say the same for all runs of a study."""
    seeds = {s["experiment"]["seed"] for s in summaries}
    words = _limits(summaries)
    if len(seeds) == 1:
        words = (
            *words,
            "Every setting was run once, with one seed: small differences between them may be luck.",
        )
    return words


def _limits(summaries: Sequence[Summary]) -> tuple[str, ...]:
    words: list[str] = []
    attacks = [row for s in summaries for row in s["attacks"]]
    if attacks:
        names = listed(sorted({str(row["attack"]) for row in attacks}))
        rounds = sorted({int(row["round"]) for row in attacks})
        which = f"round{'s' if len(rounds) > 1 else ''} {listed([f'{r:,}' for r in rounds])}"
        if (most := max(int(row.get("rounds", 1)) for row in attacks)) > 1:
            which = f"up to {most:,} rounds taken together"
        words.append(
            f"Attacks that were not tried may do better: tried here: {names}, in {which} only. An "
            "adversary who attacks more rounds can average the noise away and see more."
        )
    words.append(_COMPOSE)
    words.append(_OUTSIDE_LEDGER)
    words += dict.fromkeys(note for s in summaries for note in s.get("notes", ()))  # each once
    unit = per_unit(summaries[0])
    if unit != "patient" and any(h["epsilon"] for s in summaries for h in s["hospitals"]):
        words.append(
            f"The budget is counted per {unit}, not per patient: a person with several {unit}s in the data "
            "is protected less than the number says."
        )
    if any(s["data"] == "phantom" for s in summaries):
        words.append(
            "The images are synthetic. How well a model works on real patients, and how much they would "
            "leak, has to be measured on real images."
        )
    return tuple(words)
