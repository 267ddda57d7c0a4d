"""Two Ray nodes on one machine: the same bits as without, each class where it belongs, refusals in a sentence."""

import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from clients.site import SiteSettings
from configs import Experiment, InputError, RunStoppedError
from privacy import Ledger
from simulation.cell_jobs import Job
from simulation.engines import ray as ray_engine
from simulation.engines.ray_cells import run_cells
from simulation.engines.ray_classes import ClusterDispatcher
from simulation.engines.ray_node import Joined
from simulation.run import simulate
from tasks.registry import write_phantom

Make = Callable[..., Experiment]

# Ray's workers inherit it: no test may kill a worker of somebody else's run.
MARK = f"fedward-cluster-{os.getpid()}"
PRIVACY = {"mechanism": "local", "epsilon": 8, "delta": 1e-3}
TRAINING = {"rounds": 3, "batch_size": 48, "evaluate_every": 3}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same dataset in three places, and another one."""
    folder = tmp_path_factory.mktemp("data")
    write_phantom("ham10000", folder / "driver", images=240, seed=0)
    for place in ("berlin", "vienna"):
        shutil.copytree(folder / "driver", folder / place)
    write_phantom("ham10000", folder / "other", images=240, seed=1)
    return folder


@pytest.fixture(scope="module")
def cluster(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster of two nodes with one CPU each; Vienna's says by itself where its data lie."""
    patch = pytest.MonkeyPatch()
    # Else every `ray.init()` on this machine, whoever calls it, would join this cluster.
    patch.setattr("ray._private.utils.write_ray_address", lambda *_, **__: None)
    patch.setenv("FEDWARD_TEST_MARK", MARK)
    ray_engine.disconnect()
    started = Cluster()
    try:
        started.add_node(num_cpus=1, resources={"berlin": 1}, include_dashboard=False)
        own = {"FEDWARD_ROOT": str(data / "vienna")}
        started.add_node(num_cpus=1, resources={"vienna": 1}, env_vars=own)
        yield str(started.address)
    finally:
        ray_engine.disconnect()
        started.shutdown()
        patch.undo()


@pytest.fixture(scope="module")
def experiment(small: Make, data: Path) -> Experiment:
    task = {"root": str(data / "driver"), "image_size": 16, "width": 4}
    return small(task=task, training=TRAINING, privacy=PRIVACY)


@pytest.fixture(scope="module")
def digest(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The model's digest when all hospitals are in this process."""
    return simulate(experiment, tmp_path_factory.mktemp("inline") / "run", report=False).summary["model_sha256"]


def on(experiment: Experiment, address: str, **settings: Any) -> Experiment:
    return experiment.updated(runtime={"engine": "ray", "ray": {"address": address, **settings}})


def test_two_nodes_give_the_same_bits_each_class_on_its_own_though_a_worker_is_killed(
    experiment: Experiment, digest: str, cluster: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: dict[str, list[Joined]] = {}
    close = ClusterDispatcher.close

    def note_and_close(self: ClusterDispatcher) -> None:
        joined.update({name: list(crew.joined) for name, crew in self.crews.items()})
        close(self)

    monkeypatch.setattr(ClusterDispatcher, "close", note_and_close)
    far = {"hospitals": ["vienna*"], "workers": 3, "cpus": 0.5, "resources": {"vienna": 0.001}}
    chosen = on(experiment, cluster, classes={"far": far}, roots={"berlin": str(data / "berlin")})
    killed: list[int] = []
    killer = threading.Thread(target=_kill_one, args=(tmp_path / "run" / "events.jsonl", killed), daemon=True)
    killer.start()
    summary = simulate(chosen, tmp_path / "run", report=False).summary
    killer.join(timeout=10)
    assert killed
    assert summary["model_sha256"] == digest
    assert chosen.digest() == experiment.digest()
    nodes = {name: {n["NodeID"] for n in ray.nodes() if name in n["Resources"]} for name in ("berlin", "vienna")}
    assert {j.node.id for j in joined["far"]} == nodes["vienna"]
    assert {j.node.id for j in joined[""]} == nodes["berlin"]
    assert {j.root for j in joined["far"]} == {str(data / "vienna")}
    assert {j.root for j in joined[""]} == {str(data / "berlin")}
    assert (
        sum(map(len, joined.values())) == 3
    )  # far asks for 3 workers and has one hospital; one worker had a successor
    for row in summary["hospitals"]:
        assert [e.round for e in Ledger.open(tmp_path / "run" / row["ledger"]).entries] == [1, 2, 3]
    own = sorted(p for p in (tmp_path / "run").glob(".hospitals-*") if p.suffix == ".json")
    assert {SiteSettings.read(p).experiment.task.root for p in own} == {str(data / n) for n in ("berlin", "vienna")}
    assert {p.stat().st_mode & 0o777 for p in own} == {0o600}
    assert not (tmp_path / "run" / ".cluster").exists()


def _kill_one(log: Path, killed: list[int]) -> None:
    while not (log.is_file() and '"finished"' in log.read_text()):
        time.sleep(0.005)
    for process in Path("/proc").iterdir():
        try:
            named = process.name.isdigit() and b"ray::ClusterWorker" in (process / "cmdline").read_bytes()
            if named and MARK.encode() in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
                killed.append(int(process.name))
                return
        except OSError:
            continue


def test_a_node_with_other_data_stops_the_run_before_anything_is_charged(
    experiment: Experiment, cluster: str, data: Path, tmp_path: Path
) -> None:
    # Vienna alone: it says by itself where its data lie, and the run knows better
    far = {"hospitals": ["*"], "resources": {"vienna": 0.001}}
    chosen = on(experiment, cluster, classes={"far": far}, roots={"vienna": str(data / "other")})
    with pytest.raises(RunStoppedError, match=r"node \S+ \([0-9.]+, vienna\): its data at .*other are not those"):
        simulate(chosen, tmp_path / "run", report=False)
    assert not list((tmp_path / "run").glob("ledger/*"))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"cpus": 2}, r"classes\.big: 1 worker with 2 CPU each found no room within 1 s; the cluster has 2 CPU"),
        ({"gpus": 0.25}, r"classes\.big: 1 worker with 1 CPU and 0.25 GPU each .* 0 GPU \(0 free\), on 2 nodes"),
        ({"resources": {"rome": 1}}, r"classes\.big: .* the cluster has .* 0 rome"),
        ({"workers": 2, "strategy": "STRICT_PACK"}, r"2 workers with 1 CPU each \(STRICT_PACK\) found no room"),
    ],
)
def test_a_class_that_finds_no_room_stops_the_run_within_seconds(
    experiment: Experiment, cluster: str, tmp_path: Path, asked: dict[str, Any], said: str
) -> None:
    chosen = on(experiment, cluster, classes={"big": {"hospitals": ["*"], **asked}}, patience=1)
    with pytest.raises(RunStoppedError, match=said):
        ClusterDispatcher(chosen, 4, tmp_path / ".hospitals.json")
    assert {group["state"] for group in ray.util.placement_group_table().values()} <= {"REMOVED"}


