"""One federated run with its adversary, from settings to report."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import pandas as pd
from rich.console import Console
from threadpoolctl import threadpool_limits

from clients.gradients import discard_engines
from clients.planning import noise_to_tell
from clients.site import SiteSettings
from configs import HOSPITALS, Experiment, InputError, root_of
from configs.adversary import AttackName, Placement
from server.adversary.public import save_public
from server.checkpoints import read_arrays
from server.settings import ServerSettings
from simulation.again import check_again
from simulation.announcing import announce_views
from simulation.attacking import AttackResults, run_attacks
from simulation.engines.running import prepare_environment, run_engine
from simulation.evaluation import Evaluator, last_clean_round, names_of
from simulation.folder import RunFolder, versions
from simulation.pools import Pools, make_pools
from simulation.predictions import predictions_of, write_predictions
from simulation.progress import ProgressDisplay
from simulation.setup import Setup, prepare
from simulation.subgroups import utility, write_subgroups
from simulation.tables import central_row, flat, hospital_rows, rounds_table, utility_after
from simulation.watching import Watcher


@final
@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: where everything lies.
        summary: what `summary.json` holds.
    """

    folder: Path
    summary: dict[str, Any]


def simulate(
    experiment: Experiment,
    out: Path | str,
    *,
    resume: bool = False,
    console: Console | None = None,
    report: bool = True,
) -> Run:
    """Run an experiment and write its folder.

    Args:
        experiment: what to run.
        out: the run's folder; must not hold a run unless `resume`.
        resume: go on where a run of the same experiment stopped. What was released is not released anew: the same
            broadcast gives the same release, at no charge.
        console: where progress goes; None is silent.
        report: build `report.html`.

    Raises:
        InputError: before anything is written, for whatever makes the run impossible.
        RunStoppedError: budget exhausted, quorum lost, bound beaten.
    """
    # One thread of linear algebra: its last bits depend on their number, and `runtime` may change no result. It is
    # also many times faster where hospitals keep the cores busy.
    with threadpool_limits(limits=1):
        return _simulate(experiment, Path(out), resume=resume, console=console, report=report)


def _simulate(experiment: Experiment, out: Path, *, resume: bool, console: Console | None, report: bool) -> Run:
    setup = prepare(experiment)
    folder = RunFolder(out.resolve())
    with folder.locked():
        folder.open(experiment, setup.fingerprint, resume=resume)
        if resume and folder.summary.is_file():
            return Run(folder.path, json.loads(folder.summary.read_text(encoding="utf-8")))
        started = time.monotonic()
        pools = make_pools(setup) if experiment.attacked_rounds else None
        evaluator = Evaluator(setup)
        _federate(setup, folder, pools, evaluator, console)
        discard_engines()  # the hospitals' buffers are as large as what was sent to them
        attacks = AttackResults([], [])
        if pools is not None:
            attacks = run_attacks(setup, folder, pools, experiment.adversary.attacks)
        summary = _finish(setup, folder, pools, attacks, evaluator, time.monotonic() - started)
        if report:
            from simulation.report.build import build_report

            build_report(folder.path)
        return Run(folder.path, summary)


def attack_again(path: Path, names: Sequence[AttackName], placement: Placement | None = None) -> Run:
    """Attack the views that a run recorded, without training, and renew its tables and its report.

    Args:
        path: the run's folder.
        names: of the attacks; empty: the run's own.
        placement: another seat from which the same traffic is watched; None: the run's own.

    Raises:
        InputError: if the folder holds no run, its data are gone, or the attack cannot be made from there.
    """
    folder = RunFolder(path.resolve())
    experiment = folder.read_experiment()
    if not experiment.attacked_rounds:
        raise InputError(f"{path}: had no adversary, so no view was recorded; run it with adversary.placement set.")
    setup = prepare(experiment)
    chosen = tuple(names or experiment.adversary.attacks)
    seat = placement or experiment.adversary.placement
    check_again(setup, folder, seat, chosen)
    with threadpool_limits(limits=1), folder.locked():
        folder.open(experiment, setup.fingerprint, resume=True)
        pools = make_pools(setup)
        attacks = run_attacks(setup, folder, pools, chosen, seat)
        seconds = 0.0
        if folder.summary.is_file():
            seconds = json.loads(folder.summary.read_text(encoding="utf-8"))["seconds"]
        summary = _finish(setup, folder, pools, attacks, Evaluator(setup), seconds)
        from simulation.report.build import build_report

        build_report(folder.path)
        return Run(folder.path, summary)


