"""What the metrics of a summary are called, which one leads, and what guessing reaches."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

Summary = Mapping[str, Any]

_LABELS = {
    "auroc": "AUROC",
    "mcc": "MCC",
    "balanced_accuracy": "Balanced accuracy",
    "loss": "Loss",
    "brier": "Brier score",
    "calibration_error": "Calibration error",
    "classes_present": "Classes present",
    "recall": "Called right",
    "dice_soft": "Soft Dice",
}


@final
@dataclass(frozen=True)
class Measure:
    """The leading metric of a run.

    Attributes:
        key: its name in summaries and tables.
        label: for people.
        guess: what a prediction that is the same for every image reaches; None where it is not known.
        value: of the final model, None where it could not be measured.
        interval: its 95 % interval, None where there is none.
        why: why there is no interval; empty where there is one.
    """

    key: str
    label: str
    guess: float | None
    value: float | None
    interval: tuple[float, float] | None
    why: str


def leading(summary: Summary) -> Measure:
    """Return the leading metric of a run's summary."""
    key = str(summary["utility"]["primary"])
    row = summary["intervals"]["overall"]
    ends = None if row["low"] is None else (float(row["low"]), float(row["high"]))
    value = (summary.get("metrics") or {}).get(key)
    return Measure(key, label(key), summary["null_metrics"].get(key), value, ends, str(row["reason"]))


def label(key: str) -> str:
    """Return what a metric is called: 'AUROC', 'Dice (liver)'."""
    if key in _LABELS:
        return _LABELS[key]
    if key.startswith("dice_"):
        return f"Dice ({key.removeprefix('dice_').replace('_', ' ')})"
    return key.replace("_", " ")


def guesses_of(summary: Summary) -> str:
    """Write what a prediction that is the same for every image reaches in each metric: 'AUROC 0.50, MCC 0.00'."""
    nulls = summary["null_metrics"]
    known = [key for key in summary["utility"]["metrics"] if nulls.get(key) is not None and key != "classes_present"]
    return ", ".join(f"{label(key)} {nulls[key]:.2f}" for key in known) or "nothing that was measured"


def scale_start(key: str) -> float:
    """Return the lower end of the usual scale of a metric: where an axis starts unless values lie below."""
    return 0.5 if key == "auroc" else 0.0