def test_a_root_of_a_node_that_is_not_there_is_refused(experiment: Experiment, cluster: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"runtime.ray.roots.wienna: .* did you mean 'vienna'\?"):
        ClusterDispatcher(on(experiment, cluster, roots={"wienna": "/data"}), 4, tmp_path / ".hospitals.json")


def test_a_class_of_nobody_is_refused_before_anything_is_written(experiment: Experiment, tmp_path: Path) -> None:
    wrong = experiment.updated(runtime={"ray": {"classes": {"far": {"hospitals": ["viena_dias"]}}}})
    with pytest.raises(InputError, match=r"classes\.far\.hospitals: .* did you mean 'vienna_dias'\?"):
        simulate(wrong, tmp_path / "run", report=False)
    assert not (tmp_path / "run").exists()


def test_flowers_own_engine_is_refused_on_several_nodes(experiment: Experiment, cluster: str, tmp_path: Path) -> None:
    flower = experiment.updated(runtime={"engine": "flower", "ray": {"address": cluster}})
    with pytest.raises(RunStoppedError, match=r"runtime\.engine: on the 2 nodes at .* set it to ray"):
        simulate(flower, tmp_path / "run", report=False)


def test_an_address_where_nothing_listens_is_said_at_once(experiment: Experiment, tmp_path: Path) -> None:
    ray_engine.disconnect()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound and not listening: the port is nobody else's
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(RunStoppedError, match=rf"Ray did not start on {address}: nothing answers there"):
            simulate(on(experiment, address), tmp_path / "run", report=False)


class Quiet:
    def started(self, job: Job) -> None: ...
    def lost(self, job: Job, why: str) -> None: ...
    def ended(self, job: Job, error: str | None) -> None: ...
    def look(self) -> None: ...


def test_cells_of_a_study_run_on_both_nodes_over_the_data_that_lie_there(
    experiment: Experiment, digest: str, cluster: str, data: Path, tmp_path: Path
) -> None:
    runtime = on(experiment, cluster, roots={"berlin": str(data / "berlin")}).runtime
    jobs = [Job(str(seed), experiment.with_seed(seed), tmp_path / "cells" / str(seed)) for seed in (10, 11)]
    assert run_cells(jobs, runtime, Quiet()) == {}
    found = [json.loads((job.folder / "summary.json").read_text()) for job in jobs]
    assert found[0]["model_sha256"] == digest != found[1]["model_sha256"]
    assert {s["experiment"]["task"]["root"] for s in found} == {str(data / n) for n in ("berlin", "vienna")}
