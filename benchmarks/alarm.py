"""The hospitals' alarm: how often it goes off at honest broadcasts, at planted ones, and what is left below it.

    python benchmarks/alarm.py --data /path/to/data [--json] [--arms honest-resnet9-real ...] [--seeds 5]

Arms `honest-MODEL-DATA` run honest federations, look at every round's broadcast as one hospital does, and then plant
each attack in the first and in the last broadcast of every run. Rounds of one run are alike, so false alarms are
counted per round and per run, each with an exact interval. The margin was chosen having seen real images with convnet
and resnet9 at seed 0 and phantoms with convnet at seed 1; the other seeds are fresh. Arms `quiet-*` plant an imprint
that keeps to a share of the gradient energy, through the whole federation, and count alarms and copies.

Probes: `all` is what the alarm uses; `fields` (noise and smooth fields) and `phantoms` are its parts. Two attacks are
made against the alarm itself: `imprint, gaps at known probes` kills every row that fires on the probes, as a server
could that knows their seed, and `imprint, gated` measures images along the direction that tells public images from
noise and smooth fields.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clients.alarm import Reading, alarms, fresh_readings, read
from clients.alarm_probes import FLAT, Probes, make_probes, noise_probes, smooth_probes
from clients.gradients import engine
from configs import Experiment
from server.adversary.base import PublicData, Weights
from server.adversary.recording import recorded
from server.adversary.registry import attack
from simulation.pools import make_pools
from simulation.run import simulate
from simulation.scoring.exact_tests import clopper_pearson
from simulation.setup import prepare
from tasks.models import ModelSpec, build, normalise

PROBES = ("all", "fields", "phantoms")
UNITS, BIAS, CENTRE = "wide.units.weight", "wide.units.bias", "wide.centre"
Row = dict[str, Any]
Planted = tuple[ModelSpec, Weights]
Plant = Callable[[ModelSpec, Weights, PublicData], Planted]


def experiment(data: Path | None, model: str, rounds: int, seed: int, **sections: dict[str, Any]) -> Experiment:
    """Return the settings of one run: three hospitals, small images; of phantoms where `data` is None."""
    name = "msd_liver" if model == "unet" else "ham10000"
    folder = {"msd_liver": "msd_liver/Task03_Liver", "ham10000": "ham10000"}[name]
    size = {"slices": True, "depth": 8, "phantom_images": 16} if name == "msd_liver" else {"phantom_images": 700}
    content: dict[str, dict[str, Any]] = {
        "task": {"name": name, "root": str(data / folder) if data else "phantom", "image_size": 32, "width": 8, **size},
        "hospitals": {"partition": "iid", "count": 2 if name == "msd_liver" else 3, "max_records": 200},
        "training": {"rounds": rounds, "batch_size": 2 if name == "msd_liver" else 64, "learning_rate": 5e-3},
        "adversary": {"placement": "server", "attacks": [], "rounds": "all", "public_images": 600},
    }
    content["task"]["model"] = model
    content["training"]["evaluate_every"] = rounds
    for section, values in sections.items():
        content[section] = {**content.get(section, {}), **values}
    return Experiment.model_validate({**content, "seed": seed})


def honest_arm(data: Path | None, model: str, rounds: int, seeds: int) -> Iterator[Row]:
    """Yield false alarms over honest runs, then detections of what is planted in their broadcasts."""
    alarmed: dict[str, list[list[bool]]] = {kind: [] for kind in PROBES}
    caught: dict[tuple[str, str], list[bool]] = {}
    shares: dict[tuple[str, str], list[float]] = {}
    for seed in range(seeds):
        settings = experiment(data, model, rounds, seed)
        with tempfile.TemporaryDirectory() as folder:
            simulate(settings, Path(folder) / "run", report=False)
            found = recorded(Path(folder) / "run" / "views", "single")
        setup = prepare(settings)
        public = make_pools(setup).public
        sent = {seen.round: seen.weights for seen, _ in found}
        reader = Reader(setup.task.spec, setup.task.loss)
        for kind, probes in probe_sets(settings, setup.task.spec, secret=7_000 + seed).items():
            fresh = fresh_readings(reader.agreed, reader.engine(reader.agreed), probes)
            earlier: list[Reading] = []
            went: list[bool] = []
            for number in sorted(sent):
                now = reader.read(reader.agreed, sent[number], probes)
                went.append(bool(alarms(now, fresh, earlier)))
                earlier += [] if went[-1] else [now]
            alarmed[kind].append(went)
            known = make_probes(setup.task.spec, settings.task, 7_000 + seed)
            for name, plant in planted(settings, setup.task.spec, known).items():
                for number, before in ((min(sent), []), (max(sent), earlier)):
                    now = reader.read(*plant(reader.agreed, sent[number], public), probes)
                    caught.setdefault((name, kind), []).append(bool(alarms(now, fresh, before)))
                    shares.setdefault((name, kind), []).append(max(now.shares.values(), default=0.0))
    label = {"model": model, "data": "real" if data else "phantom"}
    for kind, runs in alarmed.items():
        yield {**label, "what": "honest", "probes": kind, **rate([x for run in runs for x in run], "rounds")}
        yield {**label, "what": "honest", "probes": kind, **rate([any(run) for run in runs], "runs")}
    for (name, kind), hits in caught.items():
        low, high = min(shares[name, kind]), max(shares[name, kind])
        row = {**label, "what": name, "probes": kind, **rate(hits, "broadcasts")}
        yield {**row, "largest_share": [round(low, 4), round(high, 4)]}


class Reader:
    """Reads broadcasts on probes."""

    def __init__(self, agreed: ModelSpec, loss: Any) -> None:
        self.agreed = agreed
        self.engine = partial(engine, loss=loss)

    def read(self, spec: ModelSpec, weights: Weights, probes: Probes) -> Reading:
        """Return the reading of a broadcast."""
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
        return read(self.engine(spec), tensors, probes)


def probe_sets(settings: Experiment, spec: ModelSpec, secret: int) -> dict[str, Probes]:
    """Return the alarm's probes and its parts."""
    every = make_probes(spec, settings.task, secret)
    cut = 2 * FLAT
    parts = Probes(every.images[:cut], every.targets[:cut]), Probes(every.images[cut:], every.targets[cut:])
    return {"all": every, "fields": parts[0], "phantoms": parts[1]}


