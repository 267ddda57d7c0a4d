"""A study: the same experiment over mechanisms, budgets and seeds, finished cells kept."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import pandas as pd
from rich.console import Console

from configs import Experiment, InputError, Study
from configs.experiment import Budget
from configs.sections import Mechanism
from simulation.folder import RunFolder
from simulation.run import Run, simulate
from simulation.setup import prepare

CLAIMING: tuple[Mechanism, ...] = ("local", "pooled")


@final
@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    name: str
    mechanism: Mechanism
    budget: Budget
    seed: int
    experiment: Experiment


def cells(study: Study) -> list[Cell]:
    """Return the study's runs: a mechanism without an epsilon has one cell per seed, not one per budget.

    Budget `none` stands for training without privacy (mechanism `none`), whatever the mechanisms are.

    Raises:
        InputError: if a mechanism needs a budget and the study names none.
    """
    axes, base = study.axes, study.experiment
    mechanisms = axes.mechanisms or (base.privacy.mechanism,)
    found: dict[str, Cell] = {}
    for seed in axes.seeds or (base.seed,):
        for mechanism, budget in _pairs(mechanisms, axes.budgets, base):
            values: dict[str, object] = {"mechanism": mechanism}
            if mechanism in CLAIMING:
                values |= {"epsilon": budget, "noise_multiplier": None} if budget != "none" else {}
            else:
                noise = base.privacy.noise_multiplier if mechanism == "noise_only" else None
                values |= {"epsilon": None, "noise_multiplier": noise}
            name = f"{mechanism}-seed-{seed}" if budget == "none" else f"{mechanism}-eps-{budget:g}-seed-{seed}"
            experiment = base.updated(privacy=values).with_seed(seed)
            found.setdefault(name, Cell(name, mechanism, budget, seed, experiment))
    return list(found.values())


def _pairs(
    mechanisms: tuple[Mechanism, ...], budgets: tuple[Budget, ...], base: Experiment
) -> Iterator[tuple[Mechanism, Budget]]:
    if "none" in budgets:
        yield "none", "none"
    for mechanism in mechanisms:
        if mechanism not in CLAIMING:
            yield mechanism, "none"
            continue
        numbers: list[Budget] = [b for b in budgets if b != "none"]
        if not numbers and base.privacy.epsilon is None and base.privacy.noise_multiplier is None:
            raise InputError(f"study.budgets: mechanism '{mechanism}' needs at least one budget.")
        if not numbers and base.privacy.epsilon is not None:
            numbers = [base.privacy.epsilon]
        for budget in numbers or ("none",):  # "none": the experiment's own noise multiplier
            yield mechanism, budget


def run_budgets(study: Study, out: Path, title: str, *, resume: bool, console: Console | None) -> Run:
    """Run every cell that is not finished, then write `budgets.csv`, `summary.json` and the report.

    Raises:
        InputError: for any cell, before the first one runs.
        RunStoppedError: from a cell; finished cells are kept.
    """
    planned = cells(study)
    for cell in planned:
        prepare(cell.experiment)
    folder = RunFolder(out.resolve())
    with folder.locked():
        if folder.summary.is_file() and not resume:
            raise InputError(f"{out}: holds a study already; use --resume to go on, or choose another --out.")
        rows: list[dict[str, Any]] = []
        for number, cell in enumerate(planned, start=1):
            where = folder.path / "cells" / cell.name
            if console is not None:
                console.print(f"[bold]cell {number} of {len(planned)}[/bold]: {cell.name}", highlight=False)
            again = resume and (where / "experiment.yaml").is_file()
            run = simulate(cell.experiment, where, resume=again, console=console)
            rows.append(
                {
                    "cell": cell.name,
                    "mechanism": cell.mechanism,
                    "budget": cell.budget,
                    "seed": cell.seed,
                    "folder": f"cells/{cell.name}",
                    "summary": run.summary,
                }
            )
        summary = {
            "kind": "study",
            "title": title,
            "axes": study.axes.model_dump(mode="json"),
            "cells": rows,
        }
        pd.DataFrame([budget_row(row) for row in rows]).to_csv(folder.path / "budgets.csv", index=False)
        folder.write_json(folder.summary, json.loads(json.dumps(summary)))
        from simulation.report.build import build_report

        build_report(folder.path)
        return Run(folder.path, summary)


def budget_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return one line of `budgets.csv`: utility, price, and each attack summed over the hospitals."""
    summary = row["summary"]
    hospitals = summary["hospitals"]
    claimed = [h["epsilon"]["upper"] for h in hospitals if h["epsilon"]]
    rdp = [h["epsilon_opacus_rdp"] for h in hospitals if h["epsilon_opacus_rdp"] is not None]
    noises = [h["noise_multiplier"] for h in hospitals]
    out: dict[str, Any] = {
        **{key: row[key] for key in ("cell", "mechanism", "budget", "seed")},
        **summary["metrics"],
        "epsilon_upper": max(claimed) if len(claimed) == len(hospitals) else None,
        "epsilon_opacus_rdp": max(rdp) if rdp else None,
        "noise_multiplier_min": min(noises),
        "noise_multiplier_max": max(noises),
    }
    for name in sorted({a["attack"] for a in summary["attacks"]}):
        own = [a for a in summary["attacks"] if a["attack"] == name and a["targets"]]
        images = [a for a in own if a["yields"] == "images"]
        if images or not own:
            out.update({f"{name}_{key}": value for key, value in pooled_attack(images).items()})
            continue
        judged = [a for a in own if a.get("success") is not None]
        for key in ("success", "success_null"):
            known = [(a[key], a["targets"]) for a in judged if a.get(key) is not None]
            out[f"{name}_{key}"] = sum(v * n for v, n in known) / sum(n for _, n in known) if known else None
    return out


def pooled_attack(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the rates of one attack over several hospitals, weighted by their targets."""
    targets = sum(r["targets"] for r in rows)
    ranked = sum(r["ranked"] for r in rows)

    def over(key: str, weight: str, total: int) -> float | None:
        if not total or any(r.get(key) is None for r in rows if r[weight]):
            return None
        return sum(r[key] * r[weight] for r in rows if r[weight]) / total

    return {
        "targets": targets,
        "recovered": over("recovered", "targets", targets),
        "null_recovered": over("null_recovered", "targets", targets),
        "visible": over("visible", "targets", targets),
        "null_visible": over("null_visible", "targets", targets),
        "paper_recovered": over("paper_recovered", "targets", targets),
        "paper_null_recovered": over("paper_null_recovered", "targets", targets),
        "public_distance": over("public_distance", "targets", targets),
        "mean_ssim": over("mean_ssim", "targets", targets),
        "null_mean_ssim": over("null_mean_ssim", "targets", targets),
        "ranked": ranked,
        "decoys": min((r["decoys"] for r in rows if r["ranked"]), default=0),
        "rank1": over("rank1", "ranked", ranked),
        "identified_informed": over("identified_informed", "ranked", ranked),
        "bound_worst_case": max(
            (r["bound_worst_case"] for r in rows if r["bound_worst_case"] is not None), default=None
        ),
    }
