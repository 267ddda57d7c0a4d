"""The tables of a run, from its event log and its ledgers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import privacy
from clients.site import ledger_file
from privacy import Epsilon, Ledger
from server.central import central_plan, ledger_of
from server.events import read_events
from simulation.evaluation import MANY, names_of
from simulation.folder import RunFolder
from simulation.setup import Setup
from tasks.base import Records


def rounds_table(events: Path) -> pd.DataFrame:
    """Return one row per finished round: asked, released, seconds, and utility where it was measured.

    Each hospital's own utility stands beside it, unless there are so many that the table could not be read.
    """
    rows: dict[int, dict[str, Any]] = {}
    started: dict[int, float] = {}
    for event, _ in read_events(events):
        kind = event["event"]
        if kind == "round":
            started[event["round"]] = event["time"]
            rows[event["round"]] = {"round": event["round"], "asked": len(event["asked"])}
        elif kind == "finished":
            row = rows[event["round"]]
            row["released"] = event["releases"]
            row["seconds"] = round(event["time"] - started[event["round"]], 3)
        elif kind == "evaluated":
            row = rows.setdefault(event["round"], {"round": event["round"]})
            row.update(event["metrics"])
            if len(event["hospitals"]) >= MANY:
                continue
            for name, metrics in event["hospitals"].items():
                row.update({f"{metric}[{name}]": value for metric, value in metrics.items()})
    return pd.DataFrame([rows[r] for r in sorted(rows) if "released" in rows[r]])


def utility_after(table: pd.DataFrame, metrics: Sequence[str], round_number: int) -> dict[str, float | None]:
    """Return these metrics after a round; empty where they were not measured."""
    found = table[table["round"] == round_number]
    if not len(found):
        return {}
    row = found.iloc[0]
    return {m: _number(row[m]) for m in metrics if m in row}


def hospital_rows(setup: Setup, folder: RunFolder) -> list[dict[str, Any]]:
    """Return one row per hospital: its terms, what its ledger says was spent, and its utility."""
    settings = setup.experiment.privacy
    last = setup.experiment.training.rounds
    metrics = names_of(setup.task)
    declined, measured = _declined(folder.events), _own_utility(folder.events, last)
    records = {h.name: h.records for h in setup.deal.hospitals}
    rows: list[dict[str, Any]] = []
    for name, plan in setup.plans.items():
        path = ledger_file(folder.ledgers, name)
        ledger = Ledger.open(path) if path.is_file() else Ledger(path)  # who was never asked has none
        price = ledger.price(settings.delta) if plan.claims else None
        several = largest_unit(setup, records[name])
        whole = ledger.price(settings.delta, several) if price is not None and several > 1 else None
        rows.append(
            {
                "name": name,
                "records": plan.records,
                "units": plan.units,
                "unit": setup.experiment.unit,
                "sample_rate": plan.sample_rate,
                "noise_multiplier": plan.noise_multiplier,
                "noise_added": plan.added,
                "clipping_norm": plan.clipping_norm,
                "steps": ledger.steps(),
                "releases": len(ledger.entries),
                "delta": settings.delta if plan.claims else None,
                "epsilon": _claim(price),
                "epsilon_opacus_rdp": _number(price.opacus_rdp) if price is not None else None,
                "larger_unit": setup.task.unit if several > 1 else None,
                "images_in_larger_unit": several if several > 1 else None,
                "epsilon_larger_unit": _claim(whole),
                "metrics": {m: _number(v) for m, v in measured.get(name, {}).items() if m in metrics} or None,
                "declined": declined.get(name, 0),
                "ledger": str(path.relative_to(folder.path)) if path.is_file() else None,
            }
        )
    return rows


def central_row(setup: Setup, folder: RunFolder, releases: Sequence[int]) -> dict[str, Any] | None:
    """Return what a run under `central` promises each hospital, by the server's ledger; None for other mechanisms.

    `epsilon` is the price of a hospital's taking part. Two more are worth knowing: `epsilon_of_a_change`, of what its
    update says where it takes part anyway (the sum moves by up to 2 S; known where every round asks all), and
    `epsilon_if_known`, of a hospital of which it is known in which rounds it was asked (drawing cohorts hides it).

    Args:
        setup: the run.
        folder: of the run.
        releases: how often each hospital released.
    """
    settings = setup.experiment.privacy
    if settings.mechanism != "central":
        return None
    plan = central_plan(setup.experiment, len(setup.plans))
    path = ledger_of(folder.path)
    ledger = Ledger.open(path)
    price = ledger.price(settings.delta)
    steps, whole = ledger.steps(), plan.sample_rate == 1.0
    known = {"sample_rate": 1.0, "delta": settings.delta}
    change = privacy.epsilon(noise_multiplier=plan.noise_multiplier / 2, steps=steps, **known) if whole else None
    often = max(releases, default=0)
    asked = None if whole else privacy.epsilon(noise_multiplier=plan.noise_multiplier, steps=often, **known)
    return {
        "unit": "hospital",
        "noise_multiplier": plan.noise_multiplier,
        "noise_on_mean": plan.noise_on_mean,
        "update_bound": plan.update_bound,
        "sample_rate": plan.sample_rate,
        "steps": steps,
        "delta": settings.delta,
        "epsilon": _claim(price),
        "epsilon_of_a_change": _claim(change),
        "epsilon_if_known": _claim(asked),
        "epsilon_opacus_rdp": _number(price.opacus_rdp),
        "ledger": str(path.relative_to(folder.path)),
    }


def largest_unit(setup: Setup, records: Records) -> int:
    """Return how many images the largest lesion or scan of these has, where images are drawn one by one; else 1.

    Somebody with so many images in the data pays more than the price of one image.
    """
    if setup.experiment.unit != "image":
        return 1
    _, counts = np.unique(records.units, return_counts=True)
    return int(counts.max(initial=1))


def _claim(price: Epsilon | None) -> dict[str, Any] | None:
    if price is None or not np.isfinite(price.upper):
        return None
    return {"lower": price.lower, "estimate": price.estimate, "upper": price.upper, "method": price.method}


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a nested row as one level for CSV: `epsilon.upper`, `metrics.auroc`, ..."""
    out: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            out.update({f"{key}.{inner}": v for inner, v in value.items()})
        else:
            out[key] = value
    return out


def _declined(events: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for event, _ in read_events(events):
        if event["event"] == "declined":
            found[event["hospital"]] = found.get(event["hospital"], 0) + 1
    return found


def _own_utility(events: Path, round_number: int) -> dict[str, dict[str, float | None]]:
    """Return the metrics of every hospital's own held-out records after a round."""
    found: dict[str, dict[str, float | None]] = {}
    for event, _ in read_events(events):
        if event["event"] == "evaluated" and event["round"] == round_number:
            found = event["hospitals"]
    return found


def _number(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