def planted(settings: Experiment, spec: ModelSpec, known: Probes) -> dict[str, Plant]:
    """Return what is planted, by name."""

    def by(name: str, **sections: Any) -> Plant:
        one = attack(name, settings.updated(adversary=sections).adversary)
        return one.plant

    imprint = by("imprint")
    found = {"imprint": imprint, "data traps": by("data_traps")}
    for share in (0.5, 0.3, 0.1, 0.01):
        found[f"imprint, share {share:g}"] = by("imprint", imprint={"share": share})
    if len(spec.shape) == 3 and not spec.dense:
        for wiring in ("image", "logits"):
            found[f"trap weights, {wiring}"] = by("trap_weights", trap_weights={"wiring": wiring})
    found["imprint, gaps at known probes"] = lambda *sent: with_gaps(imprint(*sent), known)
    found["imprint, gaps at other probes"] = lambda *sent: with_gaps(
        imprint(*sent), make_probes(spec, settings.task, 5)
    )
    found["imprint, gated"] = lambda agreed, weights, public: gated(imprint(agreed, weights, public), public)
    return found


def with_gaps(sent: Planted, known: Probes) -> Planted:
    """Return the planted model with every row dead that fires on a known probe."""
    spec, weights = sent
    model: Any = build(spec)
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    with torch.no_grad():
        inputs = normalise(known.images).flatten(1)
        raised = model.wide.units(model.wide.block.scale * (inputs - model.wide.centre))
    fires = ((raised > 0) & (raised < (spec.block.ceiling or np.inf) if spec.block else 0)).any(dim=0).numpy()
    weight, bias = np.array(weights[UNITS]), np.array(weights[BIAS])
    weight[fires], bias[fires] = 0.0, -1.0
    return spec, {**weights, UNITS: weight, BIAS: bias}


