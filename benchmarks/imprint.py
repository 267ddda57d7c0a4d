"""The imprint on real images: what is copied, with exact intervals, beside what theory allows.

    python benchmarks/imprint.py /path/to/data [--bars fedsgd64 secure_sum_own ...] [--seeds 5] [--json]

The folder holds `ham10000` and `msd_liver/Task03_Liver` in their official layouts. Single-hospital rows are live runs
of the federation with a malicious server; the sums over hospitals add what the hospitals' own gradient code returns for
each broadcast. Copied: SSIM above .9 after one-to-one pairing by squared error. Theory: (1 - 1/K)^(B - 1) for B images
in K equiprobable bins.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from clients.gradients import engine
from configs import Experiment
from configs.adversary import ImprintSettings
from server.adversary.base import Addressee, Observation, PublicTerms, Trace
from server.adversary.imprint import BIAS, WEIGHT, Imprint
from server.adversary.terms import terms_of_sum
from simulation.pools import make_pools
from simulation.run import simulate
from simulation.scoring.assignment import pair
from simulation.scoring.exact_tests import clopper_pearson
from simulation.setup import Setup, prepare
from tasks.models import initial_weights

Rows = list[dict[str, Any]]
PUBLIC = 1000  # images of other lesions; without noise they only place the bins
HAM, LIVER = "ham10000", "msd_liver/Task03_Liver"


def row(bar: str, hits: list[int], counts: list[int], wanted: float, theory: float | None, **more: object) -> Rows:
    """Return one pooled row; the seeds' own rates stand beside it."""
    hit, n = sum(hits), sum(counts)
    low, high = clopper_pearson(hit, n)
    rates = [round(a / b, 3) for a, b in zip(hits, counts, strict=True)]
    found: dict[str, Any] = {"bar": bar, "copied": round(hit / n, 4), "ci": [round(low, 4), round(high, 4)], "n": n}
    theory = None if theory is None else round(theory, 4)
    return [{**found, "seeds": len(hits), "rates": rates, "wanted": wanted, "theory": theory, **more}]


def alone(rows: int, images: float) -> float:
    return (1 - 1 / rows) ** (images - 1)


def run_of(root: Path, seed: int, **sections: dict[str, Any]) -> dict[str, Any]:
    """Run a federation of one hospital and return the attack's row of its summary."""
    base: dict[str, dict[str, Any]] = {
        "task": {"root": str(root / HAM), "image_size": 64},
        "hospitals": {"partition": "iid", "count": 1},
        "training": {"rounds": 1, "batch_size": None},
        "adversary": {"placement": "malicious_server", "public_images": PUBLIC, "targets": 8, "decoys": 19},
    }
    content = {name: {**base.get(name, {}), **sections.get(name, {})} for name in {*base, *sections}}
    experiment = Experiment.model_validate({**content, "seed": seed})
    with tempfile.TemporaryDirectory() as folder:
        return simulate(experiment, Path(folder) / "run", report=False).summary["attacks"][0]


def fedsgd(name: str, root: Path, seeds: range, batch: int, rows: int, wanted: float) -> Rows:
    found = [
        run_of(root, seed, hospitals={"max_records": batch}, adversary={"imprint": {"rows": rows}}) for seed in seeds
    ]
    counts = [one["targets"] for one in found]
    hits = [round(one["recovered"] * one["targets"]) for one in found]
    null = max(one["null_recovered"] for one in found)
    return row(name, hits, counts, wanted, alone(rows, batch), null=null)


def fedavg(name: str, root: Path, seeds: range, epochs: int) -> Rows:
    """32 images at 32x32 in minibatches of 8 expected, 256 rows; targets are the images that were drawn at all."""
    training = {
        "local_steps": 4 * epochs,
        "batch_size": 8,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "server_optimizer": "average",
        "flips": 0.0,
    }
    found = [
        run_of(
            root,
            seed,
            task={"image_size": 32},
            hospitals={"max_records": 32},
            training=training,
            adversary={"imprint": {"rows": 256}},
        )
        for seed in seeds
    ]
    hits = [round(one["recovered"] * one["targets"]) for one in found]
    null = max(one["null_recovered"] for one in found)
    return row(name, hits, [one["targets"] for one in found], 0.70, alone(256, 32), null=null, epochs=epochs)


