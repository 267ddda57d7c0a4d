"""The whole score on hand-made attacks."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.stats import binomtest

from simulation.scoring.identification import Decoys
from simulation.scoring.score import score_reconstruction

N, M, SHAPE = 20, 19, (3, 8, 8)


def score(kind: str, informed=None, ranked: int = N):
    rng = np.random.default_rng(0)
    truths = rng.integers(0, 256, (N, *SHAPE), dtype=np.uint8)
    pool = rng.integers(0, 256, (ranked * M, *SHAPE), dtype=np.uint8)
    guesses = {
        "half": truths[::2] / 255,
        "nothing": np.zeros((0, *SHAPE)),
        "noise": rng.random((N, *SHAPE)),
        "broken": np.full((N, *SHAPE), np.nan, dtype=np.float32),
        "endless": np.where(rng.random((N, *SHAPE)) < 0.5, np.inf, -np.inf),
        "constant": np.full((N, *SHAPE), 0.25),
        "few": rng.random((3, *SHAPE)),
    }[kind]
    return score_reconstruction(
        truths=truths,
        guesses=guesses.astype(np.float32),
        noise_guesses=rng.random((N, *SHAPE)).astype(np.float32),
        mean_image=np.full(SHAPE, 0.5, dtype=np.float32),
        ranked=np.arange(ranked),
        decoys=Decoys(pool, np.arange(ranked * M).reshape(ranked, M)),
        informed=informed,
    )


def test_copies_of_half_the_batch():
    result = score("half", informed=lambda c: np.zeros(len(c)), ranked=10)
    assert result.recovered == 0.5
    assert result.recovered_ci[0] < 0.5 < result.recovered_ci[1]
    assert result.null_recovered == 0
    assert result.above_null
    assert result.above_null_p == pytest.approx(2**-10)
    assert (result.ranked, result.decoys) == (10, M)
    assert result.rank1 is not None
    assert result.rank1 >= 0.5
    assert result.rank1_p < 1e-3
    interval = binomtest(round(10 * result.rank1), 10).proportion_ci(0.95, method="exact")
    assert result.rank1_ci == pytest.approx((interval.low, interval.high))
    assert result.rank1_null == pytest.approx(1 / (M + 1))
    assert result.identified_informed_ci is not None
    assert result.identified_informed_ci[0] <= (result.identified_informed or 0) <= result.identified_informed_ci[1]
    assert (result.visible.rate, result.visible.fresh) == (0.5, 10 * M)
    assert result.visible.null_rate is not None
    assert result.visible.null_rate <= 0.2
    assert result.visible.p < 0.05
    assert [row.visible for row in result.rows] == [row.ssim > (result.visible.threshold or 0) for row in result.rows]
    assert (result.paper.recovered, result.paper.null_recovered) == (0.5, 0)
    assert [row.recovered for row in result.rows] == [i % 2 == 0 for i in range(N)]
    assert [row.rank is None for row in result.rows] == [i >= 10 for i in range(N)]
    assert result.rows[1].reconstruction == -1
    json.dumps(dataclasses.asdict(result), allow_nan=False)


@pytest.mark.parametrize("kind", ["nothing", "noise", "broken", "endless", "constant", "few"])
def test_an_attack_that_knows_nothing_is_not_above_its_null(kind):
    result = score(kind, informed=lambda c: np.full(len(c), np.nan) if kind == "broken" else None)
    assert result.recovered == 0
    assert not result.above_null
    assert result.visible.p > 0.05
    assert result.paper.recovered == 0
    assert all(np.isfinite([row.ssim, row.psnr, row.ncc]).all() for row in result.rows)
    assert result.rank1_p > 0.01
    if kind == "broken":  # candidates that cannot be told apart are drawn by lot
        assert result.identified_informed is not None
        assert result.identified_informed < 0.5
    else:
        assert result.identified_informed is None
        assert result.identified_informed_ci is None
    json.dumps(dataclasses.asdict(result), allow_nan=False)


def test_nothing_to_score():
    empty = np.zeros((0, *SHAPE), dtype=np.uint8)
    result = score_reconstruction(
        truths=empty,
        guesses=np.zeros((3, *SHAPE), dtype=np.float32),
        noise_guesses=np.zeros((0, *SHAPE), dtype=np.float32),
        mean_image=np.zeros(SHAPE, dtype=np.float32),
        ranked=np.zeros(0, dtype=np.int64),
        decoys=Decoys(empty, np.zeros((0, 0), dtype=np.int64)),
        informed=lambda c: np.zeros(len(c)),
    )
    assert (result.targets, result.recovered, result.rank1, result.rank1_p) == (0, None, None, 1)
    assert result.recovered_ci == (0, 1)
    assert not result.above_null
    assert result.rows == ()
    assert (result.rank1_null, result.visible.rate, result.visible.null_rate, result.visible.p) == (None, None, None, 1)
    assert (result.paper.recovered, result.paper.targets) == (None, 0)
    json.dumps(dataclasses.asdict(result), allow_nan=False)


def test_a_strong_null_takes_the_attacks_credit_away():
    truths = np.repeat(np.random.default_rng(0).integers(0, 256, (1, *SHAPE), dtype=np.uint8), N, axis=0)
    result = score_reconstruction(
        truths=truths,
        guesses=(truths / 255).astype(np.float32),
        noise_guesses=np.zeros((0, *SHAPE), dtype=np.float32),
        mean_image=(truths[0] / 255).astype(np.float32),
        ranked=np.zeros(0, dtype=np.int64),
        decoys=Decoys(truths[:0], np.zeros((0, 0), dtype=np.int64)),
    )
    assert (result.recovered, result.null_recovered, result.null) == (1, 1, "mean_image")
    assert not result.above_null
    assert result.visible.p == 1
    assert (result.paper.recovered, result.paper.null_recovered) == (1, 1)


def test_ranked_targets_need_their_decoys():
    empty = np.zeros((0, *SHAPE), dtype=np.uint8)
    floats = np.zeros((0, *SHAPE), dtype=np.float32)
    with pytest.raises(ValueError, match="decoys for 0"):
        score_reconstruction(
            truths=np.zeros((1, *SHAPE), dtype=np.uint8),
            guesses=floats,
            noise_guesses=floats,
            mean_image=np.zeros(SHAPE, dtype=np.float32),
            ranked=np.array([0]),
            decoys=Decoys(empty, np.zeros((0, 5), dtype=np.int64)),
        )
