"""What a mechanism promises, in sentences: the budget of every hospital, or that there is none."""

from typing import Any

from simulation.report.numbers import counted, listed, significant
from simulation.report.phrases import per_unit

Summary = dict[str, Any]
EMPTY_ABOVE = 1e3  # epsilon from which on the worst-case bound is about 1 for an image that was drawn at all

NOTHING = "Nothing was added to protect anybody: no privacy budget (epsilon) can be claimed."
CLIPPING_ALONE = (
    "The influence of single images was clipped, without noise. Clipping alone changes nothing: it adds no "
    "noise, so the attack recovers as much as without it and no epsilon can be claimed. (Only where two images "
    "share a row of the attack's module does clipping shift the mixture: a louder image no longer drowns the other.)"
)
NOISE_ALONE = (
    "Noise was added, but the influence of a single image was not limited (no clipping). However large the "
    "noise, one image may outweigh it, so no epsilon can be claimed."
)
NO_FORMAL_SAFETY = (
    "Above an epsilon of about 1,000 the formal worst-case bound on reconstruction is about 1 for an image that took "
    "part in training: it rules nothing out. Whatever safety remains rests on the attacks that were tried, not on a "
    "guarantee."
)


def protection_words(summary: Summary) -> tuple[str, ...]:
    """Say what was promised to the people in the images, and how far that carries."""
    alone = {"none": NOTHING, "clip_only": CLIPPING_ALONE, "noise_only": NOISE_ALONE}
    mechanism = summary["experiment"]["privacy"]["mechanism"]
    if mechanism in alone:
        return (alone[mechanism],)
    unit = per_unit(summary)
    where = "before anything left a hospital" if mechanism == "local" else "before each step of training"
    words = [f"The influence of every single {unit} was limited and noise was added {where} (DP-SGD)."]
    claimed = [h for h in summary["hospitals"] if h["epsilon"]]
    silent = [str(h["name"]) for h in summary["hospitals"] if not h["epsilon"]]
    if claimed:
        words.append(_claim(claimed, unit))
        if max(h["epsilon"]["upper"] for h in claimed) >= EMPTY_ABOVE:
            words.append(NO_FORMAL_SAFETY)
    words += _larger_units(claimed, unit)
    if silent:
        words.append(f"For {listed(silent)} no epsilon is claimed.")
    return tuple(words)


def _larger_units(claimed: list[Summary], unit: str) -> list[str]:
    """Say what somebody with several images pays, where images were drawn and clipped one by one."""
    found = [h for h in claimed if h.get("epsilon_larger_unit")]
    if not found:
        return []
    most = max(found, key=lambda h: float(h["epsilon_larger_unit"]["upper"]))
    return [
        f"That is the price of one {unit}. A {most['larger_unit']} of {most['images_in_larger_unit']} images, the "
        f"largest at {most['name']}, pays {significant(most['epsilon_larger_unit']['upper'])}."
    ]


def highest_epsilon(summary: Summary) -> float | None:
    """Return the largest budget claimed for any hospital; None where any of them claims nothing."""
    hospitals = summary["hospitals"]
    if not hospitals or any(not h["epsilon"] for h in hospitals):
        return None
    return max(float(h["epsilon"]["upper"]) for h in hospitals)


def _claim(claimed: list[Summary], unit: str) -> str:
    uppers = [float(h["epsilon"]["upper"]) for h in claimed]
    most = max(claimed, key=lambda h: float(h["epsilon"]["upper"]))
    spread = significant(max(uppers))
    if significant(min(uppers)) != spread:
        spread = f"{spread} (at {most['name']}; {significant(min(uppers))} where it is lowest)"
    return (
        f"The privacy budget (epsilon) spent per {unit} over the whole run is at most {spread}, with delta "
        f"{significant(most['delta'])}, over {counted(int(most['steps']), 'noisy step')}. Smaller is more "
        "private."
    )