def gated(sent: Planted, public: PublicData) -> Planted:
    """Return the planted model with its rows along the direction that tells public images from noise and fields."""
    spec, weights = sent
    assert spec.block is not None
    rng = np.random.default_rng(99)
    plain = ModelSpec(spec.kind, spec.shape, spec.outputs, spec.width)
    other = torch.cat([make(plain, 300, rng).images for make in (noise_probes, smooth_probes)])

    def z(images: torch.Tensor) -> np.ndarray:
        flat = normalise(images).flatten(1).numpy().astype(np.float64)
        return spec.block.scale * (flat - weights[CENTRE]) if spec.block else flat

    ours, theirs = z(torch.from_numpy(public.images)), z(other)
    scatter = np.cov(ours.T) + np.cov(theirs.T)
    ridge = 1e-2 * np.trace(scatter) / len(scatter)
    direction = np.linalg.solve(scatter + ridge * np.eye(len(scatter)), ours.mean(axis=0) - theirs.mean(axis=0))
    direction /= np.linalg.norm(direction)
    edges = np.quantile(ours @ direction, np.linspace(0, 1, spec.block.rows + 1))
    slopes = (spec.block.ceiling or 1.0) / np.maximum(np.diff(edges), 1e-9)
    weight = (slopes[:, None] * direction).astype(np.float32)
    return spec, {**weights, UNITS: weight, BIAS: (-slopes * edges[:-1]).astype(np.float32)}


def quiet_arm(data: Path | None, model: str, seeds: int, share: float, noise: float | None) -> Iterator[Row]:
    """Yield alarms and copies of an imprint that keeps to a share, in one round of one hospital of 64 images."""
    went: list[bool] = []
    copied = targets = 0
    for seed in range(seeds):
        privacy: dict[str, Any] = {"mechanism": "clip_only", "clipping_norm": 1.0}
        if noise is not None:
            privacy = {"mechanism": "local", "noise_multiplier": noise, "clipping_norm": 1.0, "delta": 1e-5}
        planting = {"placement": "malicious_server", "attacks": ["imprint"], "imprint": {"rows": 512, "share": share}}
        settings = experiment(
            data,
            model,
            1,
            seed,
            hospitals={"count": 1, "max_records": 64, "alarm": "log"},
            training={"batch_size": None, "flips": 0.0},
            privacy=privacy,
            adversary={**planting, "public_images": 1000, "decoys": 19},
        )
        with tempfile.TemporaryDirectory() as folder:
            summary = simulate(settings, Path(folder) / "run", report=False).summary
            (log,) = (Path(folder) / "run" / "ledger").glob("*.alarm.log")
            lines = [json.loads(text) for text in log.read_text(encoding="utf-8").splitlines()]
        went += [bool(line["alarms"]) for line in lines if line["kind"] == "broadcast"]
        copied += sum(round(a["recovered"] * a["targets"]) for a in summary["attacks"])
        targets += sum(a["targets"] for a in summary["attacks"])
    low, high = clopper_pearson(copied, targets)
    yield {
        "model": model,
        "data": "real" if data else "phantom",
        "what": f"imprint, share {share:g}, {'clipping only' if noise is None else f'noise multiplier {noise:g}'}",
        "probes": "all",
        **rate(went, "runs"),
        "copied": copied,
        "targets": targets,
        "copied_ci": [round(low, 3), round(high, 3)],
    }


def rate(went: list[bool], of: str) -> Row:
    """Return a count of alarms with its exact interval."""
    low, high = clopper_pearson(sum(went), len(went))
    return {"of": of, "n": len(went), "alarms": sum(went), "rate_ci": [round(low, 4), round(high, 4)]}


def arms(data: Path | None, seeds: int) -> dict[str, Callable[[], Iterator[Row]]]:
    """Return all arms by name."""
    found: dict[str, Callable[[], Iterator[Row]]] = {}
    for label, root in (("phantom", None), ("real", data)):
        if label == "real" and root is None:
            continue
        for model, rounds in (("resnet9", 30), ("convnet", 30), ("unet", 10)):
            found[f"honest-{model}-{label}"] = partial(honest_arm, root, model, rounds, seeds)
        for share in (1.0, 0.5, 0.3, 0.1, 0.01):
            for name, noise in (("clip", None), ("noise", 4e-4)):
                found[f"quiet-{share:g}-{name}-{label}"] = partial(quiet_arm, root, "resnet9", seeds, share, noise)
    return found


def main() -> None:
    """Run the arms and print their rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with ham10000/ and msd_liver/; without it phantoms only")
    parser.add_argument("--arms", nargs="*", help="names of arms; default: all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON rows")
    given = parser.parse_args()
    every = arms(given.data, given.seeds)
    unknown = [name for name in given.arms or [] if name not in every]
    if unknown:
        parser.error(f"unknown arm {unknown[0]}; choose from {', '.join(every)}")
    torch.set_num_threads(1)
    for name in given.arms or every:
        for row in every[name]():
            print(json.dumps(row) if given.json else "  ".join(f"{k} {v}" for k, v in row.items()), flush=True)


if __name__ == "__main__":
    main()
