"""The statistics of a study of budgets: what each mechanism costs, saves and leaves to be found, with intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs import Experiment, InputError, StudyAxes
from simulation.budgets_plan_equal import equal_noise_rows
from simulation.comparing_draws import estimate_row
from simulation.comparing_recommended import deaths, recommended
from simulation.comparing_settings import FEDERATED, Compared, Key, compared, setting_rows
from tasks.metrics import LEVEL

Row = dict[str, Any]


def compare(folder: Path, study: Mapping[str, Any]) -> Row:
    """Return what a study's summary says beyond its cells; JSON, None where something is not known.

    Keys:
        settings: one row per mechanism and budget, seeds merged; see `simulation.comparing_settings`.
        equal_noise: what each mechanism pays at the noise of pooled data; see `equal_noise_rows`.
        joining: what each hospital gains by training with others instead of alone, on its own share.
        shared_noise: what is gained by sharing the noise in a secure sum instead of adding it at each hospital.
        price: utility of each federated mechanism less that of pooled data, and the ratio of their noise.
        deaths: up to which budget attacks of each kind stayed at their nulls; see `deaths`.
        recommended: the smallest noise that will do; see `recommended`.
        intervals: level, and how they were made, in a sentence.

    Differences are paired by image and by seed. "why" says why a neighbouring entry is None.

    Args:
        folder: the study's.
        study: with its cells and its axes; each cell's folder holds `predictions.npz` and, if anybody was attacked,
            `attacks.csv`.

    Raises:
        InputError: if a cell has no predictions, or they are of other records than the first cell's.
    """
    cells: Sequence[Row] = study["cells"]
    found = compared(folder, cells)
    settings = setting_rows(found)
    axes = StudyAxes.model_validate(study["axes"])
    return {
        "settings": settings,
        "equal_noise": _equal_noise(found, axes),
        "joining": joining_rows(found),
        "shared_noise": shared_noise_rows(found),
        "price": price_rows(found, settings),
        "deaths": deaths(settings),
        "recommended": recommended(settings, axes.tolerance),
        "intervals": {"level": LEVEL, "how": _how(cells)},
    }


def joining_rows(study: Compared) -> list[Row]:
    """Return one row per budget, hospital and federated mechanism: its own share by the joint and by its own model."""
    rows: list[Row] = []
    for key in _federated(study):
        mechanism, budget = key
        alone: Key = ("alone", budget)
        if alone not in study.groups:
            continue
        for name, of in study.shares.items():
            found = {"alone": estimate_row(of[alone])["estimate"], "joined": estimate_row(of[key])["estimate"]}
            head = {"budget": budget, "hospital": name, "mechanism": mechanism}
            rows.append(head | found | study.apart(of[key], of[alone]))
    return rows


def shared_noise_rows(study: Compared) -> list[Row]:
    """Return one row per budget at which both were run: utility of `distributed` less that of `local`, paired."""
    rows: list[Row] = []
    for mechanism, budget in study.groups:
        local: Key = ("local", budget)
        if mechanism == "distributed" and local in study.groups:
            rows.append({"budget": budget} | study.apart(study.utility[mechanism, budget], study.utility[local]))
    return rows


def price_rows(study: Compared, settings: Sequence[Row]) -> list[Row]:
    """Return one row per budget and federated mechanism: utility less that of pooled data, and noise over its noise."""
    noise = {(row["mechanism"], row["budget"]): row["noise_on_mean"] for row in settings}
    rows: list[Row] = []
    for key in _federated(study):
        mechanism, budget = key
        pooled: Key = ("pooled", budget)
        if pooled in study.groups:
            ratio = noise[key] / noise[pooled] if noise[pooled] else None
            head = {"budget": budget, "mechanism": mechanism, "noise_ratio": ratio}
            rows.append(head | study.apart(study.utility[key], study.utility[pooled]))
    return rows


def _federated(study: Compared) -> list[Key]:
    return [key for key in study.groups if key[0] in FEDERATED]


def _equal_noise(study: Compared, axes: StudyAxes) -> list[Row]:
    """Return what mechanisms pay at equal noise, for the federation of the first federated cell.

    A budget that pooled data cannot have has one row, whose note says why.
    """
    keys = _federated(study)
    if not keys:
        return []
    summary = study.groups[keys[0]].cells[0]["summary"]
    units = {row["name"]: int(row["units"]) for row in summary["hospitals"]}
    experiment = Experiment.model_validate(summary["experiment"])
    unknown = dict.fromkeys(("noise_on_mean", "noise_multiplier", "epsilon_upper", "protects"))
    rows: list[Row] = []
    for budget in axes.budgets:
        try:
            rows += equal_noise_rows(experiment, units, [budget])
        except InputError as error:
            rows.append({"budget": budget, "mechanism": "pooled", **unknown, "note": str(error)})
    return rows


def _how(cells: Sequence[Row]) -> str:
    """Say over what the intervals are."""
    seeds = len({cell["seed"] for cell in cells})
    images = "drawing held-out units (lesions, scans) anew, the same ones for every setting"
    if seeds == 1:
        return f"Intervals come from {images}. One seed was run: how much another one would change is not in them."
    few = " Two seeds say little about that, so intervals are wide." if seeds == 2 else ""
    return f"Intervals come from {images}, and from how {seeds} seeds differ (Student's t).{few}"
