"""Which recipe is worth having under differential privacy, on HAM10000 (binary) through the product's own runs.

    python benchmarks/recipes.py --data /path/to/data [--json] [--quick] [--arms pooled-8 local-8 ...]
        [--seeds 10 11 100] [--holdout validation]

Every arm is `configs/ham10000_budgets_base.yaml` with the changes that the table names; nothing is shared between arms
but the features of the images, which are remembered within the process. AUROC on the 1,002 test images, mean over the
seeds; the interval is a bootstrap over lesions and seeds together (percentiles of 500 draws), so it holds both the luck
of the test images and that of noise and sampling. `--quick` takes one seed of the arms in QUICK.

Arms ending in -1 or -8 are at that epsilon (delta 1e-5, unit image, exact accounting); -none is without privacy.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from configs import Experiment, load
from simulation.predictions import read_predictions
from simulation.run import simulate
from tasks.metrics import Classified

BASE = "ham10000_budgets_base"
SEEDS = (10, 11, 100)
RESAMPLES = 500
EPS8, EPS1 = {"privacy.epsilon": 8}, {"privacy.epsilon": 1}
FULL = {"training.batch_size": None}
NADAM = {"training.server_optimizer": "nadam", "training.learning_rate": 0.05}
FEDAVG = {"training.local_steps": 5, "training.rounds": 20}
RESNET = {
    "task.model": "resnet9",
    "training.server_optimizer": "nadam",
    "training.learning_rate": 2e-3,
    "training.rounds": 70,
    "privacy.clipping_norm": 1.0,
}
POOLED: dict[str, Any] = {"privacy.mechanism": "pooled"}
# name: what differs from the base
ARMS: dict[str, dict[str, Any]] = {
    "none-none": {"privacy.mechanism": "none"},
    "pooled-none": {**POOLED, "privacy.epsilon": "none"},
    "longer-none": {**POOLED, "privacy.epsilon": "none", "training.rounds": 300, "training.learning_rate": 200},
    "pooled-1000": {**POOLED, "privacy.epsilon": 1000},
    "pooled-8": {**POOLED, **EPS8},
    "pooled-1": {**POOLED, **EPS1},
    "distributed-8": {"privacy.mechanism": "distributed", "training.secure_sum": True, **EPS8},
    "local-8": {"privacy.mechanism": "local", **EPS8},
    "distributed-1": {"privacy.mechanism": "distributed", "training.secure_sum": True, **EPS1},
    "local-1": {"privacy.mechanism": "local", **EPS1},
    "full-batch-8": {**POOLED, **EPS8, **FULL, "training.learning_rate": 150},
    "full-batch-1": {**POOLED, **EPS1, **FULL, "training.learning_rate": 30},
    "batch-512-8": {**POOLED, **EPS8, "training.batch_size": 512},
    "clip-1-8": {**POOLED, **EPS8, "privacy.clipping_norm": 1.0},
    "clip-1-1": {**POOLED, **EPS1, "privacy.clipping_norm": 1.0},
    "clip-.25-8": {**POOLED, **EPS8, "privacy.clipping_norm": 0.25, "training.learning_rate": 120},
    "no-average-8": {**POOLED, **EPS8, "training.averaging": 0.0},
    "no-average-1": {**POOLED, **EPS1, "training.averaging": 0.0},
    "rate-150-8": {**POOLED, **EPS8, "training.learning_rate": 150},
    "rate-20-1": {**POOLED, **EPS1, "training.learning_rate": 20},
    "nadam-8": {**POOLED, **EPS8, **NADAM},
    "views-4-8": {**POOLED, **EPS8, "training.views": 4},
    "fedavg-local-8": {"privacy.mechanism": "local", **EPS8, **FEDAVG},
    "scattering-1": {
        **POOLED,
        **EPS1,
        "task.model": "scattering",
        "training.rounds": 70,
        "training.server_optimizer": "nadam",
        "training.learning_rate": 1e-2,
        "privacy.clipping_norm": 1.0,
    },
    "resnet9-8": {**POOLED, **EPS8, **RESNET},
}
QUICK = ("pooled-none", "pooled-8", "pooled-1", "distributed-8")


@final
@dataclass(frozen=True)
class Row:
    """One arm.

    Attributes:
        arm: its name in ARMS.
        auroc: mean over seeds.
        low, high: 95 % interval.
        seeds: AUROC of each seed.
        images, lesions: in the test part.
        epsilon: upper end of the exact price, the worst-off hospital's; None without privacy.
        noise_multiplier: the largest.
        seconds: of all seeds together.
    """

    arm: str
    auroc: float
    low: float
    high: float
    seeds: tuple[float, ...]
    images: int
    lesions: int
    epsilon: float | None
    noise_multiplier: float | None
    seconds: float


def auroc(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> float:
    """Return the area under the ROC curve from ranks; ties count half."""
    positive = labels == 1
    wins = rankdata(scores)[positive].sum() - positive.sum() * (positive.sum() + 1) / 2
    return float(wins / (positive.sum() * (~positive).sum()))


def interval(labels: NDArray[np.int64], units: NDArray[np.int64], scores: list[NDArray[np.float64]]) -> NDArray[Any]:
    """Return the 95 % interval of the mean AUROC over seeds, by drawing lesions and seeds with replacement."""
    rng = np.random.default_rng(0)
    _, inverse = np.unique(units, return_inverse=True)
    rows = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
    drawn = []
    for _ in range(RESAMPLES):
        picked = np.concatenate([rows[k] for k in rng.integers(len(rows), size=len(rows))])
        seeds = rng.integers(len(scores), size=len(scores))
        drawn.append(np.mean([auroc(labels[picked], scores[s][picked]) for s in seeds]))
    return np.quantile(drawn, [0.025, 0.975])


def measure(arm: str, root: Path, seeds: tuple[int, ...], changes: dict[str, Any] | None = None) -> Row:
    """Run one arm with every seed."""
    started = time.monotonic()
    scores: list[NDArray[np.float64]] = []
    labels = units = np.zeros(0, dtype=np.int64)
    summary: dict[str, Any] = {}
    for seed in seeds:
        fixed = {"task.root": str(root / "ham10000"), "runtime.engine": "inline", "seed": seed}
        settings = {**ARMS.get(arm, {}), **(changes or {}), **fixed, "training.evaluate_every": 1000}
        experiment = load(BASE, [f"{key}={json.dumps(value)}" for key, value in settings.items()])
        assert isinstance(experiment, Experiment)
        with tempfile.TemporaryDirectory() as folder:
            run = simulate(experiment, Path(folder) / "run", report=False)
            summary = run.summary
            found = read_predictions(run.folder)
            assert isinstance(found.judged, Classified)
            scores.append(found.judged.logits[:, -1])
            labels, units = found.labels, found.units
    each = tuple(auroc(labels, s) for s in scores)
    low, high = interval(labels, units, scores)
    priced = [h for h in summary["hospitals"] if h["epsilon"] is not None]
    return Row(
        arm=arm,
        auroc=float(np.mean(each)),
        low=float(low),
        high=float(high),
        seeds=each,
        images=len(labels),
        lesions=len(np.unique(units)),
        epsilon=max((h["epsilon"]["upper"] for h in priced), default=None),
        noise_multiplier=max((h["noise_multiplier"] for h in priced), default=None),
        seconds=time.monotonic() - started,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("FEDWARD_DATA"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=None)
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--holdout", choices=("test", "validation"), default="test")
    options = parser.parse_args()
    if options.data is None or not (Path(options.data) / "ham10000").is_dir():
        print("recipes: needs HAM10000; give --data or FEDWARD_DATA")
        return
    seeds = (options.seeds[0],) if options.quick else tuple(options.seeds)
    rows: list[Row] = []
    for arm in options.arms or (QUICK if options.quick else ARMS):
        rows.append(measure(arm, Path(options.data), seeds, {"task.holdout": options.holdout}))
        if not options.json:
            row = rows[-1]
            paid = "no privacy" if row.epsilon is None else f"epsilon {row.epsilon:.4g}, s {row.noise_multiplier:.3g}"
            each = " ".join(f"{value:.4f}" for value in row.seeds)
            print(
                f"{arm:16} {row.auroc:.4f} [{row.low:.4f}, {row.high:.4f}] ({each}) {paid}; {row.seconds:.0f} s",
                flush=True,
            )
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
