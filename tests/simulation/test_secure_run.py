"""Whole runs under a secure sum: the same model, survived dropouts, attacked sums, every engine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.sum_journal import FOLDER
from configs import Experiment, RunStoppedError
from privacy import Ledger
from server.adversary.recording import recorded
from server.checkpoints import read_arrays
from server.events import read_events
from server.secure_sum import SumRound
from simulation.engines import ray as ray_engine
from simulation.run import Run, simulate

Make = Callable[..., Experiment]
LOCAL = {"mechanism": "local", "epsilon": 8, "delta": 1e-3}
AVERAGE = {"server_optimizer": "average", "learning_rate": 0.1, "rounds": 2}


@pytest.fixture(scope="module", autouse=True)
def _leave_ray():
    yield
    ray_engine.disconnect()


def weights(run: Run) -> np.ndarray:
    arrays, _ = read_arrays(run.folder / "model.safetensors")
    return np.concatenate([arrays[name].ravel().astype(np.float64) for name in sorted(arrays)])


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event, _ in read_events(folder / "events.jsonl") if event["event"] == kind]


@pytest.mark.parametrize("steps", [1, 3], ids=["FedSGD", "FedAvg"])
def test_the_model_is_that_of_the_plain_run(small: Make, tmp_path: Path, steps: int) -> None:
    found = {}
    for secure in (False, True):
        training = {**AVERAGE, "local_steps": steps, "secure_sum": secure}
        found[secure] = weights(simulate(small(training=training), tmp_path / str(secure), report=False))
    moved = np.abs(found[False] - weights_at_start(tmp_path / "False")).max()
    assert moved > 1e-3
    assert np.abs(found[True] - found[False]).max() < 1e-4 * moved


def weights_at_start(folder: Path) -> np.ndarray:
    """The model before the first round, made again from the seed."""
    import yaml

    import tasks
    from configs import SERVER, derive, root_of
    from tasks.models import initial_weights

    experiment = Experiment.model_validate(yaml.safe_load((folder / "experiment.yaml").read_text())["experiment"])
    seed = derive(root_of(experiment.seed, SERVER), "model")
    start = {n: v.numpy() for n, v in initial_weights(tasks.get(experiment.task).spec, seed).items()}
    return np.concatenate([start[name].ravel().astype(np.float64) for name in sorted(start)])


def test_a_missing_hospital_is_survived_and_charged_to_nobody(small: Make, tmp_path: Path) -> None:
    training = {**AVERAGE, "rounds": 7, "stragglers": 0.1, "secure_sum": True}
    run = simulate(small(privacy=LOCAL, training=training).with_seed(2), tmp_path / "run", report=False)
    missed = events(run.folder, "declined")
    assert missed
    assert all("straggler" in event["reason"] for event in missed)
    released = {(e["round"], e["hospital"]) for e in events(run.folder, "released")}
    assert not released & {(e["round"], e["hospital"]) for e in missed}
    for row in run.summary["hospitals"]:
        charged = {(e.round, row["name"]) for e in Ledger.open(run.folder / row["ledger"]).entries}
        assert charged == {pair for pair in released if pair[1] == row["name"]}
        # one list of peers and one of survivors a round, and for no round that was missed; keys are shared in each
        journal = Ledger.open(run.folder / "ledger" / FOLDER / Path(row["ledger"]).name)
        bound = {(e.run.partition("/")[2], e.round) for e in journal.entries}
        keys = {("cards", r) for r in range(1, 8)}
        assert bound == keys | {(what, r) for what in ("peers", "survivors") for r, _ in charged}


def test_too_few_hospitals_void_the_round(small: Make, tmp_path: Path) -> None:
    training = {**AVERAGE, "stragglers": 0.6, "secure_sum": True}
    with pytest.raises(RunStoppedError, match=r"quorum lost in round 1: [0-2] releases where 3 are needed"):
        simulate(small(training=training), tmp_path / "run", report=False)


@pytest.fixture(scope="module")
def straight(small: Make, tmp_path_factory: pytest.TempPathFactory) -> Run:
    experiment = small(privacy=LOCAL, training={**AVERAGE, "secure_sum": True})
    return simulate(experiment, tmp_path_factory.mktemp("straight") / "run", report=False)


@pytest.mark.parametrize("phase", ["_collect", "_agree", "_open"])
def test_a_server_that_dies_in_a_phase_goes_on_with_the_same_bits(
    straight: Run, small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    experiment = small(privacy=LOCAL, training={**AVERAGE, "secure_sum": True})
    honest = getattr(SumRound, phase)

    def die(self: SumRound, *arguments: object) -> object:
        honest(self, *arguments)
        raise RuntimeError("killed")

    monkeypatch.setattr(SumRound, phase, die)
    with pytest.raises(RuntimeError, match="killed"):
        simulate(experiment, tmp_path / "killed", report=False)
    monkeypatch.undo()
    resumed = simulate(experiment, tmp_path / "killed", resume=True, report=False)
    assert resumed.summary["model_sha256"] == straight.summary["model_sha256"]
    assert [h["releases"] for h in resumed.summary["hospitals"]] == [2, 2, 2, 2]


def test_ray_gives_the_same_bits_though_another_worker_answers_each_phase(
    straight: Run, small: Make, tmp_path: Path
) -> None:
    experiment = small(privacy=LOCAL, training={**AVERAGE, "secure_sum": True}, runtime={"engine": "ray"})
    run = simulate(experiment, tmp_path / "run", report=False)
    assert run.summary["model_sha256"] == straight.summary["model_sha256"]


def test_an_attacked_sum_is_recorded_with_the_blocks_parameters_and_no_single_release(
    small: Make, tmp_path: Path
) -> None:
    adversary = {"placement": "malicious_aggregate", "imprint": {"rows": 32, "components": 20, "per_hospital": True}}
    experiment = small(training={**AVERAGE, "secure_sum": True}, adversary=adversary)
    run = simulate(experiment, tmp_path / "run", report=False)
    assert recorded(run.folder / "views", "single") == []
    ((seen, _),) = recorded(run.folder / "views", "sum")
    assert len(seen.members) == 4
    assert np.abs(seen.release["wide.units.weight"]).max() > 0
    assert seen.release.keys() >= {"wide.units.weight", "wide.units.bias"}
    final, _ = read_arrays(run.folder / "model.safetensors")
    assert not any(name.startswith("wide.") for name in final)
    broadcasts = {Ledger.open(run.folder / row["ledger"]).entries[-1].broadcast for row in run.summary["hospitals"]}
    assert len(broadcasts) == 4  # everybody was sent rows of its own


def test_settings_that_no_hospital_would_sum_for_are_refused(small: Make) -> None:
    four = {"partition": "iid", "count": 4}
    for sections, says in (
        ({"hospitals": {"partition": "iid", "count": 2}}, "2 hospitals a round"),
        ({"hospitals": four, "training": {"cohort": 2}}, "2 hospitals a round"),
        ({"hospitals": {**four, "smallest_sum": 5}}, "smallest_sum is 5"),
        ({"training": {"quorum": 2}}, "quorum: 2 releases"),
        ({"adversary": {"placement": "hospital"}}, "takes its own release"),
    ):
        with pytest.raises(ValueError, match=says):
            small(**{**sections, "training": {"secure_sum": True, **sections.get("training", {})}})
    fitting = small(hospitals=four, training={"secure_sum": True, "quorum": 3})
    assert [fitting.sum_threshold(4, n) for n in (3, 4)] == [3, 3]
    assert small(hospitals={**four, "count": 20}).sum_threshold(20, 20) == 14
