"""A study with the adversary at each placement: the same federated runs, watched from many chairs."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from threadpoolctl import threadpool_limits

from configs import InputError, Study
from server.adversary.placements import PLACEMENTS
from simulation.attacking import run_attacks
from simulation.folder import RunFolder
from simulation.placements_plan import Attempt, Watch, plan
from simulation.placements_rows import POOLED, adjust, pooled_row
from simulation.pools import Pools, make_pools
from simulation.report.loading import read_run
from simulation.run import Run, simulate
from simulation.setup import Setup, prepare

Row = dict[str, Any]
Results = dict[str, list[Row]]

# Only here the seat's own settings matter. Elsewhere the run's own are kept: its noise can only be derived from them.
SEATED = ("wire", "hospital")
NOTHING_SEEN = "nothing of the attacked rounds was recorded for this seat"


def run_placements(study: Study, out: Path, title: str, *, resume: bool, console: Console | None) -> Run:
    """Run what is not finished, attack it from every seat, then write `placements.csv`, `summary.json`, the report.

    What was tried from a seat is kept beside the run's traffic, in `seats/`.

    Raises:
        InputError: for anything that keeps the whole study from running, before the first run; what keeps a single
            attempt from being is in the table, in words.
        RunStoppedError: from a run or an attack; finished parts are kept.
    """
    attempts = plan(study)
    folder = RunFolder(out.resolve())
    with folder.locked(), threadpool_limits(limits=1):
        if folder.summary.is_file() and not resume:
            raise InputError(f"{out}: holds a study already; use --resume to go on, or choose another --out.")
        watched: dict[str, dict[int, Attempt]] = {}
        for i, one in enumerate(attempts):
            if one.watch is not None:
                watched.setdefault(one.watch.traffic.name, {})[i] = one
        runs: list[Row] = []
        results: dict[int, Results] = {}
        for number, (name, own) in enumerate(watched.items(), start=1):
            if console is not None:
                console.print(f"[bold]run {number} of {len(watched)}[/bold]: {name}", highlight=False)
            row, found = _watched(folder.path, own, resume=resume, console=console)
            runs.append(row)
            results |= found
        summary = _summary(title, study, runs, table(attempts, results))
        pd.DataFrame(summary["rows"]).to_csv(folder.path / "placements.csv", index=False)
        folder.write_json(folder.summary, json.loads(json.dumps(summary)))
        from simulation.report.build import build_report

        build_report(folder.path)
        return Run(folder.path, summary)


def _watched(
    root: Path, own: Mapping[int, Attempt], *, resume: bool, console: Console | None
) -> tuple[Row, dict[int, Results]]:
    """Make one run and attack it from every seat that watches it; results by the attempt's position."""
    seats = {i: (one, one.watch) for i, one in own.items() if one.watch is not None}
    first, watch = next(iter(seats.values()))
    traffic, cell = watch.traffic, first.cell
    folder = RunFolder(root / "cells" / traffic.name)
    again = resume and folder.experiment.is_file()
    run = simulate(traffic.experiment, folder.path, resume=again, console=console, report=False)

    @functools.cache
    def loaded() -> tuple[Setup, Pools]:  # only where something is left to attack
        setup = prepare(traffic.experiment)
        return setup, make_pools(setup)

    found: dict[int, Results] = {}
    for i, (one, seat) in seats.items():
        if console is not None:
            console.print(f"  {one.attack} from placement {one.placement}", highlight=False)
        found[i] = _tried(one, seat, folder, run, loaded)
    row: Row = {
        "cell": traffic.name,
        "mechanism": cell.mechanism,
        "budget": cell.budget,
        "seed": cell.seed,
        "folder": f"cells/{traffic.name}",
        "summary": run.summary,
    }
    return row, found


def _tried(
    one: Attempt, watch: Watch, folder: RunFolder, run: Run, loaded: Callable[[], tuple[Setup, Pools]]
) -> Results:
    """Return what an attempt got, from disk where it was finished."""
    experiment = watch.experiment
    file = folder.path / "seats" / f"{one.placement}-{one.attack}.json"
    if file.is_file():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["sha256"] == experiment.digest():
            return {"rows": kept["rows"], "targets": kept["targets"]}
    sat = watch.traffic.experiment.adversary
    if sat.placement == one.placement and one.attack in sat.attacks:
        results: Results = {"rows": run.summary["attacks"], "targets": list(read_run(folder.path, {}).targets)}
    else:
        setup, pools = loaded()
        if one.placement in SEATED:
            setup = replace(setup, experiment=experiment)  # its seat and its colluders
        got = run_attacks(setup, folder, pools, [one.attack], one.placement)
        targets = [{k: "" if v is None else str(v) for k, v in row.items()} for row in got.targets]
        results = {"rows": got.summary, "targets": targets}
    file.parent.mkdir(exist_ok=True)
    folder.write_json(file, {"sha256": experiment.digest(), **results})
    return results


def table(attempts: Sequence[Attempt], results: dict[int, Results]) -> list[Row]:
    """Return one row per setting, placement and attack with all seeds pooled, and below it one per seed."""
    groups: dict[tuple[str, Any, str, str], list[int]] = {}
    for i, one in enumerate(attempts):
        groups.setdefault((one.cell.mechanism, one.cell.budget, one.placement, one.attack), []).append(i)
    rows: list[Row] = []
    for key, members in groups.items():
        head = dict(zip(("mechanism", "budget", "placement", "attack"), key, strict=True))
        for seed, part in [(POOLED, members), *((attempts[i].cell.seed, [i]) for i in members)]:
            rows.append({**head, "seed": seed, "seeds": len(part), **_row(attempts, results, part)})
    adjust(rows)
    return rows


def _row(attempts: Sequence[Attempt], results: dict[int, Results], part: Sequence[int]) -> Row:
    done = [results[i] for i in part if i in results]
    pooled = pooled_row([r for one in done for r in one["rows"]], [t for one in done for t in one["targets"]])
    why = pooled.pop("why")
    reasons = list(dict.fromkeys(attempts[i].reason for i in part if attempts[i].reason))
    shorts = list(dict.fromkeys(attempts[i].short for i in part if attempts[i].short))
    if not reasons and pooled["success"] is None:
        reasons = [why or (NOTHING_SEEN if not pooled["releases"] else "no image was drawn in the attacked rounds")]
        shorts = ["nothing to score"]
    traffics = [one.watch.traffic.name for i in part if (one := attempts[i]).watch is not None]
    return {**pooled, "run": "; ".join(traffics), "reason": "; ".join(reasons), "short": "; ".join(shorts)}


def _summary(title: str, study: Study, runs: list[Row], rows: list[Row]) -> Row:
    content: Row = {
        "kind": "placements",
        "title": title,
        "axes": study.axes.model_dump(mode="json"),
        "placements": {name: PLACEMENTS[name].description for name in dict.fromkeys(r["placement"] for r in rows)},
        "rows": rows,
        "cells": runs,
    }
    from simulation.report.placements_words import placements_words

    content["words"] = placements_words(content)
    return content
