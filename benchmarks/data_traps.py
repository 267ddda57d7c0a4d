"""Data traps through the whole federation: what the final model alone gives away, over local epochs and optimisers.

    python benchmarks/data_traps.py --data /path/to/data [--json] [--arms fedavg-1 fedsgd ...] [--seeds 5] [--rows 256]

HAM10000, 4 hospitals of 64 images each, 5 rounds, expected batch 16 at each hospital, no noise, public images of other
lesions. One row per arm: of so many images that were drawn in any round, how many the final model minus the planted
one copies (SSIM > .9 after one-to-one pairing), with the exact interval over all seeds' images together, and the
lowest and highest share of a seed.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from configs import Experiment
from simulation.run import simulate
from simulation.scoring.exact_tests import clopper_pearson

HOSPITALS, IMAGES, BATCH, ROUNDS = 4, 64, 16, 5
EPOCH = IMAGES // BATCH
FEDAVG = {"server_optimizer": "average", "optimizer": "sgd", "learning_rate": 0.01}
ARMS: dict[str, dict[str, Any]] = {
    "fedavg-1": {"training": {**FEDAVG, "local_steps": EPOCH}},
    "fedavg-5": {"training": {**FEDAVG, "local_steps": 5 * EPOCH}},
    "fedavg-20": {"training": {**FEDAVG, "local_steps": 20 * EPOCH}},
    "fedavg-1-64px": {"task": {"image_size": 64}, "training": {**FEDAVG, "local_steps": EPOCH}},
    "fedavg-20-64px": {"task": {"image_size": 64}, "training": {**FEDAVG, "local_steps": 20 * EPOCH}},
    "fedprox-5": {"training": {**FEDAVG, "local_steps": 5 * EPOCH, "proximal": 0.1}},
    "fedsgd": {"training": {**FEDAVG, "local_steps": 1, "learning_rate": 0.05}},
    "clipped": {
        "training": {**FEDAVG, "local_steps": EPOCH},
        "privacy": {"mechanism": "clip_only", "clipping_norm": 1.0},
    },
    "vetting": {"training": {**FEDAVG, "local_steps": EPOCH}, "hospitals": {"vetting": "refuse"}},
    "local-adam": {"training": {**FEDAVG, "local_steps": EPOCH, "optimizer": "adam", "learning_rate": 1e-3}},
    "server-nadam": {"training": {"server_optimizer": "nadam", "local_steps": 1, "learning_rate": 2e-3}},
    "dp-1e9": {
        "training": {**FEDAVG, "local_steps": EPOCH},
        "privacy": {"mechanism": "local", "epsilon": 1e9, "clipping_norm": 1.0},
    },
}


def experiment(root: Path, arm: str, rows: int, seed: int) -> Experiment:
    """Return the settings of one run."""
    content: dict[str, dict[str, Any]] = {
        "task": {"root": str(root / "ham10000"), "image_size": 32, "width": 4},
        "hospitals": {"partition": "iid", "count": HOSPITALS, "max_records": IMAGES},
        "training": {"rounds": ROUNDS, "batch_size": HOSPITALS * BATCH, "evaluate_every": ROUNDS},
        "adversary": {
            "placement": "release",
            "attacks": ["data_traps"],
            "public_images": 1000,
            "decoys": 19,
            "targets": 32,
            "data_traps": {"rows": rows},
        },
    }
    for section, values in ARMS[arm].items():
        content[section] = {**content.get(section, {}), **values}
    return Experiment.model_validate({**content, "seed": seed})


def measure(root: Path, arm: str, rows: int, seeds: range) -> dict[str, object]:
    """Return an arm's row."""
    start, found, why = time.perf_counter(), [], ""
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            try:
                run = simulate(experiment(root, arm, rows, seed), Path(folder) / "run", report=False)
            except Exception as error:  # a run that was refused is a result
                why = str(error)
                continue
            found.append(run.summary["attacks"][0])
    images = sum(row["targets"] for row in found)
    copied = sum(round(row["recovered"] * row["targets"]) for row in found)
    shares = [row["recovered"] for row in found]
    return {
        "arm": arm,
        "rows": rows,
        "seeds": len(found),
        "images": images,
        "copied": copied,
        "share": round(copied / images, 4) if images else None,
        "interval": [round(x, 4) for x in clopper_pearson(copied, images)] if images else None,
        "seeds_lowest_highest": [round(min(shares), 4), round(max(shares), 4)] if shares else None,
        "null": max((row["null_recovered"] for row in found), default=None),
        "rank1_of_20": round(sum(row["rank1"] for row in found) / len(found), 4) if found else None,
        "readout": found[-1]["readout"] if found else why,
        "seconds": round(time.perf_counter() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds ham10000/")
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--json", action="store_true", help="print JSON rows only")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    seeds = range(options.first, options.first + options.seeds)
    for arm in options.arms:
        rows.append(measure(options.data, arm, options.rows, seeds))
        if not options.json:
            print(rows[-1], flush=True)
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
