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
    settings = summary["experiment"]["privacy"]
    bare = {"none": NOTHING, "clip_only": CLIPPING_ALONE, "noise_only": NOISE_ALONE}
    if settings["mechanism"] in bare:
        return (bare[settings["mechanism"]],)
    if settings["epsilon"] == "none":
        return (NOTHING,)
    if settings["mechanism"] == "central":
        return _central_words(summary["central"])
    unit = per_unit(summary)
    words = _dp_sgd(settings, unit)
    claimed = [h for h in summary["hospitals"] if h["epsilon"]]
    silent = [str(h["name"]) for h in summary["hospitals"] if not h["epsilon"]]
    if claimed:
        words.append(_claim(claimed, unit))
        if max(h["epsilon"]["upper"] for h in claimed) >= EMPTY_ABOVE:
            words.append(NO_FORMAL_SAFETY)
    words += larger_unit_words(claimed, unit)
    if silent:
        words.append(f"For {listed(silent)} no epsilon is claimed.")
    return tuple(words)


def _dp_sgd(settings: Summary, unit: str) -> list[str]:
    """Say how single units were protected, and whom the noise protects from."""
    mechanism = settings["mechanism"]
    if mechanism != "distributed":
        where = "before anything left a hospital" if mechanism == "local" else "before each step of training"
        return [f"The influence of every single {unit} was limited and noise was added {where} (DP-SGD)."]
    few = int(settings["colluders"])
    told = (
        f"even if {counted(few, 'hospital')} told the server what noise {'it' if few == 1 else 'they'} added"
        if few
        else "as long as no hospital tells the server what noise it added"
    )
    return [
        f"The influence of every single {unit} was limited, and every hospital added a share of the noise before a "
        "secure sum: only the sum of all updates, with all shares in it, is opened (DP-SGD).",
        f"What the noise promises holds against the server {told}.",
    ]


def _central_words(central: Summary) -> tuple[str, ...]:
    """Say what a server that adds the noise promises to whole hospitals, and that it sees everything itself."""
    words = [
        "The influence of every whole hospital was limited, and the server added noise to the mean of their updates "
        "before anybody else saw the model.",
        "This protects from whoever receives the models, other hospitals among them, and not from the server: it sees "
        "every update as it is. No budget per image is claimed.",
    ]
    if central["epsilon"]:
        upper = float(central["epsilon"]["upper"])
        words.insert(
            1,
            f"The privacy budget (epsilon) spent per hospital over the whole run is at most {significant(upper)}, with "
            f"delta {significant(central['delta'])}, over {counted(int(central['steps']), 'noisy step')}. Smaller is "
            "more private.",
        )
        words += _central_limits(central)
        if upper >= EMPTY_ABOVE:
            words.append(NO_FORMAL_SAFETY)
    return tuple(words)


def _central_limits(central: Summary) -> list[str]:
    """Say what the price of a hospital's taking part leaves out."""
    words: list[str] = []
    if (change := central.get("epsilon_of_a_change")) is not None:
        words.append(
            "That is the price of whether a hospital took part. Of what its records say, where it took part anyway, an "
            f"update may change by twice the limit: epsilon {significant(change['upper'])}."
        )
    if (known := central.get("epsilon_if_known")) is not None:
        words.append(
            "It counts on nobody knowing in which rounds a hospital was asked. Of the hospital that was asked most, "
            f"where that is known: epsilon {significant(known['upper'])}."
        )
    return words


def larger_unit_words(claimed: list[Summary], unit: str) -> list[str]:
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
    """Return the largest budget claimed for any hospital, or by the server; None where any of them claims nothing."""
    if summary.get("central"):
        return float(summary["central"]["epsilon"]["upper"]) if summary["central"]["epsilon"] else None
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
