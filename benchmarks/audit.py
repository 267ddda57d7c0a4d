"""Power of the audit: how often each planted fault refutes the claim, and how often honest code does.

    python benchmarks/audit.py [--json] [--seeds 10] [--quick]

One row per setting and fault: of so many seeds, how many each test refuted, and the largest and the median bounds.
Faults are patched into the hospital's code here; no configuration can plant them.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from statistics import median
from unittest import mock

import numpy as np

from clients import local
from clients.gradients import GradientEngine
from clients.planning import Plan, calibrated
from configs.sections import TrainingSettings
from simulation.auditing import TESTS, Audit, audit_plan

DELTA = 1e-5
# epsilon, sample rate, steps, canaries
GRID = [
    *((epsilon, 1.0, 1, 4000) for epsilon in (1.0, 2.0, 4.0, 8.0)),
    *((epsilon, 0.1, 50, 4000) for epsilon in (1.0, 4.0, 8.0)),
    *((epsilon, 0.02, 100, 4000) for epsilon in (1.0, 2.0, 4.0, 8.0)),
    *((epsilon, 1.0, 1, 20000) for epsilon in (1.0, 2.0)),
    (32.0, 0.1, 50, 4000),
]
QUICK = GRID[7:11:3]

noisy_sum, draws_of_round = local.noisy_sum, local.draws_of_round


def halved_noise(engine, records, drawn, plan, seed):
    return noisy_sum(engine, records, drawn, replace(plan, added=plan.added / 2), seed)


def forgotten_on_empty(engine, records, drawn, plan, seed):
    silent = replace(plan, added=0.0) if len(drawn.rows) == 0 else plan
    return noisy_sum(engine, records, drawn, silent, seed)


def clipped_per_batch(engine, images, labels, groups, clipping_norm):
    """Clip the mean gradient of the batch instead of each unit's."""
    total = engine.plain_sum(images, labels)
    units = len(groups.unique())
    return total * min(1.0, clipping_norm * units / max(float(total.norm()), 1e-300))


def without_replacement(root, plan, training, round_number, unit_rows, *, whole, size) -> Iterator[local.Draw]:
    """Draw exactly q n units."""
    everything = replace(plan, sample_rate=1.0)
    for drawn in draws_of_round(root, everything, training, round_number, unit_rows, whole=whole, size=size):
        keep = round(plan.sample_rate * len(unit_rows))
        rng = np.random.default_rng([round_number, len(root)])
        chosen = np.sort(rng.choice(len(drawn.units), size=keep, replace=False))
        views = np.isin(drawn.groups, chosen)
        groups = np.searchsorted(chosen, drawn.groups[views])
        yield replace(
            drawn, units=drawn.units[chosen], rows=drawn.rows[views], groups=groups, views=drawn.views.take(views)
        )


FAULTS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "none": nullcontext,
    "noise halved": lambda: mock.patch.object(local, "noisy_sum", halved_noise),
    "clipped per batch": lambda: mock.patch.object(GradientEngine, "clipped_sum", clipped_per_batch),
    "without replacement": lambda: mock.patch.object(local, "draws_of_round", without_replacement),
    "no noise on empty batches": lambda: mock.patch.object(local, "noisy_sum", forgotten_on_empty),
}


def row(fault: str, epsilon: float, rate: float, steps: int, canaries: int, found: list[Audit]) -> dict[str, object]:
    level = (1.0 - found[0].confidence) / TESTS
    claim = found[0].claimed.upper
    return {
        "fault": fault,
        "epsilon": epsilon,
        "sample_rate": rate,
        "steps": steps,
        "canaries": canaries,
        "seeds": len(found),
        "refuted": sum(bool(a.refuted) for a in found),
        "by_one_run": sum(a.one_run_epsilon > claim for a in found),
        "by_curve": sum(a.curve_epsilon > claim for a in found),
        "by_dispersion": sum(a.dispersion_p <= level for a in found),
        "by_noise": sum(a.noise_p <= level for a in found),
        "one_run_median": round(median(a.one_run_epsilon for a in found), 3),
        "one_run_max": round(max(a.one_run_epsilon for a in found), 3),
        "curve_median": round(median(a.curve_epsilon for a in found), 3),
        "curve_max": round(max(a.curve_epsilon for a in found), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON rows only")
    parser.add_argument("--quick", action="store_true", help="two settings")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=100, help="the first seed")
    options = parser.parse_args()
    rows = []
    for epsilon, rate, steps, canaries in QUICK if options.quick else GRID:
        noise = calibrated(epsilon, DELTA, rate, steps)
        plan = Plan("x", 1000, 1000, rate, rate * 1000, 1.0, noise, noise, steps, True)
        for fault, patch in FAULTS.items():
            if canaries > 4000 and fault not in ("none", "noise halved"):
                continue
            start = time.perf_counter()
            with ExitStack() as planted:
                planted.enter_context(patch())
                found = [
                    audit_plan(plan, TrainingSettings(), delta=DELTA, canaries=canaries, seed=seed)
                    for seed in range(options.first, options.first + options.seeds)
                ]
            rows.append(row(fault, epsilon, rate, steps, canaries, found))
            if not options.json:
                print({**rows[-1], "seconds": round(time.perf_counter() - start, 1)}, flush=True)
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
