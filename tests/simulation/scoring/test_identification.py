"""Ranks are uniform when nothing is known, and the tests around them are exact."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare, nhypergeom

from simulation.scoring.exact_tests import binomial_p, clopper_pearson, common_decoys_p, holm, mcnemar_p
from simulation.scoring.identification import Decoys, decoy_ranks, informed_ranks

TARGETS, DECOYS, SHAPE = 12, 9, (1, 7, 7)


def draw(seed: int) -> tuple[np.ndarray, Decoys]:
    rng = np.random.default_rng(seed)
    # Images of very different typicality: some lie near the mean, and must not be favoured for it.
    count = TARGETS * (DECOYS + 1)
    contrast = rng.choice([5, 40, 120], size=(count, 1, 1, 1))
    images = np.clip(128 + contrast * rng.standard_normal((count, *SHAPE)), 0, 255).astype(np.uint8)
    return images[:TARGETS], Decoys(images[TARGETS:], np.arange(TARGETS * DECOYS).reshape(TARGETS, DECOYS))


def guesses(kind: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(10_000 + seed)
    if kind == "none":
        return np.zeros((0, *SHAPE))
    if kind == "constant":
        return np.full((5, *SHAPE), 0.5)
    return rng.random((20, *SHAPE))


@pytest.mark.parametrize("kind", ["none", "constant", "noise"])
def test_guesses_that_know_nothing_rank_uniformly(kind):
    repetitions = 300
    ranks, p_values = [], []
    for seed in range(repetitions):
        targets, decoys = draw(seed)
        found = decoy_ranks(targets, decoys, guesses(kind, seed))
        ranks.append(found)
        p_values.append(binomial_p(int(np.sum(found == 1)), TARGETS, 1 / (DECOYS + 1)))
    counts = np.bincount(np.concatenate(ranks), minlength=DECOYS + 2)[1:]
    assert len(counts) == DECOYS + 1
    if kind != "none":  # there the same fair draw decides every time, so repetitions are no sample
        assert chisquare(counts).pvalue > 1e-3
        for level in (0.05, 0.2, 0.5):
            rejected = np.mean(np.array(p_values) <= level)
            assert rejected <= level + 3 * np.sqrt(level * (1 - level) / repetitions)
    else:
        assert np.all(counts < repetitions * TARGETS / 2)


def test_equal_candidates_are_not_ranked_first():
    targets = np.full((400, *SHAPE), 77, dtype=np.uint8)
    decoys = Decoys(np.full((400 * 3, *SHAPE), 77, dtype=np.uint8), np.arange(1200).reshape(400, 3))
    ranks = decoy_ranks(targets, decoys, np.random.default_rng(0).random((7, *SHAPE)))
    assert chisquare(np.bincount(ranks, minlength=5)[1:]).pvalue > 1e-3


def test_a_copy_is_ranked_first_and_truth_and_decoys_are_treated_alike():
    targets, decoys = draw(0)
    assert decoy_ranks(targets, decoys, targets / 255).tolist() == [1] * TARGETS
    copied = decoys.pool[decoys.index[:, 0]]
    assert np.all(decoy_ranks(targets, decoys, copied / 255) > 1)


def test_informed_ranks_do_not_depend_on_the_candidates_place():
    targets, decoys = draw(1)
    assert informed_ranks(targets, decoys, lambda c: None) is None
    ranks = informed_ranks(targets, decoys, lambda c: -np.arange(len(c), dtype=np.float64))
    assert ranks is not None
    assert len(set(ranks.tolist())) > 1
    keys = {image.tobytes() for image in targets}
    knowing = informed_ranks(targets, decoys, lambda c: np.array([float(i.tobytes() in keys) for i in c]))
    assert knowing is not None
    assert knowing.tolist() == [1] * TARGETS
    broken = informed_ranks(targets, decoys, lambda c: np.full(len(c), np.nan))
    assert broken is not None
    assert len(set(broken.tolist())) > 1


def test_decoys_are_disjoint():
    with pytest.raises(ValueError, match="two targets"):
        Decoys(np.zeros((4, *SHAPE), dtype=np.uint8), np.array([[0, 1], [1, 2]]))
    with pytest.raises(ValueError, match="shape"):
        Decoys(np.zeros((4, *SHAPE), dtype=np.uint8), np.array([0, 1]))
    none = Decoys(np.zeros((0, *SHAPE), dtype=np.uint8), np.zeros((0, 0), dtype=np.int64))
    assert none.count == 0
    assert decoy_ranks(np.zeros((0, *SHAPE), dtype=np.uint8), none, np.zeros((3, *SHAPE))).shape == (0,)


@pytest.mark.parametrize(("hits", "trials"), [(0, 0), (0, 7), (3, 7), (7, 7), (30, 100)])
def test_counts_agree_with_scipy(hits, trials):
    low, high = clopper_pearson(hits, trials)
    if trials:
        interval = binomtest(hits, trials).proportion_ci(0.95, method="exact")
        assert (low, high) == pytest.approx((interval.low, interval.high))
        expected = binomtest(hits, trials, 0.05, alternative="greater").pvalue
        assert binomial_p(hits, trials, 0.05) == pytest.approx(expected)
    else:
        assert (low, high) == (0, 1)
        assert binomial_p(0, 0, 0.05) == 1


def test_paired_test_counts_only_the_pairs_that_differ():
    first = np.array([True] * 5 + [False] * 10 + [True] * 20)
    second = np.array([False] * 5 + [False] * 10 + [True] * 20)
    assert mcnemar_p(first, second) == pytest.approx(2**-5)
    assert mcnemar_p(second, first) == 1
    assert mcnemar_p(first, first) == 1


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


@pytest.mark.parametrize(("targets", "decoys"), [(1, 1), (5, 3), (100, 999), (1000, 999)])
def test_targets_ahead_of_shared_decoys_are_negative_hypergeometric(targets, decoys):
    law = nhypergeom(targets + decoys, targets, 1)  # targets drawn before the first decoy
    for hits in {0, 1, 2, targets // 2, targets}:
        orders = Fraction(math.comb(targets + decoys - hits, decoys), math.comb(targets + decoys, decoys))
        assert common_decoys_p(hits, targets, decoys) == pytest.approx(float(orders), rel=1e-9, abs=1e-300)
        assert float(orders) == pytest.approx(law.sf(hits - 1), abs=1e-9)  # scipy's tail is one minus a sum
    assert common_decoys_p(targets + 1, targets, decoys) == 0


@pytest.mark.parametrize("kind", ["none", "constant", "noise"])
def test_shared_decoys_keep_their_level_where_the_binomial_test_would_not(kind):
    level, repetitions = 0.05, 1_500
    rejected, by_binomial, ranks = 0, 0, []
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, (60 + 19, *SHAPE), dtype=np.uint8)
        decoys = Decoys(images[60:], np.tile(np.arange(19), (60, 1)), shared=True)
        found = decoy_ranks(images[:60], decoys, guesses(kind, seed))
        hits = int(np.sum(found == 1))
        ranks.append(found)
        rejected += decoys.chance_p(hits) <= level
        by_binomial += binomial_p(hits, 60, 1 / 20) <= level
    if kind == "none":
        # All candidates tie, and one constant draw of lots decides every time: no sample, but one order of all.
        assert all(np.array_equal(found, ranks[0]) for found in ranks)
        assert len(np.unique(ranks[0])) > 5
        return
    spread = 3 * np.sqrt(level * (1 - level) / repetitions)
    assert rejected / repetitions <= level + spread
    assert by_binomial / repetitions > level + spread
    # any one target's rank is uniform all the same
    assert chisquare(np.bincount([found[0] for found in ranks], minlength=21)[1:]).pvalue > 1e-3


def test_shared_decoys_rank_as_disjoint_ones_of_the_same_images_would():
    rng = np.random.default_rng(4)
    targets = rng.integers(0, 256, (6, *SHAPE), dtype=np.uint8)
    pool = rng.integers(0, 256, (9, *SHAPE), dtype=np.uint8)
    shown = np.concatenate([targets[:3] / 255, rng.random((4, *SHAPE))])
    shared = decoy_ranks(targets, Decoys(pool, np.tile(np.arange(9), (6, 1)), shared=True), shown)
    apart = decoy_ranks(targets, Decoys(np.tile(pool, (6, 1, 1, 1)), np.arange(54).reshape(6, 9)), shown)
    assert shared.tolist() == apart.tolist()
    assert shared[:3].tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="same for every target"):
        Decoys(pool, np.arange(6).reshape(2, 3), shared=True)
    with pytest.raises(ValueError, match="two targets"):
        Decoys(pool, np.zeros((2, 3), dtype=np.int64), shared=True)
