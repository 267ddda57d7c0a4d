"""What a round costs beside the hospitals' own work, and how long a cold start takes; arms interleaved.

    python benchmarks/rounds.py [--json] [--section bars|many|cold]... [--megabytes 1 20 100] [--blocks 3] [--rounds 2]

Sections:
    bars: 8 hospitals on 2 actors, each at work for 1 s (asleep), over the size of the model: wall time of a round over
        8 s / 2, on Ray as fedward drives it and on Flower's own engine.
    many: 8, 64 and 256 hospitals of 5 ms each and a model of .5 MB: milliseconds per hospital beside the work, also
        inline and for a plain loop without any message.
    cold: seconds from a fresh process to the first round's start and end, `fedward simulate` on Ray and on Flower's
        engine, and what has to be paid at least: `ray.init` and two actors that import torch.

Every arm runs in a process of its own, in turns (blocks), and leaves its first round out. A release is float64, twice
as large as the float32 model; the server's part of a round (packing the weights, the exact sum of the releases) is
inside the time, the same code in every arm.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray

from configs.sections import RuntimeSettings
from server.aggregation import FixedPointSum
from server.exchange import exchange

WORKERS = 2
LAYERS = 10
SECTIONS = ("bars", "many", "cold")
EXPERIMENT = {
    "task": {"name": "ham10000", "root": "phantom", "image_size": 16, "width": 4, "phantom_images": 240},
    "training": {"rounds": 1, "batch_size": 48},
    "privacy": {"mechanism": "local", "epsilon": 8, "delta": 1e-3},
    "adversary": {"placement": "none"},
}

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Read the weights, sleep, and release as many float64 values."""
    weights = {name: array.numpy() for name, array in message.content["weights"].items()}
    time.sleep(float(message.content["order"]["seconds"]))
    release = {name: Array(value.astype(np.float64)) for name, value in weights.items()}
    reply = ConfigRecord({"units": 100, "checksum": float(sum(value.flat[0] for value in weights.values()))})
    return Message(RecordDict({"reply": reply, "release": ArrayRecord(release)}), reply_to=message)


@final
@dataclass(frozen=True)
class Case:
    """One process of one arm."""

    arm: str
    megabytes: float
    hospitals: int
    seconds: float
    rounds: int

    @property
    def ideal(self) -> float:
        """Seconds of a round in which nothing but the hospitals' work takes time."""
        side_by_side = WORKERS if self.arm in ("ray", "flower") else 1
        return self.hospitals * self.seconds / side_by_side

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Return a model of this size."""
        size = int(self.megabytes * 1e6 / 4 / LAYERS)
        draws = np.random.default_rng(0)
        return {f"layer-{i}": draws.standard_normal(size, dtype=np.float32) for i in range(LAYERS)}


def flat(release: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate([release[f"layer-{i}"].ravel() for i in range(LAYERS)])


def stepped(total: FixedPointSum, case: Case) -> dict[str, NDArray[np.float32]]:
    mean = total.total() / case.hospitals
    return {f"layer-{i}": part.astype(np.float32) for i, part in enumerate(np.split(mean, LAYERS))}


def federate(grid: Grid, case: Case) -> Iterator[float]:
    """Run rounds over a grid and yield the seconds of each."""
    weights = case.weights()
    size = sum(value.size for value in weights.values())
    for number in range(case.rounds + 1):
        start = time.perf_counter()
        packed = ArrayRecord({name: Array(value) for name, value in weights.items()})
        order = ConfigRecord({"seconds": case.seconds})
        messages = [
            Message(RecordDict({"order": order, "weights": packed}), node, "train", group_id=str(number))
            for node in grid.get_node_ids()
        ]
        total, answered = FixedPointSum(size), 0
        for reply in exchange(grid, messages, retries=0, timeout=600.0, lost=lost):
            total.add(flat({name: array.numpy() for name, array in reply.content["release"].items()}))
            answered += 1
        assert answered == case.hospitals
        weights = stepped(total, case)
        yield time.perf_counter() - start


def lost(node: int, reason: str, again: bool) -> None:
    raise RuntimeError(f"node {node}: {reason}")


def plain(case: Case) -> Iterator[float]:
    """Do the same without messages."""
    weights = case.weights()
    size = sum(value.size for value in weights.values())
    for _ in range(case.rounds + 1):
        start = time.perf_counter()
        total = FixedPointSum(size)
        for _ in range(case.hospitals):
            time.sleep(case.seconds)
            total.add(flat({name: value.astype(np.float64) for name, value in weights.items()}))
        weights = stepped(total, case)
        yield time.perf_counter() - start


def run_case(case: Case) -> list[float]:
    """Return the seconds of each round but the first, in this process."""
    from simulation.engines.grid import LocalGrid
    from simulation.engines.running import prepare_environment

    with tempfile.TemporaryDirectory() as home:
        prepare_environment(Path(home))
        if case.arm == "plain":
            return list(plain(case))[1:]
        if case.arm == "flower":
            return run_flower_case(case)[1:]
        if case.arm == "inline":
            from simulation.engines.inline import InlineDispatcher

            return list(federate(LocalGrid(InlineDispatcher("rounds:app"), case.hospitals, Path()), case))[1:]
        from simulation.engines.ray import RayDispatcher, disconnect

        dispatcher = RayDispatcher(RuntimeSettings(workers=WORKERS), case.hospitals, "rounds:app")
        taken = list(federate(LocalGrid(dispatcher, case.hospitals, Path()), case))[1:]
        dispatcher.close()
        disconnect()
        return taken


def run_flower_case(case: Case) -> list[float]:
    """Run the same loop and the same app on Flower's own engine."""
    import logging

    import rounds  # not as __main__: workers find the app by its module
    from flwr.simulation import run_simulation

    from simulation.engines.ray import ENVIRONMENT

    os.environ.update(ENVIRONMENT)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    taken: list[float] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        while len(list(grid.get_node_ids())) < case.hospitals:
            time.sleep(0.05)
        taken.extend(federate(grid, case))

    init = {"include_dashboard": False, "log_to_driver": False, "num_cpus": WORKERS}
    backend = {"init_args": init, "client_resources": {"num_cpus": 1, "num_gpus": 0}}
    run_simulation(server_app=server, client_app=rounds.app, num_supernodes=case.hospitals, backend_config=backend)
    return taken


