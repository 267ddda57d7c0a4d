"""The whole score on hand-made attacks."""

import dataclasses
import json

import numpy as np
import pytest

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
    assert [row.recovered for row in result.rows] == [i % 2 == 0 for i in range(N)]
    assert [row.rank is None for row in result.rows] == [i >= 10 for i in range(N)]
    assert result.rows[1].reconstruction == -1
    json.dumps(dataclasses.asdict(result), allow_nan=False)


@pytest.mark.parametrize("kind", ["nothing", "noise", "broken"])
def test_an_attack_that_knows_nothing_is_not_above_its_null(kind):
    result = score(kind)
    assert result.recovered == 0
    assert not result.above_null
    assert result.rank1_p > 0.01
    assert result.identified_informed is None
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
