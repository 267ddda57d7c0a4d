"""Every row of reference.csv: epsilon computed by two methods that share no code with the product."""

import csv
import functools
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import final

import pytest

import privacy
from tests.privacy.calls import price


@final
@dataclass(frozen=True, slots=True)
class Vector:
    """One row: the run, the true epsilon, and how far the two methods that found it differ (relative)."""

    s: float
    q: float
    t: int
    delta: float
    truth: float
    difference: float

    @property
    def name(self) -> str:
        return f"s{self.s:g}-q{self.q:g}-T{self.t}-delta{self.delta:g}"


def load() -> list[Vector]:
    lines = (Path(__file__).parent / "reference.csv").read_text().splitlines()
    return [
        Vector(
            float(row["noise_multiplier"]),
            float(row["sample_rate"]),
            int(row["steps"]),
            float(row["delta"]),
            float(row["epsilon"]),
            abs(float(row["first_epsilon"]) / float(row["second_epsilon"]) - 1),
        )
        for row in csv.DictReader(line for line in lines if not line.startswith("#"))
    ]


VECTORS = load()
EACH = pytest.mark.parametrize("row", VECTORS, ids=lambda row: row.name)
# Calibration prices about ten runs; the third of the rows still meets every family and regime.
THIRD = pytest.mark.parametrize("row", VECTORS[::3], ids=lambda row: row.name)


@functools.cache
def priced(row: Vector) -> tuple[privacy.Epsilon, float]:
    """The product's answer and its seconds, not counting what other programs on the machine took."""
    wall, own = time.perf_counter(), time.process_time()
    found = price(row.s, row.q, row.t, row.delta)
    return found, min(time.perf_counter() - wall, time.process_time() - own)


def test_the_rows_cover_the_range_and_their_methods_agree() -> None:
    assert len(VECTORS) == len({row.name for row in VECTORS}) == 105
    assert max(row.difference for row in VECTORS) <= 1e-6
    assert (min(row.s for row in VECTORS), max(row.s for row in VECTORS)) == (1e-6, 11.0)
    assert {row.t for row in VECTORS} >= {1, 300, 1368, 12200, 53000, 10**6}
    assert {row.q for row in VECTORS} >= {1e-5, 0.0041, 0.00943, 0.073, 0.2534, 1.0}
    assert {row.delta for row in VECTORS} >= {1e-7, 1e-3}


@EACH
def test_estimate(row: Vector) -> None:
    assert priced(row)[0].estimate == pytest.approx(row.truth, rel=1e-4, abs=0)


@EACH
def test_the_bracket_holds_the_truth(row: Vector) -> None:
    found = priced(row)[0]
    assert found.lower <= found.estimate <= found.upper
    slack = {"rigorous": 0.0, "numerical": 2e-6}[found.method] + 2e-15
    assert found.lower <= row.truth * (1 + slack)
    assert row.truth <= found.upper * (1 + slack)


@EACH
def test_the_claim_is_not_loose(row: Vector) -> None:
    tolerated = 1e-3 if row.s <= 0.05 or row.s >= 0.2 else 1e-2
    assert priced(row)[0].upper <= row.truth * (1 + tolerated)


@EACH
def test_what_opacus_prints_is_never_below_the_truth(row: Vector) -> None:
    assert priced(row)[0].opacus_rdp >= row.truth * (1 - 1e-6)


def test_pricing_is_quick() -> None:
    seconds = [priced(row)[1] for row in VECTORS]
    assert max(seconds) <= 2.0
    assert statistics.median(seconds) <= 0.3


@THIRD
def test_calibration_to_the_true_epsilon_gives_the_noise_back(row: Vector) -> None:
    wall, own = time.perf_counter(), time.process_time()
    s = privacy.noise_multiplier(epsilon=row.truth, delta=row.delta, sample_rate=row.q, steps=row.t)
    assert s == pytest.approx(row.s, rel=1e-4, abs=0)
    assert min(time.perf_counter() - wall, time.process_time() - own) <= 5.0
    assert price(s, row.q, row.t, row.delta).upper <= row.truth
