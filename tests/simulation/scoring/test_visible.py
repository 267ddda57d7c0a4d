"""Visibility: the null's rate is what it claims, nothing known is not found visible, and small gains are none."""

import numpy as np
import pytest
from scipy.stats import binomtest

from simulation.scoring.visible import FEWEST, MOST_FRESH, fresh_rows, visibility

REPETITIONS = 1_500


def normal(rng: np.random.Generator, count: int) -> np.ndarray:
    return 0.5 + 0.1 * rng.standard_normal(count)


@pytest.mark.parametrize("fresh", [19, 38, 39, 60, 99, 400])
def test_the_null_passes_for_at_most_one_in_twenty(fresh):
    # Exchangeable: any of fresh + 1 values is the new one as likely as any other. So leaving each out in turn gives
    # the chance itself, for any distribution, and no more values than a twentieth may pass.
    values = np.random.default_rng(0).permutation(np.geomspace(1e-6, 1, fresh + 1))
    passed = 0.0
    for place in range(fresh + 1):
        one, others = values[place : place + 1], np.delete(values, place)
        result = visibility(np.zeros(1), [one], [others])
        assert result.fresh == fresh
        assert result.null_rate is not None
        passed += result.null_rate
    assert passed == (fresh + 1) // 20


@pytest.mark.parametrize(("truths", "fresh"), [(8, 0), (30, 0), (100, 0), (8, 200), (100, 200)])
def test_an_attack_that_learnt_nothing_is_found_visible_no_more_often_than_promised(truths, fresh):
    rng = np.random.default_rng(1)
    rejected = 0
    for _ in range(REPETITIONS):
        shared = normal(rng, truths)  # an image that the mean resembles is resembled by the attack, too
        ours, null = (shared + 0.03 * rng.standard_normal(truths) for _ in range(2))
        rejected += visibility(ours, [null], [normal(rng, fresh)]).p <= 0.05
    assert rejected / REPETITIONS <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / REPETITIONS)


def test_counts_interval_and_test_by_hand():
    fresh = np.linspace(0, 0.5, 99)  # the 95th of 99 is the threshold
    ours = np.array([0.9] * 8 + [0.1] * 12)
    null = np.array([0.1] * 19 + [0.6])
    result = visibility(ours, [null, np.zeros(20)], [fresh, fresh / 2])
    assert result.threshold == pytest.approx(fresh[94])
    assert (result.rate, result.null_rate, result.fresh) == (0.4, 0.05, 99)
    interval = binomtest(8, 20).proportion_ci(0.95, method="exact")
    assert result.ci == pytest.approx((interval.low, interval.high))
    assert result.p == pytest.approx(binomtest(8, 9, alternative="greater").pvalue)
    # of two nulls the higher threshold counts
    assert visibility(ours, [null, null], [fresh, np.full(99, 0.95)]).rate == 0


def test_a_small_gain_everywhere_is_not_visible():
    null = normal(np.random.default_rng(2), 100)
    result = visibility(null + 1e-3, [null], [normal(np.random.default_rng(3), 400)])
    assert result.rate is not None
    assert result.rate < 0.15
    assert result.p > 0.05


def test_too_few_fresh_images_and_none_at_all():
    null = np.linspace(0, 1, 100)
    result = visibility(np.full(100, 2.0), [null], [np.zeros(FEWEST - 1)])
    assert (result.fresh, result.rate) == (0, 1)
    assert result.null_rate is not None
    assert result.null_rate <= 0.05
    assert visibility(np.full(3, 0.4), [np.array([0.1, 0.2, 0.3])], [np.zeros(0)]).threshold == 0.3
    nothing = visibility(np.zeros(0), [np.zeros(0)], [np.zeros(50)])
    assert (nothing.rate, nothing.ci, nothing.null_rate, nothing.p, nothing.threshold) == (None, (0, 1), None, 1, None)


def test_fresh_images_are_spread_over_the_decoys_and_bounded():
    decoys = np.arange(5_000).reshape(50, 100)
    rows = fresh_rows(decoys, 3 * 64 * 64)
    assert len(rows) == MOST_FRESH == len(np.unique(rows))
    assert (rows[0], rows[-1]) == (0, 4_999)
    assert len(fresh_rows(decoys, 2**27)) == FEWEST
    assert fresh_rows(np.zeros((0, 0), dtype=np.int64), 10).shape == (0,)
    assert fresh_rows(np.array([[3, 9]]), 10).tolist() == [3, 9]
