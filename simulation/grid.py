"""A study as a grid of cells that runs side by side, keeps what is finished, and goes on where it was stopped."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from configs import InputError, RunStoppedError, Study
from simulation.cell_jobs import Job, attempt
from simulation.folder import RunFolder
from simulation.grid_progress import GridProgress
from simulation.report.loading import read_summary
from simulation.run import Run
from simulation.study import Cell
from simulation.study_checks import Outline, outline
from simulation.study_rows import budget_row, flat_row

Row = dict[str, Any]


def run_budgets(study: Study, out: Path, title: str, *, resume: bool, console: Console | None) -> Run:
    """Run every cell that is not finished, compare them, and write the study's folder.

    With `runtime.engine: ray` the cells run side by side, each in one worker, its hospitals one after the other (the
    engine changes no result). A single cell that is left gives its hospitals to the workers instead. With `inline`
    and `flower` one cell runs after the other.

    Args:
        study: what to run.
        out: the study's folder; must not hold a study unless `resume`.
        title: of the report.
        resume: keep what is finished, and go on with what is not.
        console: where progress goes; None is silent.

    Raises:
        InputError: for whatever keeps the whole study from running, before the first cell; what keeps single cells
            from running stands in `summary["refused"]`.
        RunStoppedError: if a cell failed, once all others have run; finished cells are kept.
    """
    planned = outline(study)
    folder = RunFolder(out.resolve())
    _say(planned, console)
    with folder.locked():
        if folder.summary.is_file() and not resume:
            raise InputError(f"{out}: holds a study already; use --resume to go on, or choose another --out.")
        jobs = pending(planned, folder.path, resume=resume)
        failures = run_jobs(jobs, len(planned.cells), console)
        if failures:
            raise RunStoppedError(_failed(failures, len(planned.cells)))
        return Run(folder.path, _conclude(study, planned, folder, title))


def in_order(cells: Sequence[Cell], budgets: Sequence[float | str]) -> list[Cell]:
    """Return cells in the order in which they are run: what tells most first.

    One seed after the other; in each first the federation without privacy, then what else has no budget, then budget
    by budget as the study names them, so that a study that is stopped has whole comparisons.
    """
    seeds = list(dict.fromkeys(cell.seed for cell in cells))
    places = {budget: i for i, budget in enumerate(b for b in budgets if b != "none")}

    def key(cell: Cell) -> tuple[int, bool, int]:
        return seeds.index(cell.seed), cell.mechanism != "none", places.get(cell.budget, -1)

    return sorted(cells, key=key)


def pending(planned: Outline, root: Path, *, resume: bool) -> list[Job]:
    """Return the cells that are not finished, in the order in which they are run; nothing is written.

    A cell is finished where its folder holds a summary of the very same experiment on the very same data.

    Raises:
        InputError: if the folder of a cell holds another experiment or other data, or anything without `resume`.
    """
    jobs: list[Job] = []
    budgets = list(dict.fromkeys(cell.budget for cell in planned.cells))
    for cell in in_order(planned.cells, budgets):
        own = RunFolder(root / "cells" / cell.name)
        if own.experiment.is_file():
            own.open(cell.experiment, planned.fingerprint, resume=resume)  # refuses what is not this very cell
        if not own.summary.is_file():
            jobs.append(Job(cell.name, cell.experiment, own.path))
        elif not own.report.is_file():  # stopped between its summary and its page
            from simulation.report.build import build_report

            build_report(own.path)
    return jobs


def run_jobs(jobs: Sequence[Job], total: int, console: Console | None) -> dict[str, str]:
    """Run cells with the engine that they name; return the failed ones, each with its reason."""
    if not jobs:
        return {}
    runtime = jobs[0].experiment.runtime
    if runtime.engine == "ray" and len(jobs) > 1:
        from simulation.engines.ray_cells import run_cells

        inline = [Job(j.name, j.experiment.updated(runtime={"engine": "inline"}), j.folder) for j in jobs]
        with GridProgress(console, total, total - len(jobs)) as shown:
            return run_cells(inline, runtime, shown)
    failures: dict[str, str] = {}
    for number, job in enumerate(jobs, start=total - len(jobs) + 1):
        if console is not None:
            console.print(f"[bold]cell {number} of {total}[/bold]: {job.name}", highlight=False)
        error = attempt(job, console)
        if error is not None:
            failures[job.name] = error
            if console is not None:
                console.print(f"{job.name}: failed: {error}", highlight=False, markup=False, soft_wrap=True)
    return failures


def _say(planned: Outline, console: Console | None) -> None:
    if console is None:
        return
    for one in planned.refused:
        where = one.mechanism if one.budget == "none" else f"{one.mechanism} at {one.budget:g}"
        console.print(f"not run: {where}: {one.why}", highlight=False, markup=False, soft_wrap=True)
    for note in planned.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


def _failed(failures: dict[str, str], total: int) -> str:
    name, why = next(iter(failures.items()))
    others = f" (and {', '.join(list(failures)[1:])})" if len(failures) > 1 else ""
    return (
        f"cell {name}{others} failed: {why.rstrip('.')}. The other {total - len(failures)} of {total} cells are "
        f"finished and kept; go on with --resume and the same --out."
    )


def _conclude(study: Study, planned: Outline, folder: RunFolder, title: str) -> Row:
    """Compare the finished cells and write the tables, the summary and the report."""
    rows = [
        {
            "cell": cell.name,
            "mechanism": cell.mechanism,
            "budget": cell.budget,
            "seed": cell.seed,
            "hospital": cell.hospital,
            "noise_of": cell.noise_of,
            "folder": f"cells/{cell.name}",
            "summary": read_summary(folder.path / "cells" / cell.name),
        }
        for cell in planned.cells
    ]
    summary: Row = {
        "kind": "study",
        "title": title,
        "axes": study.axes.model_dump(mode="json"),
        "refused": [{"mechanism": r.mechanism, "budget": r.budget, "why": r.why} for r in planned.refused],
        "notes": list(planned.notes),
        "cells": rows,
    }
    from simulation.comparing import compare
    from simulation.report.build import build_report

    summary |= compare(folder.path, summary)
    pd.DataFrame([budget_row(row) for row in rows]).to_csv(folder.path / "budgets.csv", index=False)
    pd.DataFrame([flat_row(row) for row in summary["settings"]]).to_csv(folder.path / "settings.csv", index=False)
    summary = json.loads(json.dumps(summary))
    folder.write_json(folder.summary, summary)
    build_report(folder.path)
    return summary