def ct_slices(name: str, root: Path, seeds: range) -> Rows:
    """U-Net on axial slices of CT scans, 32 slices in expectation, 512 rows; public slices of other scans."""
    hits, counts, nulls, near = [], [], [], []
    for seed in seeds:
        one = run_of(
            root,
            seed,
            task={"name": "msd_liver", "root": str(root / LIVER), "image_size": 64, "slices": True, "width": 8},
            hospitals={"max_records": 150},
            privacy={"unit": "image"},
            training={"batch_size": 32, "flips": 0.0},
            adversary={"imprint": {"rows": 512}},
        )
        hits.append(round(one["recovered"] * one["targets"]))
        counts.append(one["targets"])
        nulls.append(one["null_recovered"])
        near.append(one["public_data"])
    return row(name, hits, counts, 0.85, alone(512, 32), null=max(nulls), public_data=near[0], batches=counts)


def ham(root: Path, seed: int, images: int, side: int) -> tuple[Setup, NDArray[np.uint8], NDArray[np.int64]]:
    """Return a setup and so many of its images with their labels."""
    content = {
        "task": {"root": str(root / HAM), "image_size": side},
        "hospitals": {"partition": "iid", "count": 1, "max_records": images},
        "adversary": {"placement": "malicious_server", "public_images": PUBLIC},
        "seed": seed,
    }
    setup = prepare(Experiment.model_validate(content))
    records = setup.deal.hospitals[0].records
    return setup, records.pixels(), records.labels


def summed(name: str, root: Path, seeds: range, *, own: bool, rows: int, wanted: float) -> Rows:
    """The sum of 20 hospitals of 16 images at 32x32, with rows for every hospital or with shared ones."""
    hospitals, each, hits, counts = 20, 16, [], []
    for seed in seeds:
        setup, images, labels = ham(root, seed, hospitals * each, 32)
        images, public = images[: hospitals * each], make_pools(setup).public
        imprint = Imprint(ImprintSettings(rows=rows, per_hospital=own))
        agreed = {key: value.numpy() for key, value in initial_weights(setup.task.spec, seed).items()}
        total = {WEIGHT: np.zeros(0), BIAS: np.zeros(0)}
        for index in range(hospitals):
            spec, weights = imprint.plant(setup.task.spec, agreed, public, Addressee(f"h{index}", index, hospitals))
            own_images = slice(index * each, (index + 1) * each)
            sent = gradient(setup, spec, weights, images[own_images], labels[own_images], None)
            total = {key: value + (total[key] if index else 0.0) for key, value in sent.items()}
        spec, weights = imprint.plant(setup.task.spec, agreed, public, Addressee(count=hospitals))
        terms = terms_of_sum([PublicTerms(None, 0.0, 1.0, 1, each, 0.0)] * hospitals)
        trace = Trace.of(Observation(1, "the sum", spec, weights, total, terms))
        mean = (public.images.astype(np.float64).mean(axis=0) / 255).astype(np.float32)
        copied = pair(images, imprint.reconstruct(trace, public).images, mean).ssim > 0.9
        hits.append(int(copied.sum()))
        counts.append(len(images))
    theory = alone(rows, each if own else hospitals * each)
    return row(name, hits, counts, wanted, theory, rows=rows)


def gradient(
    setup: Setup, spec: Any, weights: Any, images: NDArray[np.uint8], labels: NDArray[np.int64], clip: float | None
) -> dict[str, NDArray[np.float64]]:
    """Return the block's part of a hospital's gradient sum."""
    hospital = engine(spec, setup.task.loss)
    hospital.load({key: torch.tensor(np.asarray(value)) for key, value in weights.items()})
    chosen, targets = torch.from_numpy(images), torch.from_numpy(labels)
    total = (
        hospital.plain_sum(chosen, targets)
        if clip is None
        else hospital.clipped_sum(chosen, targets, torch.arange(len(images)), clip)
    )
    found = hospital.by_name(total)
    return {key: found[key].numpy() for key in (WEIGHT, BIAS)}


