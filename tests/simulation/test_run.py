"""The same experiment gives the same bits: twice, on every engine, after kills, and after a resume."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from configs import Experiment, InputError, RunStoppedError
from privacy import Ledger
from simulation.engines import ray as ray_engine
from simulation.run import simulate

LOCAL = {"mechanism": "local", "epsilon": 8, "delta": 1e-3}
MALICIOUS = {"placement": "malicious_server"}

# Ray's workers inherit it: no test may kill a worker of somebody else's run.
MARK = f"fedward-test-{os.getpid()}"
os.environ["FEDWARD_TEST_MARK"] = MARK

Make = Callable[..., Experiment]


@pytest.fixture(scope="module", autouse=True)
def _leave_ray():
    yield
    ray_engine.disconnect()


def test_one_run_from_settings_to_report(small: Make, tmp_path: Path) -> None:
    run = simulate(small(privacy=LOCAL, adversary=MALICIOUS), tmp_path / "run")
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["metrics"]["auroc"] is not None
    assert summary["clean"]["round"] == 2  # the last round is attacked
    for row in summary["hospitals"]:
        entries = Ledger.open(run.folder / row["ledger"]).entries
        assert [e.round for e in entries] == [1, 2, 3]
        assert row["epsilon"]["lower"] <= row["epsilon"]["estimate"] <= row["epsilon"]["upper"] <= 8
        assert row["epsilon"]["upper"] > 7.9
    assert {a["attack"] for a in summary["attacks"]} == {"imprint"}
    assert all(a["null_recovered"] is not None for a in summary["attacks"] if a["targets"])
    rounds = pd.read_csv(run.folder / "rounds.csv")
    assert rounds["round"].tolist() == [1, 2, 3]
    assert rounds["released"].tolist() == [4, 4, 4]
    targets = pd.read_csv(run.folder / "attacks.csv")
    assert len(targets) == sum(a["targets"] for a in summary["attacks"])
    assert (run.folder / "report.html").stat().st_size > 1000
    kept = yaml.safe_load((run.folder / "experiment.yaml").read_text())
    assert kept["sha256"] == summary["experiment_sha256"]
    assert kept["versions"]["torch"]


def test_engines_agree_to_the_bit_and_ray_survives_the_death_of_a_worker(small: Make, tmp_path: Path) -> None:
    settings = {"privacy": LOCAL, "training": {"rounds": 4}}
    hashes = {
        name: simulate(small(**settings, runtime={"engine": name}), tmp_path / f"{name}-run", report=False).summary[
            "model_sha256"
        ]
        for name in ("inline", "ray", "flower")
    }
    out = tmp_path / "killed"
    killed: list[int] = []

    def kill_in_the_middle() -> None:
        log = out / "events.jsonl"
        while not (log.is_file() and '"event": "round", ' in log.read_text() and '"round": 2' in log.read_text()):
            time.sleep(0.005)
        for pid in _workers()[:1]:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    killer = threading.Thread(target=kill_in_the_middle, daemon=True)
    killer.start()
    run = simulate(small(**settings, runtime={"engine": "ray"}), out, report=False)
    killer.join(timeout=10)
    assert killed
    hashes["ray again, a worker killed"] = run.summary["model_sha256"]
    assert len(set(hashes.values())) == 1, hashes
    for row in run.summary["hospitals"]:
        assert row["releases"] == 4  # asked again, charged once


def _workers() -> list[int]:
    found = []
    for process in Path("/proc").iterdir():
        try:
            named = process.name.isdigit() and b"ray::HospitalWorker" in (process / "cmdline").read_bytes()
            if named and MARK.encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return sorted(found)


SCRIPT = """
import sys, yaml
from configs import Experiment
from simulation.run import simulate
experiment = Experiment.model_validate(yaml.safe_load(open(sys.argv[1])))
simulate(experiment, sys.argv[2], report=False)
"""


@pytest.mark.parametrize("optimizer", ["nadam", "average"])
def test_kill_the_driver_then_resume(small: Make, tmp_path: Path, optimizer: str) -> None:
    experiment = small(privacy=LOCAL, training={"rounds": 12, "server_optimizer": optimizer}, adversary=MALICIOUS)
    straight = simulate(experiment, tmp_path / "straight", report=False)
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(experiment.model_dump(mode="json")))
    out = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(settings), str(out)])
    log = out / "events.jsonl"
    while process.poll() is None and not (log.is_file() and '"event": "finished"' in log.read_text()):
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (out / "summary.json").exists()
    released = [json.loads(line) for line in log.read_text().splitlines() if '"released"' in line]
    charged = {(e.hospital, e.round) for path in (out / "ledger").iterdir() for e in Ledger.open(path).entries}
    assert {(e["hospital"], e["round"]) for e in released} <= charged
    with pytest.raises(InputError, match="--resume"):
        simulate(experiment, out, report=False)
    resumed = simulate(experiment, out, resume=True, report=False)
    assert resumed.summary["model_sha256"] == straight.summary["model_sha256"]
    assert resumed.summary["attacks"] == straight.summary["attacks"]
    assert [h["epsilon"] for h in resumed.summary["hospitals"]] == [h["epsilon"] for h in straight.summary["hospitals"]]
    with pytest.raises(InputError, match="another experiment"):
        simulate(experiment.with_seed(99), out, resume=True, report=False)


def test_another_seed_gives_another_model_and_runtime_changes_nothing(small: Make, tmp_path: Path) -> None:
    first = simulate(small(), tmp_path / "a", report=False).summary
    other = simulate(small().with_seed(11), tmp_path / "b", report=False).summary
    assert first["model_sha256"] != other["model_sha256"]
    assert small().digest() == small(runtime={"engine": "ray", "workers": 3}).digest()
    assert small().digest() != small().with_seed(11).digest()


def test_fedavg_and_fedprox_train_and_differ(small: Make, tmp_path: Path) -> None:
    local = {"rounds": 4, "local_steps": 4, "learning_rate": 0.05, "server_optimizer": "average", "batch_size": 96}
    average = simulate(small(training=local), tmp_path / "avg", report=False).summary
    proximal = simulate(small(training={**local, "proximal": 1.0}), tmp_path / "prox", report=False).summary
    assert average["model_sha256"] != proximal["model_sha256"]
    events = (tmp_path / "avg" / "rounds.csv").read_text()
    losses = pd.read_csv(tmp_path / "avg" / "rounds.csv")["loss"]
    assert losses.iloc[-1] < losses.iloc[0], events


def test_cohorts_and_stragglers_keep_the_quorum_or_stop_the_run(small: Make, tmp_path: Path) -> None:
    hospitals = {"partition": "iid", "count": 6}
    training = {"rounds": 6, "cohort": 3, "stragglers": 0.3, "quorum": 1 / 3}
    run = simulate(small(hospitals=hospitals, training=training, privacy=LOCAL), tmp_path / "a", report=False)
    rounds = pd.read_csv(run.folder / "rounds.csv")
    assert set(rounds["asked"]) == {3}
    assert rounds["released"].between(1, 3).all()
    assert rounds["released"].min() < 3  # somebody straggled
    releases = sum(h["releases"] for h in run.summary["hospitals"])
    assert releases == rounds["released"].sum()  # who declines is not charged
    assert all(h["epsilon"]["upper"] <= 8 for h in run.summary["hospitals"] if h["epsilon"])
    with pytest.raises(RunStoppedError, match="quorum lost"):
        simulate(
            small(hospitals=hospitals, training={**training, "quorum": 3, "stragglers": 0.8}),
            tmp_path / "b",
            report=False,
        )


def test_a_vetting_hospital_declines_a_planted_model(small: Make, tmp_path: Path) -> None:
    experiment = small(adversary=MALICIOUS, hospitals={"vetting": "refuse"})
    with pytest.raises(RunStoppedError, match="quorum lost in round 3"):
        simulate(experiment, tmp_path / "run", report=False)
    log = (tmp_path / "run" / "events.jsonl").read_text()
    assert "not the agreed one" in log


def test_sixty_hospitals_of_which_twelve_are_asked_give_the_same_bits_on_ray(small: Make, tmp_path: Path) -> None:
    def run(engine: str) -> dict[str, Any]:
        experiment = small(
            privacy=LOCAL,
            hospitals={"partition": "size", "count": 60, "alpha": 3.0},
            training={"cohort": 12, "batch_size": 60, "evaluate_every": 3},
            runtime={"engine": engine, "workers": 2},
        )
        return simulate(experiment, tmp_path / engine).summary

    inline, ray = run("inline"), run("ray")
    assert inline["model_sha256"] == ray["model_sha256"]
    assert [h["name"] for h in inline["hospitals"]] == [h["name"] for h in ray["hospitals"]]
    released = {h["name"]: h["releases"] for h in ray["hospitals"]}
    assert sum(released.values()) == 3 * 12
    idle = [h for h in ray["hospitals"] if not h["releases"]]
    assert len(idle) >= 60 - 36
    assert all(h["epsilon"]["upper"] == 0 and h["ledger"] is None for h in idle), "who was never asked spent nothing"
    assert not list((tmp_path / "ray" / "ledger").glob(f"{idle[0]['name']}.jsonl"))
