"""Candidate matching beside its bound: simulated filters, live federations in the worst case, real images in a batch.

    python benchmarks/candidates.py [--json] [--part filter|live|batch] [--runs 10]

filter: orthogonal gradients of norm C among N candidates, the filter alone, 20,000 trials a row.
live: a federation of phantoms whose hospitals are sent a wide block in which nearly every candidate falls into a row of
its own; the adversary of the bound is handed everything else. q = 1, one round, epsilon 8 at delta 1e-5.
batch: HAM10000 at 64x64 (FEDWARD_DATA), 64 images in one release without noise, clipped or not, labels unknown, 300
public images of other lesions: how often each is first among 95 others. Nothing is planted.
"""

import argparse
import csv
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from clients.planning import calibrated
from configs import Experiment
from privacy import reconstruction_bound
from server.adversary.base import Candidates, Observation, PublicData, PublicTerms, Trace
from server.adversary.candidates import CandidateMatching, participation
from server.adversary.candidates_gradients import ImageGradients
from simulation.run import simulate
from simulation.scoring.exact_tests import clopper_pearson
from tasks.models import ModelSpec, initial_weights

DELTA = 1e-5
TRIALS = 20_000
# epsilon, sample rate, steps, candidates
GRID = [
    *((epsilon, 1.0, 1, n) for epsilon in (1.0, 8.0, 20.0) for n in (20, 100, 1000)),
    *((8.0, 0.1, 50, n) for n in (20, 100, 1000)),
]


def compared(hits: int, n: int, bound: float) -> dict[str, object]:
    low, high = clopper_pearson(hits, n)
    return {
        "n": n,
        "rate": round(hits / n, 4),
        "interval": [round(low, 4), round(high, 4)],
        "bound": round(bound, 4),
        "share_of_bound": round(hits / n / bound, 3),
    }


def filters() -> Iterator[dict[str, object]]:
    for epsilon, rate, steps, count in GRID:
        s = calibrated(epsilon, DELTA, rate, steps)
        rng = np.random.default_rng(0)
        hits = 0
        for _ in range(20):  # in parts: memory
            total = np.zeros((TRIALS // 20, count))
            for _ in range(steps):
                along = s * rng.standard_normal(total.shape)
                along[:, 0] += rng.random(len(total)) < rate
                total += participation(along / s**2, np.full(total.shape, 1 / s**2), times=1, rate=rate)
            hits += int(np.count_nonzero(total[:, 0] > total[:, 1:].max(axis=1)))
        bound = reconstruction_bound(
            noise_multiplier=s, sample_rate=rate, steps=steps, prior=1 / count, threat="worst_case"
        )
        settings = {"epsilon": epsilon, "sample_rate": rate, "steps": steps, "candidates": count}
        yield {"part": "filter", **settings, **compared(hits, TRIALS, bound)}


def live(runs: int) -> Iterator[dict[str, object]]:
    for decoys, targets in ((19, 40), (99, 8)):
        hits = ranked = 0
        bound, counts = 0.0, set()
        for seed in range(runs):
            experiment = Experiment.model_validate(
                {
                    "task": {"root": "phantom", "image_size": 16, "width": 2, "phantom_images": 300},
                    "training": {"rounds": 1, "batch_size": None, "flips": 0.0},
                    "privacy": {"mechanism": "local", "epsilon": 8.0, "delta": DELTA},
                    "adversary": {
                        "placement": "worst_case",
                        "attacks": ["imprint", "candidate_matching"],
                        "public_images": 1500,
                        "targets": targets,
                        "decoys": decoys,
                        "imprint": {"rows": 1024, "components": 20},
                    },
                    "seed": seed,
                }
            )
            with tempfile.TemporaryDirectory() as folder:
                found = simulate(experiment, Path(folder) / "run", report=False).summary["attacks"]
                for row in (row for row in found if row["attack"] == "candidate_matching" and row["ranked"]):
                    hits += round(row["success"] * row["ranked"])
                    ranked += row["ranked"]
                    bound += row["bound_worst_case"] * row["ranked"]
                    counts.add(row["decoys"] + 1)
        yield {"part": "live", "runs": runs, "candidates": sorted(counts), **compared(hits, ranked, bound / ranked)}


def batches(runs: int) -> Iterator[dict[str, object]]:
    root = Path(os.environ.get("FEDWARD_DATA", "/nonexistent")) / "ham10000"
    if not root.is_dir():
        yield {"part": "batch", "skipped": "FEDWARD_DATA names no folder with ham10000"}
        return
    images, labels = _real(root, 300 + 64 * runs + 1000)
    spec = ModelSpec("resnet9", (3, 64, 64), 1, 4)
    weights = {name: value.numpy() for name, value in initial_weights(spec, 0).items()}
    public, pool = PublicData(images[:300], "other lesions"), images[-1000:]
    for clip in (None, 1.0):
        start, hits = time.perf_counter(), 0
        terms = PublicTerms(clip, 0.0, 1.0, 1, 64.0, 0.0)
        silent = Observation(1, "x", spec, weights, {n: np.zeros(w.shape) for n, w in weights.items()}, terms)
        gradients = ImageGradients(silent)
        for run in range(runs):
            batch = slice(300 + 64 * run, 364 + 64 * run)
            own = gradients.known(images[batch], labels[batch])
            total = (own.rows.astype(np.float64) * own.factors).sum(axis=0)
            release, place = {}, 0
            for name in sorted(weights):
                size = weights[name].size
                release[name] = total[place : place + size].reshape(weights[name].shape)
                place += size
            trace = Trace.of(Observation(1, "x", spec, weights, release, terms))
            scores = CandidateMatching().informed(trace, public, Candidates(np.concatenate([images[batch], pool])))
            assert scores is not None
            rng = np.random.default_rng(run)
            hits += sum(bool(np.all(s > rng.choice(scores[64:], 95, replace=False))) for s in scores[:64])
        low, high = clopper_pearson(hits, 64 * runs)
        yield {
            "part": "batch",
            "clip": clip,
            "n": 64 * runs,
            "rate": round(hits / (64 * runs), 4),
            "interval": [round(low, 4), round(high, 4)],
            "chance": round(1 / 96, 4),
            "seconds_per_batch": round((time.perf_counter() - start) / runs, 1),
        }


def _real(root: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """One image of each of so many lesions, and whether it needs attention."""
    files = {path.stem: path for path in root.glob("*/*.jpg")}
    with (root / "HAM10000_metadata.csv").open() as file:
        rows = {row["lesion_id"]: row for row in csv.DictReader(file)}
    chosen = [rows[name] for name in np.random.default_rng(0).permutation(sorted(rows))[:count]]
    images = [np.asarray(Image.open(files[r["image_id"]]).convert("RGB").resize((64, 64))) for r in chosen]
    labels = np.array([r["dx"] in ("akiec", "bcc", "mel") for r in chosen]).astype(np.int64)
    return np.stack(images).transpose(0, 3, 1, 2).copy(), labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON rows only")
    parser.add_argument("--part", choices=("filter", "live", "batch"), help="one part only")
    parser.add_argument("--runs", type=int, default=10, help="federations and batches")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = {"filter": filters, "live": lambda: live(options.runs), "batch": lambda: batches(options.runs)}
    rows = []
    for name in [options.part] if options.part else parts:
        for row in parts[name]():
            rows.append(row)
            if not options.json:
                print(row, flush=True)
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
