"""Time of a DP-SGD step over a plain step of the same model and batch: arms interleaved, one thread, medians.

    python benchmarks/step.py [--json] [--pairs 7]

Rows: model, batch, engine, ratio_to_plain. `opacus_hooks` is what fedward's hospitals use now.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from clients.gradients import GradientEngine
from tasks.models import ModelSpec, build, normalise

CASES = {"resnet9": [(ModelSpec("resnet9", (3, 32, 32), 1, 16), 32), (ModelSpec("resnet9", (3, 32, 32), 1, 64), 16)]}


def seconds(step: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def measure(spec: ModelSpec, batch: int, pairs: int) -> dict[str, object]:
    """Return one row: the median over interleaved pairs of clipped time / plain time."""
    images = torch.randint(0, 256, (batch, *spec.shape), dtype=torch.uint8)
    labels = torch.randint(0, 2, (batch,))
    groups = torch.arange(batch)
    hooked = GradientEngine(build(spec), "binary" if spec.outputs == 1 else "categorical")
    stock = build(spec)

    def plain() -> None:
        stock.zero_grad()
        logits = stock(normalise(images))[:, 0]
        torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="sum").backward()

    def clipped() -> None:
        hooked.clipped_sum(images, labels, groups, 1.0)

    for warm in (plain, clipped):
        warm()
    ratios = [seconds(clipped) / seconds(plain) for _ in range(pairs)]
    return {
        "model": spec.kind,
        "width": spec.width,
        "batch": batch,
        "engine": "opacus_hooks",
        "ratio_to_plain": round(statistics.median(ratios), 2),
        "ratio_min": round(min(ratios), 2),
        "ratio_max": round(max(ratios), 2),
    }


def main() -> None:
    """Print one row per model and batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON rows only")
    parser.add_argument("--pairs", type=int, default=7, help="interleaved pairs per row")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [measure(spec, batch, options.pairs) for cases in CASES.values() for spec, batch in cases]
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