def in_a_process(case: Case) -> list[float]:
    command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{case}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measured(cases: list[Case], blocks: int) -> list[dict[str, Any]]:
    """Return a row per case; the cases take turns."""
    taken: list[list[float]] = [[] for _ in cases]
    for block in range(blocks):
        order = range(len(cases)) if block % 2 == 0 else reversed(range(len(cases)))
        for i in order:
            taken[i] += in_a_process(cases[i])
    rows: list[dict[str, Any]] = []
    for case, seconds in zip(cases, taken, strict=True):
        beside = [1e3 * (s - case.ideal) / case.hospitals for s in seconds]
        rows.append(
            {
                "arm": case.arm,
                "megabytes": case.megabytes,
                "hospitals": case.hospitals,
                "work_seconds": case.seconds,
                "rounds": len(seconds),
                "ratio": round(statistics.median(seconds) / case.ideal, 3),
                "ratio_min": round(min(seconds) / case.ideal, 3),
                "ratio_max": round(max(seconds) / case.ideal, 3),
                "overhead_ms_per_hospital": round(statistics.median(beside), 2),
            }
        )
    return rows


PAID = """
import logging, ray
ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, num_cpus=2)
@ray.remote(num_cpus=1)
class Actor:
    def load(self):
        import torch
actors = [Actor.remote() for _ in range(2)]
ray.get([actor.load.remote() for actor in actors])
"""


def cold_start(arm: str, folder: Path, config: Path) -> tuple[float, float]:
    """Return the seconds from a fresh process to the first round's start and end; twice the same where none is."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    start = time.perf_counter()
    if arm == "paid":
        subprocess.run([sys.executable, "-c", PAID], env=environment, check=True, capture_output=True)
        return (time.perf_counter() - start,) * 2
    run = folder / f"{arm}-{time.time_ns()}"
    command = [Path(sys.executable).with_name("fedward"), "simulate", config, "--engine", arm, "--out", run]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    seen = [seen_after(start, run / "events.jsonl", event, process) for event in ("round", "finished")]
    process.communicate()
    return seen[0], seen[1]


def seen_after(start: float, log: Path, event: str, process: "subprocess.Popen[bytes]") -> float:
    while not (log.is_file() and f'"event": "{event}"' in log.read_text()):
        if process.poll() is not None:
            raise RuntimeError(f"the run ended: {process.communicate()[1].decode()[-2000:]}")
        time.sleep(0.005)
    return time.perf_counter() - start


def cold(starts: int, engines: list[str]) -> list[dict[str, Any]]:
    """Return a row per arm; the arms take turns, and the data are drawn before."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["FEDWARD_CACHE"] = str(folder / "cache")
        config = folder / "experiment.yaml"
        config.write_text(json.dumps(EXPERIMENT))
        cold_start("inline", folder, config)
        arms = ("paid", *(arm for arm in engines if arm in ("ray", "flower")))
        taken = {arm: [] for arm in arms}
        for turn in range(starts):
            for arm in arms if turn % 2 == 0 else reversed(arms):
                taken[arm].append(cold_start(arm, folder, config))
    paid = statistics.median(first for first, _ in taken["paid"])
    return [
        {
            "arm": arm,
            "starts": starts,
            "to_first_round": round(statistics.median(first for first, _ in seconds), 2),
            "spread": [round(min(first for first, _ in seconds), 2), round(max(first for first, _ in seconds), 2)],
            "to_its_end": round(statistics.median(end for _, end in seconds), 2),
            "ratio_to_paid": round(statistics.median(first for first, _ in seconds) / paid, 2),
        }
        for arm, seconds in taken.items()
    ]


def main() -> None:
    """Print one row per arm and case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON rows only")
    parser.add_argument("--section", choices=SECTIONS, nargs="+", default=list(SECTIONS))
    parser.add_argument("--megabytes", type=float, nargs="+", default=[1.0, 20.0, 100.0], help="section bars")
    parser.add_argument("--hospitals", type=int, nargs="+", default=[8, 64, 256], help="section many")
    parser.add_argument("--arms", nargs="+", default=["ray", "flower", "inline", "plain"])
    parser.add_argument("--blocks", type=int, default=3, help="processes of each arm and case")
    parser.add_argument("--rounds", type=int, default=2, help="timed rounds in each process")
    parser.add_argument("--starts", type=int, default=5, help="section cold")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(run_case(Case(**json.loads(options.case)))))
        return
    rows: list[dict[str, Any]] = []
    if "bars" in options.section:
        for size in options.megabytes:
            cases = [Case(arm, size, 8, 1.0, options.rounds) for arm in options.arms if arm in ("ray", "flower")]
            rows += [{"section": "bars", **row} for row in measured(cases, options.blocks)]
    if "many" in options.section:
        for number in options.hospitals:
            cases = [Case(arm, 0.5, number, 0.005, options.rounds) for arm in options.arms]
            rows += [{"section": "many", **row} for row in measured(cases, options.blocks)]
    if "cold" in options.section:
        rows += [{"section": "cold", **row} for row in cold(options.starts, options.arms)]
    if options.json:
        print(json.dumps(rows))
        return
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
