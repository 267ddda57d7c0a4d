"""Pairing against all permutations."""

import itertools
import time

import numpy as np
import pytest

from simulation.scoring.assignment import UNPAIRED, pair, unpaired
from simulation.scoring.similarity import ncc, psnr, squared_errors, ssim, ssim_to

MEAN = np.full((3, 8, 8), 0.5)


@pytest.mark.parametrize(("truths", "guesses"), [(4, 4), (5, 3), (3, 5), (1, 1)])
@pytest.mark.parametrize("seed", range(5))
def test_the_pairing_has_the_least_total_error(truths, guesses, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random((truths, 3, 8, 8)), rng.random((guesses, 3, 8, 8))
    errors = squared_errors(a, b)
    few = min(truths, guesses)
    best = min(
        sum(errors[row, column] for row, column in zip(rows, columns, strict=True))
        for rows in itertools.combinations(range(truths), few)
        for columns in itertools.permutations(range(guesses), few)
    )
    paired = pair(a, b, MEAN)
    used = paired.index[paired.index != UNPAIRED]
    assert len(used) == few == len(set(used.tolist()))
    taken = np.flatnonzero(paired.index != UNPAIRED)
    assert errors[taken, used].sum() == pytest.approx(best)


def test_batches_are_paired_apart_with_all_guesses():
    rng = np.random.default_rng(0)
    truths, guesses = rng.random((7, 3, 8, 8)), rng.random((4, 3, 8, 8))
    whole = pair(truths, guesses, MEAN, batch=3)
    parts = [pair(truths[start : start + 3], guesses, MEAN) for start in (0, 3, 6)]
    assert whole.index.tolist() == [index for part in parts for index in part.index.tolist()]
    np.testing.assert_array_equal(whole.ssim, np.concatenate([part.ssim for part in parts]))


def test_left_over_truths_get_the_public_mean():
    rng = np.random.default_rng(0)
    truths = rng.random((4, 3, 8, 8))
    paired = pair(truths, truths[2:3], MEAN)
    assert paired.index.tolist() == [UNPAIRED, UNPAIRED, 0, UNPAIRED]
    assert paired.ssim[2] == pytest.approx(1)
    np.testing.assert_allclose(paired.ssim[0], ssim(truths[:1], MEAN[None])[0])
    nothing = pair(truths, truths[:0], MEAN)
    np.testing.assert_allclose(nothing.ssim, ssim(truths, np.repeat(MEAN[None], 4, axis=0)))
    assert pair(truths[:0], truths, MEAN).index.shape == (0,)


def test_the_pair_is_not_chosen_for_its_ssim():
    # The first guess is nearer in squared error, the second has the truth's structure at another brightness.
    rng = np.random.default_rng(0)
    truth = 0.4 + 0.02 * rng.random((1, 3, 8, 8))
    guesses = np.concatenate([np.full_like(truth, truth.mean()), truth + 0.1])
    assert ssim(truth, guesses[1:])[0] > ssim(truth, guesses[:1])[0]
    assert pair(truth, guesses, MEAN).index[0] == 0


def test_a_thousand_by_a_thousand_takes_seconds():
    rng = np.random.default_rng(0)
    truths = rng.integers(0, 256, (1_000, 3, 64, 64), dtype=np.uint8)
    guesses = np.clip(truths[::-1] / 255 + rng.normal(0, 0.1, truths.shape), 0, 1).astype(np.float32)
    start = time.process_time()
    paired = pair(truths, guesses, np.full((3, 64, 64), 0.5))
    assert paired.index.tolist() == list(range(999, -1, -1))
    assert time.process_time() - start < 40  # about 8 s on one core


@pytest.mark.parametrize("guesses", [0, 3, 9, 14])
@pytest.mark.parametrize("batch", [None, 4])
def test_what_is_known_without_guesses_is_computed_once_and_changes_no_bit(guesses, batch):
    rng = np.random.default_rng(guesses)
    truths, shown = rng.random((9, 3, 8, 9)), rng.random((guesses, 3, 8, 9)).astype(np.float32)
    mean = rng.random((3, 8, 9)).astype(np.float32)
    nothing = unpaired(truths, mean)
    found, alone = pair(truths, shown, mean, batch, without=nothing), pair(truths, shown, mean, batch)
    assert (found.index[:4] == UNPAIRED).sum() == max(0, 4 - guesses) or batch is None
    beside = np.stack([shown[k] if k != UNPAIRED else mean for k in found.index]).astype(np.float64)
    for one in (found, alone):
        np.testing.assert_array_equal(one.index, found.index)
        np.testing.assert_array_equal(one.ssim, ssim(truths, beside))
        np.testing.assert_array_equal(one.psnr, psnr(truths, beside))
        np.testing.assert_array_equal(one.ncc, ncc(truths, beside))


@pytest.mark.parametrize("shape", [(3, 8, 9), (1, 7, 8, 9)])
def test_likeness_to_one_image_is_likeness_to_so_many_copies(shape, monkeypatch):
    monkeypatch.setattr("simulation.scoring.similarity._BLOCK", 4)
    rng = np.random.default_rng(0)
    images, one = rng.integers(0, 256, (9, *shape), dtype=np.uint8), rng.random(shape)
    np.testing.assert_array_equal(ssim_to(images, one), ssim(images, np.repeat(one[None], 9, axis=0)))
    assert ssim_to(images[:0], one).shape == (0,)
    with pytest.raises(ValueError, match="equal shapes"):
        ssim_to(images, one[:, :-1])