def _federate(
    setup: Setup, folder: RunFolder, pools: Pools | None, evaluator: Evaluator, console: Console | None
) -> None:
    """Run the engine, with the watcher beside it; returns when the last model was evaluated."""
    experiment = setup.experiment
    prepare_environment(folder.path)
    server = ServerSettings.of(experiment, folder.path)
    if pools is not None:
        save_public(server.public_data, pools.public)
    device = "cuda" if experiment.runtime.gpus_per_hospital > 0 else "cpu"
    noise = noise_to_tell(experiment, setup.plans.values())
    site = SiteSettings(experiment, root_of(experiment.seed, HOSPITALS), folder.ledgers, device, noise)
    site.save(folder.site_settings)
    checkpoints = folder.path / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    hospitals = len(setup.deal.hospitals)
    if console is not None:
        for note in setup.notes:
            console.print(f"note: {note}", highlight=False, markup=False)
    if console is not None and pools is not None:
        announce_views(setup, folder.path, console)
    display = ProgressDisplay(console or Console(quiet=True), experiment.training.rounds, folder.path.name)
    if not folder.model.is_file():
        with display, Watcher(folder.events, checkpoints, evaluator, display):
            run_engine(experiment, server, hospitals, folder.site_settings)
    with Watcher(folder.events, checkpoints, evaluator, None):
        pass  # a run that was stopped between its last round and its last evaluation is caught up here


def _finish(
    setup: Setup,
    folder: RunFolder,
    pools: Pools | None,
    attacks: AttackResults,
    evaluator: Evaluator,
    seconds: float,
) -> dict[str, Any]:
    """Write the tables and the summary."""
    experiment = setup.experiment
    table = rounds_table(folder.events)
    hospitals = hospital_rows(setup, folder)
    table.to_csv(folder.path / "rounds.csv", index=False)
    pd.DataFrame([flat(row) for row in hospitals]).to_csv(folder.path / "hospitals.csv", index=False)
    folder.attacks.unlink(missing_ok=True)  # of an earlier attack on the same views
    if attacks.targets:
        pd.DataFrame(attacks.targets).to_csv(folder.attacks, index=False)
    last = experiment.training.rounds
    measured = names_of(setup.task)
    clean = last_clean_round(experiment)
    before = None if clean in (None, last) else folder.path / "checkpoints" / f"round-{clean:06d}.safetensors"
    final = evaluator.judge(read_arrays(folder.model)[0])
    undisturbed = None if before is None else evaluator.judge(read_arrays(before)[0])
    kept = (final, last) if undisturbed is None or clean is None else (undisturbed, clean)
    write_predictions(folder.path, predictions_of(setup, *kept))
    found = utility(setup, final, undisturbed)
    write_subgroups(folder.path / "subgroups.csv", found["subgroups"])
    summary: dict[str, Any] = {
        "kind": "run",
        "fedward": versions()["fedward"],
        "task": setup.task.name,
        "data": "phantom" if experiment.phantom else "real",
        "engine": experiment.runtime.engine,
        "rounds": last,
        "seconds": round(seconds, 2),
        "model_sha256": model_digest(folder.model),
        "experiment_sha256": experiment.digest(),
        "experiment": experiment.model_dump(mode="json"),
        "metrics": utility_after(table, measured, last),
        "clean": None if clean is None else {"round": clean, "metrics": utility_after(table, measured, clean)},
        **found,
        "heldout": len(setup.heldout),
        "notes": list(setup.notes),
        "public_data": pools.public.description if pools is not None else None,
        "hospitals": hospitals,
        "central": central_row(setup, folder, [h["releases"] for h in hospitals]),
        "attacks": attacks.summary,
    }
    from simulation.report.words import run_words

    summary["words"] = run_words(summary)
    folder.write_json(folder.summary, summary)
    return summary


def model_digest(path: Path) -> str:
    """Return the sha256 of a model's weights, by name, type and bytes; metadata do not count."""
    arrays, _ = read_arrays(path)
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}\n".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()
