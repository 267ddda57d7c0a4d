"""The noise on the aggregate of each mechanism, read off the server's serialised state, against the formulas.

Two runs of one seed draw the same images and start from the same weights, and never share noise (another delta makes
another run). So the difference of their first steps is the difference of two noises, and everything else cancels.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs import Experiment
from privacy import Ledger
from server.checkpoints import read_arrays
from simulation.run import Run, simulate

Make = Callable[..., Experiment]
CLIP, NOISE, BATCH, HOSPITALS = 0.7, 1.3, 48.0, 4
WITHIN = 0.02

# (mechanism and its settings, the formula: std per coordinate on the mean gradient, or on the mean update)
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "pooled": ({"mechanism": "pooled"}, {}, NOISE * CLIP / BATCH),
    "local": ({"mechanism": "local"}, {}, CLIP * math.sqrt(HOSPITALS) * NOISE / BATCH),
    # t = 1 colluder by default: shares s C / sqrt(H - 1), of which H are in the sum
    "distributed": (
        {"mechanism": "distributed"},
        {"secure_sum": True},
        NOISE * CLIP / BATCH * math.sqrt(HOSPITALS / (HOSPITALS - 1)),
    ),
    "distributed, nobody colludes": (
        {"mechanism": "distributed", "colluders": 0},
        {"secure_sum": True},
        NOISE * CLIP / BATCH,
    ),
    "distributed, a dropout allowed": (
        {"mechanism": "distributed", "dropouts": 1},
        {"secure_sum": True},
        NOISE * CLIP / BATCH * math.sqrt(HOSPITALS / (HOSPITALS - 2)),
    ),
    "central": ({"mechanism": "central", "update_norm": 0.3}, {}, NOISE * 0.3 / HOSPITALS),
    "noise_only": ({"mechanism": "noise_only"}, {}, NOISE * CLIP * math.sqrt(HOSPITALS) / BATCH),
}


def first_step(run: Run) -> np.ndarray:
    """The flat float64 weights after the first round, as the server wrote them."""
    arrays, _ = read_arrays(run.folder / "checkpoints" / "latest.safetensors")
    return arrays["weights"].astype(np.float64)


def experiment(small: Make, privacy: dict[str, Any], training: dict[str, Any], delta: float) -> Experiment:
    return small(
        task={"root": "phantom", "image_size": 16, "width": 8, "phantom_images": 240},
        hospitals={"partition": "iid", "count": HOSPITALS},
        training={
            "rounds": 1,
            "batch_size": BATCH,
            "server_optimizer": "average",
            "learning_rate": 1.0,
            "evaluate_every": 1,
            **training,
        },
        privacy={"clipping_norm": CLIP, "delta": delta, **privacy},
    )


def difference(small: Make, tmp_path: Path, privacy: dict[str, Any], training: dict[str, Any]) -> np.ndarray:
    steps = [
        first_step(simulate(experiment(small, privacy, training, delta), tmp_path / str(delta), report=False))
        for delta in (1e-3, 1.1e-3)
    ]
    return steps[0] - steps[1]


@pytest.mark.parametrize("case", CASES)
def test_the_noise_on_the_aggregate_is_the_formulas(small: Make, tmp_path: Path, case: str) -> None:
    privacy, training, expected = CASES[case]
    apart = difference(small, tmp_path, {"noise_multiplier": NOISE, **privacy}, training)
    assert len(apart) > 30_000  # the standard deviation is then known to .4 %
    measured = float(np.sqrt(np.mean(apart**2) / 2))
    assert measured == pytest.approx(expected, rel=WITHIN)
    # Gaussian, and one noise per coordinate: no value is shared by two of them
    assert np.mean(apart**4) / np.mean(apart**2) ** 2 == pytest.approx(3.0, rel=0.1)
    assert len(np.unique(apart)) == len(apart)


@pytest.mark.parametrize("mechanism", ["none", "clip_only"])
def test_no_noise_where_none_is_said(small: Make, tmp_path: Path, mechanism: str) -> None:
    assert not difference(small, tmp_path, {"mechanism": mechanism}, {}).any()


def test_alone_has_its_own_noise_on_its_own_batch(small: Make, tmp_path: Path) -> None:
    alike = {"mechanism": "alone", "noise_multiplier": NOISE}
    runs: list[Run] = []
    for delta in (1e-3, 1.1e-3):
        made = experiment(small, {"mechanism": "local", "noise_multiplier": NOISE}, {}, delta)
        content = made.model_dump(mode="json")
        content["hospitals"]["only"] = "hospital-02"
        content["privacy"] |= alike
        runs.append(simulate(Experiment.model_validate(content), tmp_path / str(delta), report=False))
    apart = first_step(runs[0]) - first_step(runs[1])
    (row,) = runs[0].summary["hospitals"]
    assert row["name"] == "hospital-02"
    # The sample rate is the federation's, of its whole batch over all units, so the batch is the hospital's share.
    training_units = 240 - runs[0].summary["heldout"]
    assert row["sample_rate"] == pytest.approx(BATCH / training_units)
    measured = float(np.sqrt(np.mean(apart**2) / 2))
    assert measured == pytest.approx(NOISE * CLIP / (row["sample_rate"] * row["units"]), rel=WITHIN)


def test_unequal_hospitals_with_equal_batches_add_the_noise_each_needs(small: Make, tmp_path: Path) -> None:
    """At one budget a small hospital with a larger sample rate needs more noise; the squares add."""
    found: list[Run] = []
    for delta in (1e-3, 1.0001e-3):
        made = experiment(small, {"mechanism": "local", "epsilon": 5.0}, {"batch": "equal"}, delta)
        made = made.updated(hospitals={"partition": "size", "count": HOSPITALS, "alpha": 3.0, "min_units": 20})
        found.append(simulate(made, tmp_path / str(delta), report=False))
    spends = [Ledger.open(found[0].folder / row["ledger"]).spends()[0] for row in found[0].summary["hospitals"]]
    noises = [spend.noise_multiplier for spend in spends]
    assert max(noises) > 1.1 * min(noises)
    rates = [spend.sample_rate for spend in spends]
    assert np.argmax(rates) == np.argmax(noises)
    apart = first_step(found[0]) - first_step(found[1])
    measured = float(np.sqrt(np.mean(apart**2) / 2))
    assert measured == pytest.approx(CLIP * math.sqrt(sum(s**2 for s in noises)) / BATCH, rel=WITHIN)


def test_distributed_takes_the_noise_of_whoever_needs_most(small: Make, tmp_path: Path) -> None:
    made = experiment(small, {"mechanism": "distributed", "epsilon": 5.0}, {"batch": "equal", "secure_sum": True}, 1e-3)
    made = made.updated(hospitals={"partition": "size", "count": HOSPITALS, "alpha": 3.0, "min_units": 20})
    run = simulate(made, tmp_path / "run", report=False)
    rows = run.summary["hospitals"]
    assert len({row["noise_multiplier"] for row in rows}) == 1
    assert len({row["sample_rate"] for row in rows}) > 1
    claimed = [row["epsilon"]["upper"] for row in rows]
    assert max(claimed) == pytest.approx(5.0, rel=1e-3)
    assert max(claimed) <= 5.0
    assert min(claimed) < 4.9  # the others are safer than asked
    for row in rows:  # what the ledger says is the sum's protection, not the share's
        assert Ledger.open(run.folder / row["ledger"]).spends()[0].noise_multiplier == row["noise_multiplier"]
        assert row["noise_added"] == pytest.approx(row["noise_multiplier"] / math.sqrt(HOSPITALS - 1))
