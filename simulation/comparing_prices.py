"""What a setting of a study pays: its noise, its epsilon, whom that protects, and what the bounds allow."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

import privacy
from configs import Experiment
from privacy.robustness import Threat
from simulation.budgets_plan_noise import mean_noise
from simulation.budgets_plan_terms import protection

Row = dict[str, Any]

# Among whom somebody is looked for.
HOSPITALS = "the hospitals of the federation"
RECORDS = "as many as the smallest hospital of the federation has; the same number for every mechanism"
BEHIND_PROMISE = "as many as there are where the data are held"


def price_of(cells: Sequence[Row], candidates: int | None = None) -> Row:
    """Return what a setting pays, over all its hospitals and seeds the worst.

    Keys: noise_multiplier {min, max} (None without noise), noise_on_mean (standard deviation per coordinate in one
    step; `alone`: of the noisiest hospital's own mean), epsilon and epsilon_opacus_rdp of whoever is promised least,
    delta, protects, against, bounds {prior, worst_case, relaxed, candidates, among} of whoever is found most easily.

    Args:
        cells: of one mechanism and budget, at least one.
        candidates: among how many records one is looked for, the same for every mechanism (else the one with the most
            data in one place would look safest); None: as many as stand behind each promise. Of `central` the
            candidates are the hospitals.
    """
    experiment = Experiment.model_validate(cells[0]["summary"]["experiment"])
    who = protection(experiment)
    promised = [row for cell in cells for row in promises(cell["summary"])]
    noises = [row["noise_multiplier"] for row in promised if row["noise_multiplier"]]
    whole = who.protects is not None and all(row["epsilon"] is not None for row in promised)
    worst = max(promised, key=lambda row: row["epsilon"]["upper"]) if whole else None
    rdp = [row["epsilon_opacus_rdp"] for row in promised]
    return {
        "noise_multiplier": {"min": min(noises), "max": max(noises)} if noises else None,
        "noise_on_mean": max(noise_on_mean(cell["summary"]) for cell in cells),
        "epsilon": None if worst is None else worst["epsilon"],
        "epsilon_opacus_rdp": max(rdp) if whole and None not in rdp else None,
        "delta": None if worst is None else worst["delta"],
        "protects": who.protects if whole else None,
        "against": who.against if whole else "nobody",
        "bounds": _bounds(cells, candidates) if whole else None,
    }


def promises(summary: Row) -> list[Row]:
    """Return the rows of a run that state noise and epsilon: its hospitals', or the server's for all of them."""
    return [summary["central"]] if summary.get("central") else summary["hospitals"]


def noise_on_mean(summary: Row) -> float:
    """Return the standard deviation per coordinate of the noise on the mean gradient (`central`: update) of a step."""
    if summary.get("central"):
        return float(summary["central"]["noise_on_mean"])
    rows = summary["hospitals"]

    def column(values: list[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array(values, dtype=np.float64)

    std = column([r["noise_added"] * (1.0 if r["clipping_norm"] is None else r["clipping_norm"]) for r in rows])
    units = column([r["units"] for r in rows])
    batches = column([r["sample_rate"] for r in rows]) * units
    experiment = Experiment.model_validate(summary["experiment"])
    if experiment.privacy.mechanism == "alone":
        return float(np.max(std / np.maximum(batches, 1e-12)))
    return mean_noise(experiment, std, batches, units)


def _bounds(cells: Sequence[Row], records: int | None) -> Row | None:
    """Return the bounds of whoever can be found most easily."""
    asked: set[tuple[float, float, int, int]] = set()
    for cell in cells:
        summary = cell["summary"]
        for row in promises(summary):
            candidates = len(summary["hospitals"]) if summary.get("central") else records or row["units"]
            if row["steps"]:  # who never took part shows nothing
                asked.add((row["noise_multiplier"], row["sample_rate"], row["steps"], candidates))
    if not asked:
        return None
    worst = max(sorted(asked), key=lambda terms: _bound(*terms, "worst_case"))
    return {
        "prior": 1 / worst[3],
        "worst_case": _bound(*worst, "worst_case"),
        "relaxed": _bound(*worst, "relaxed"),
        "candidates": worst[3],
        "among": HOSPITALS if cells[0]["summary"].get("central") else RECORDS if records else BEHIND_PROMISE,
    }


@functools.lru_cache(maxsize=4096)
def _bound(noise: float, rate: float, steps: int, candidates: int, threat: Threat) -> float:
    if candidates == 1:  # found by whoever knows that there is no other
        return 1.0
    return privacy.reconstruction_bound(
        noise_multiplier=noise, sample_rate=rate, steps=steps, prior=1 / candidates, threat=threat
    )
