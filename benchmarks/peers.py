"""The same federated work in fedward, in Flower's own simulation and in pfl-research: seconds per round, peak memory.

    python benchmarks/peers.py [--json] [--pfl-python PATH] [--privacy none central local] [--blocks 5] [--rounds 5]
        [--users 100] [--cohort 20]

Work: ResNet-9 of width 16 with GroupNorm (the same module in every arm), 100 users of 50 colour images of 32x32, a
cohort of 20 drawn each round, 5 local SGD steps of 10 images, plain averaging. `none`: without privacy. `central`: each
user's update clipped to 1, Gaussian noise on the mean. `local`: DP-SGD at the users, per-image clipping to 1 and noise
(pfl-research has no per-image clipping and leaves it out).

Arms: `fedward inline` and `pfl` work in one process, one user after another; `fedward ray` and `flower` on two
workers. Every arm runs in a process of its own with one thread per worker; arms take turns (blocks), and the first
round of each (warming up) is left out. Rows: arm, privacy, round_s (median over blocks of the block's median round)
with the least and most, per_user_ms, setup_s (process start to the first round), peak_mib (largest sum of proportional
memory, PSS, over the arm's whole process tree; Linux only).

What differs, and whom it helps: fedward, and Flower's `local` arm (opacus, hooks, Poisson loader), draw Poisson batches
of 10 expected; the others shuffle into batches of exactly 10. fedward checks its gradients against one-by-one autograd,
writes a ledger line to disk before a hospital trains, noises in float64 and adds exactly; the peers do none of this.
fedward's images are its phantom, loaded from its cache; the peers' are random. For `--pfl-python` name an interpreter
that imports `pfl`, torch and pydantic: `pip install pfl` in a virtual environment of its own (its dp-accounting is
older than fedward's). Without it that arm is skipped.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

HERE = Path(__file__).resolve().parent.parent
IMAGES, BATCH, STEPS, RATE, CLIP, NOISE = 50, 10, 5, 0.05, 1.0, 1.0
SHAPE = (3, 32, 32)


@final
@dataclass(frozen=True)
class Work:
    """What every arm does."""

    privacy: str
    users: int
    cohort: int
    rounds: int


def module() -> Any:
    """Return the network."""
    from tasks.models import ModelSpec, build

    return build(ModelSpec("resnet9", SHAPE, 1, 16))


def user(index: int) -> tuple[Any, Any]:
    """Return a user's normalised images and labels; the same in every peer's arm."""
    import torch

    from tasks.models import normalise

    rng = np.random.default_rng([7, index])
    pixels = rng.integers(0, 256, (IMAGES, *SHAPE), dtype=np.uint8)
    return normalise(torch.from_numpy(pixels)), torch.from_numpy(rng.integers(0, 2, (IMAGES, 1))).float()


def fedward(work: Work, engine: str) -> list[float]:
    """Return the seconds of each round, by the run's own event log."""
    from configs import Experiment
    from simulation.run import simulate

    privacy: dict[str, Any] = {"mechanism": work.privacy}
    if work.privacy != "none":
        privacy |= {"clipping_norm": CLIP, "noise_multiplier": NOISE, "delta": 1e-5}
    content = {
        "task": {"root": "phantom", "image_size": 32, "width": 16, "phantom_images": work.users * (IMAGES + 12)},
        "hospitals": {"partition": "iid", "count": work.users, "max_records": IMAGES},
        "training": {
            "rounds": work.rounds,
            "cohort": work.cohort,
            "local_steps": STEPS,
            "batch_size": work.users * BATCH,
            "learning_rate": RATE,
            "server_optimizer": "average",
            "flips": 0.0,
            "evaluate_every": 1_000,
        },
        "privacy": privacy,
        "runtime": {"engine": engine, **({"workers": 2} if engine == "ray" else {})},
        "seed": 1,
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        simulate(Experiment.model_validate(content), out, report=False)
        events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    begun = {e["round"]: float(e["time"]) for e in events if e["event"] == "round"}
    ended = {e["round"]: float(e["time"]) for e in events if e["event"] == "finished"}
    return [ended[r] - begun[r] for r in sorted(ended)]


def local_sgd(net: Any, index: int, seed: int, *, private: bool) -> None:
    """Train on a user's images for one epoch: plain SGD, or DP-SGD by opacus."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(seed)
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
    loader: Any = DataLoader(TensorDataset(*user(index)), batch_size=BATCH, shuffle=True)
    if private:
        from opacus import PrivacyEngine

        engine = PrivacyEngine(accountant="rdp")
        net, optimizer, loader = engine.make_private(
            module=net, optimizer=optimizer, data_loader=loader, noise_multiplier=NOISE, max_grad_norm=CLIP
        )
    agreed = torch.nn.BCEWithLogitsLoss()
    net.train()
    for x, y in loader:
        if len(x) == 0:
            continue
        optimizer.zero_grad()
        agreed(net(x), y).backward()
        optimizer.step()


def flower(work: Work) -> list[float]:
    """Flower's own engine, stock FedAvg (wrapped for central privacy), a plain torch client."""
    os.environ.update({"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"})
    import torch
    from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
    from flwr.simulation import run_simulation

    private, here = work.privacy == "local", str(HERE)
    client, server = ClientApp(), ServerApp()
    began: list[float] = []

    @client.train()
    def train(message: Message, context: Context) -> Message:
        if here not in sys.path:
            sys.path.insert(0, here)
        import torch as torch_here

        torch_here.set_num_threads(1)
        net = module()
        net.load_state_dict(message.content["arrays"].to_torch_state_dict())  # type: ignore[union-attr]
        index = int(context.node_config["partition-id"])
        round_number = int(message.content["config"]["server-round"])  # type: ignore[index]
        local_sgd(net, index, 1_000 * round_number + index, private=private)
        content = RecordDict(
            {"arrays": ArrayRecord(net.state_dict()), "metrics": MetricRecord({"num-examples": IMAGES})}
        )
        return Message(content=content, reply_to=message)

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        del context

        class Timed(FedAvg):
            def configure_train(self, server_round: int, *rest: Any, **more: Any) -> Any:
                began.append(time.time())
                return super().configure_train(server_round, *rest, **more)

        strategy: Any = Timed(
            fraction_train=work.cohort / work.users, fraction_evaluate=0.0, min_available_nodes=work.users
        )
        if work.privacy == "central":
            strategy = DifferentialPrivacyServerSideFixedClipping(strategy, NOISE, CLIP, work.cohort)
        torch.manual_seed(0)
        start = ArrayRecord(module().state_dict())
        strategy.start(grid=grid, initial_arrays=start, num_rounds=work.rounds, train_config=ConfigRecord({}))
        began.append(time.time())

    init = {"include_dashboard": False, "log_to_driver": False, "num_cpus": 2}
    backend: Any = {"init_args": init, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server_app=server, client_app=client, num_supernodes=work.users, backend_config=backend)
    if len(began) != work.rounds + 1:
        raise SystemExit(f"Flower went through {len(began) - 1} of {work.rounds} rounds")
    return [b - a for a, b in itertools.pairwise(began)]


def pfl(work: Work) -> list[float]:
    """pfl-research's simulated backend in this process, FederatedAveraging, central Gaussian mechanism."""
    import torch
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByUser
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel
    from pfl.privacy.gaussian_mechanism import GaussianMechanism
    from pfl.privacy.privacy_mechanism import CentrallyAppliedPrivacyMechanism

    np.random.seed(0)  # noqa: NPY002  # what pfl draws its cohorts from
    agreed, net = torch.nn.BCEWithLogitsLoss(), module()
    net.loss = lambda x, y: agreed(net(x), y)
    net.metrics = lambda x, y: {}
    model = PyTorchModel(
        model=net,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(net.parameters(), 1.0),
    )
    data = {index: user(index) for index in range(work.users)}
    sampler = get_user_sampler("minimize_reuse", list(range(work.users)))
    users = FederatedDataset(lambda index: Dataset(raw_data=data[index]), sampler)
    steps: list[Any] = [WeightByUser()]
    if work.privacy == "central":
        steps.append(CentrallyAppliedPrivacyMechanism(GaussianMechanism(CLIP, NOISE)))
    ended = [time.time()]

    class Clock(TrainingProcessCallback):
        def after_central_iteration(self, aggregate_metrics: Any, model: Any, *, central_iteration: int) -> Any:
            ended.append(time.time())
            return False, Metrics()

    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=work.rounds,
            evaluation_frequency=10**6,
            train_cohort_size=work.cohort,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=users, val_data=users, postprocessors=steps),
        model=model,
        model_train_params=NNTrainHyperParams(local_num_epochs=1, local_learning_rate=RATE, local_batch_size=BATCH),
        model_eval_params=NNEvalHyperParams(local_batch_size=IMAGES),
        callbacks=[Clock()],
    )
    return [b - a for a, b in itertools.pairwise(ended)]


