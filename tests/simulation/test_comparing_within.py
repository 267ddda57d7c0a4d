"""Pairs of one hospital, against pairs compared by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import log_softmax

from simulation.comparing_scores import OTHERS, WITHIN, cell_scores, rarest_class, score
from simulation.predictions import Predictions
from tasks.metrics import Classified

RNG = np.random.default_rng(3)


def said(logits: NDArray[np.float64], labels: NDArray[np.int64], share: NDArray[np.int64]) -> Predictions:
    n, units = len(labels), np.arange(len(labels)) // 2
    ids = np.array([str(k) for k in range(n)])
    names = tuple(f"h{k}" for k in range(share.max() + 1))
    classes = tuple("abc"[: max(2, logits.shape[1])])
    return Predictions(Classified(logits, labels, units), labels, units, ids, share, names, classes, 1)


def by_hand(scores: NDArray[np.float64], positive: NDArray[np.bool_], share: NDArray[np.int64]) -> float:
    won = pairs = 0.0
    for i in np.flatnonzero(positive):
        for j in np.flatnonzero(~positive & (share == share[i]) & (share[i] >= 0)):
            won += 1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0
            pairs += 1
    return won / pairs


def test_a_score_that_knows_only_the_hospital_ranks_nothing_within_them() -> None:
    share = np.repeat([0, 1], 100)
    labels = np.concatenate([np.arange(100) % 10 == 0, np.arange(100) % 10 > 2]).astype(np.int64)
    found = cell_scores(said(share[:, None].astype(np.float64), labels, share))
    one = np.ones((1, found.units))
    assert found.scores[WITHIN].value(one)[0] == 0.5
    assert found.scores["all", ""].value(one)[0] > 0.75


@pytest.mark.parametrize("classes", [2, 3])
def test_wins_of_all_hospitals_over_pairs_of_all_in_every_resample(classes: int) -> None:
    share = RNG.integers(-1, 3, size=90)
    labels = RNG.integers(classes, size=90)
    labels[share == 2] = 1  # one class: no pair of one against two classes, all the same counted where there is one
    logits = np.round(RNG.normal(size=(90, 1 if classes == 2 else 3)), 1)
    predictions = said(logits, labels, share)
    found = cell_scores(predictions)
    one = found.scores[WITHIN]
    counts = RNG.integers(3, size=(5, found.units)).astype(np.float64)
    values = one.value(counts[:, one.columns])
    for draw, value in zip(counts, values, strict=True):
        rows = np.repeat(np.arange(90), draw.astype(int)[predictions.units])
        if classes == 2:
            expected = by_hand(logits[rows, 0], labels[rows] == 1, share[rows])
        else:
            chance = np.exp(log_softmax(logits, axis=1))[rows]
            odds = chance / (1 - chance)
            expected = np.mean([by_hand(np.round(odds[:, c], 9), labels[rows] == c, share[rows]) for c in range(3)])
        assert value == pytest.approx(expected)


def test_one_hospital_is_all_records_and_hospitals_of_one_class_have_no_pair() -> None:
    labels, logits = np.arange(80) % 4 // 3, RNG.normal(size=(80, 1))
    predictions = said(logits, labels, np.zeros(80, dtype=np.int64))
    found = cell_scores(predictions)
    counts = RNG.integers(3, size=(4, found.units)).astype(np.float64)
    whole = score(predictions, "auroc", np.arange(80))
    np.testing.assert_allclose(found.scores[WITHIN].value(counts), whole.value(counts))
    assert found.pairs_share == 1.0
    apart = cell_scores(said(logits, labels, labels))
    assert apart.scores[WITHIN].problem == "no hospital has records of two classes"
    assert apart.pairs_share == 0.0


def test_specificity_is_how_often_the_rarest_of_three_is_not_said_of_others() -> None:
    labels, logits = RNG.integers(3, size=90), RNG.normal(size=(90, 3))
    predictions = said(logits, labels, np.zeros(90, dtype=np.int64))
    rare, found = rarest_class(predictions), cell_scores(predictions)
    one = found.scores[OTHERS]
    others = labels != rare
    expected = float((logits.argmax(axis=1)[others] != rare).mean())
    assert one.value(np.ones((1, len(one.columns))))[0] == pytest.approx(expected)
    assert one.n == others.sum()