def shares(name: str, root: Path, seeds: range) -> Rows:
    """What is copied when the block takes a share of the energy: plain, clipped, and at the noise of epsilon 1e9."""
    from clients.planning import calibrated

    noise = calibrated(1e9, 1e-5, 1.0, 1)
    out: Rows = []
    for share in (1.0, 0.5, 0.1, 0.01):
        hits: dict[tuple[float | None, float], list[int]] = {(None, 0.0): [], (1.0, 0.0): [], (1.0, noise): []}
        counts: list[int] = []
        for seed in seeds:
            setup, images, labels = ham(root, seed, 64, 64)
            public = make_pools(setup).public
            imprint = Imprint(ImprintSettings(rows=512, share=share))
            agreed = {key: value.numpy() for key, value in initial_weights(setup.task.spec, seed).items()}
            spec, weights = imprint.plant(setup.task.spec, agreed, public)
            counts.append(len(images))
            mean = (public.images.astype(np.float64).mean(axis=0) / 255).astype(np.float32)
            for (clip, s), into in hits.items():
                sent = gradient(setup, spec, weights, images, labels, clip)
                rng = np.random.default_rng([seed, 5])
                sent = {key: value + s * rng.standard_normal(value.shape) for key, value in sent.items()}
                terms = PublicTerms(clip, s, 1.0, 1, len(images), 0.0)
                trace = Trace.of(Observation(1, "h", spec, weights, sent, terms))
                into.append(int((pair(images, imprint.reconstruct(trace, public).images, mean).ssim > 0.9).sum()))
        for (clip, s), into in hits.items():
            how = "plain" if clip is None else "clipped" if s == 0 else f"clipped, noise {s:.3g}"
            out += row(name, into, counts, 0.0, alone(512, 64), share=share, how=how)
    return out


def memory(name: str, root: Path, seeds: range) -> Rows:
    """Peak memory of a one-round run at 224 pixels and 1,024 rows, in a process of its own."""
    del seeds
    command = [sys.executable, __file__, str(root), "--bars", "memory_child", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [{"bar": name, "wanted_gib": 8.0, **json.loads(done.stdout.splitlines()[-1])}]


def memory_child(name: str, root: Path, seeds: range) -> Rows:
    """The run itself: clipped and noised, so that the attack reads every row."""
    del seeds
    one = run_of(
        root,
        0,
        task={"image_size": 224, "width": 16},
        hospitals={"max_records": 16},
        privacy={"mechanism": "local", "epsilon": 1e9, "delta": 1e-5},
        adversary={"imprint": {"rows": 1024}, "public_images": 800},
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return [{"bar": name, "peak_gib": round(peak, 2), "copied": one["recovered"], "n": one["targets"]}]


BARS: Mapping[str, Callable[[str, Path, range], Rows]] = {
    "fedsgd64": lambda n, root, seeds: fedsgd(n, root, seeds, 64, 512, 0.80),
    "fedsgd8": lambda n, root, seeds: fedsgd(n, root, seeds, 8, 128, 0.95),
    "ct_slices": ct_slices,
    "fedavg1": lambda n, root, seeds: fedavg(n, root, seeds, 1),
    "fedavg5": lambda n, root, seeds: fedavg(n, root, seeds, 5),
    "fedavg20": lambda n, root, seeds: fedavg(n, root, seeds, 20),
    "secure_sum_own": lambda n, root, seeds: summed(n, root, seeds, own=True, rows=128, wanted=0.85),
    "secure_sum_shared": lambda n, root, seeds: summed(n, root, seeds, own=False, rows=512, wanted=0.0),
    "shares": shares,
    "memory": memory,
    "memory_child": memory_child,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder with ham10000 and msd_liver")
    parser.add_argument("--bars", nargs="+", choices=BARS, default=[bar for bar in BARS if bar != "memory_child"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=10, help="the first seed")
    parser.add_argument("--json", action="store_true", help="print JSON rows only")
    options = parser.parse_args()
    with threadpool_limits(limits=1):
        for bar in options.bars:
            for found in BARS[bar](bar, options.root, range(options.first, options.first + options.seeds)):
                print(json.dumps(found) if options.json else found, flush=True)


if __name__ == "__main__":
    main()