ARMS: Mapping[str, Callable[[Work], list[float]]] = {
    "fedward inline": lambda work: fedward(work, "inline"),
    "fedward ray": lambda work: fedward(work, "ray"),
    "flower": flower,
    "pfl": pfl,
}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def child(arm: str, work: Work) -> None:
    """Run one arm in this process and print its rounds as the last line."""
    import torch

    torch.set_num_threads(1)
    seconds = ARMS[arm](work)
    print("\n" + json.dumps({"rounds": seconds, "end": time.time()}), flush=True)


def tree(root: int) -> list[int]:
    """Return a process and all that it started, by /proc."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue  # it ended meanwhile
        parents.setdefault(parent, []).append(int(entry.parent.name))
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        todo += parents.get(found[-1], [])
    return found


def pss_mib(root: int) -> float:
    """Return the proportional memory of a process tree now; 0 where the system does not tell."""
    total = 0
    for process in tree(root):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def run(arm: str, work: Work, python: str, limit: float) -> dict[str, Any]:
    """Run an arm in a process of its own; return its rounds, its set-up and its peak."""
    command = [python, __file__, "--arm", arm, "--work", json.dumps(asdict(work))]
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(HERE)}
    start, peak = time.time(), 0.0
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complained:
        done = subprocess.Popen(command, stdout=said, stderr=complained, text=True, env=environment, cwd=HERE)
        while done.poll() is None:
            peak = max(peak, pss_mib(done.pid))
            if time.time() - start > limit:
                done.kill()
            time.sleep(0.5)  # looking costs some milliseconds of another core
        said.seek(0), complained.seek(0)  # pyright: ignore
        lines, errors = said.read().splitlines(), complained.read()
    if done.returncode:
        raise SystemExit(f"arm {arm} ({work.privacy}) ended with {done.returncode}:\n{errors[-2000:]}")
    found = json.loads(next(line for line in reversed(lines) if line.startswith('{"rounds"')))
    took = found["rounds"]
    return {"rounds": took, "setup": found["end"] - start - sum(took), "peak": peak}


def rows(works: list[Work], pythons: Mapping[str, str], blocks: int, limit: float) -> Iterator[dict[str, Any]]:
    """Yield one row per privacy and arm; within a privacy the arms take turns."""
    for work in works:
        arms = [arm for arm in pythons if not (arm == "pfl" and work.privacy == "local")]
        seen: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
        for _ in range(blocks):
            for arm in arms:
                seen[arm].append(run(arm, work, pythons[arm], limit))
        for arm, found in seen.items():
            medians = [statistics.median(one["rounds"][1:] or one["rounds"]) for one in found]
            middle = statistics.median(medians)
            yield {
                "privacy": work.privacy,
                "arm": arm,
                "round_s": round(middle, 3),
                "least": round(min(medians), 3),
                "most": round(max(medians), 3),
                "blocks": blocks,
                "per_user_ms": round(1e3 * middle / work.cohort, 1),
                "setup_s": round(statistics.median(one["setup"] for one in found), 1),
                "peak_mib": round(max(one["peak"] for one in found)),
            }


def main() -> None:
    """Print one row per arm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON rows only")
    parser.add_argument("--pfl-python", type=Path, help="an interpreter that imports pfl and torch")
    parser.add_argument(
        "--privacy", nargs="+", choices=("none", "central", "local"), default=["none", "central", "local"]
    )
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    for name, default in (("blocks", 5), ("rounds", 5), ("users", 100), ("cohort", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for one arm and block")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        child(options.arm, Work(**json.loads(options.work)))
        return
    pythons = {arm: sys.executable for arm in options.arms if arm != "pfl"}
    if "pfl" in options.arms and options.pfl_python:
        pythons["pfl"] = str(options.pfl_python)
    elif "pfl" in options.arms:
        print("pfl: skipped, --pfl-python names no interpreter that has it", file=sys.stderr)
    works = [Work(privacy, options.users, options.cohort, options.rounds) for privacy in options.privacy]
    found = []
    for row in rows(works, pythons, options.blocks, options.limit):
        found.append(row)
        if not options.json:
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
