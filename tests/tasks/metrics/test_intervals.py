"""Intervals: their coverage in simulated worlds whose truth is known, and when there is none."""

import numpy as np
import pytest
from scipy.stats import beta, norm

from tasks.metrics import Classified, interval


def world(generator: np.random.Generator, lesions: int, per_lesion: int, shared: float) -> Classified:
    """Lesions with several images of a common part; positives lie 1.5 standard deviations higher: AUROC .856."""
    label = (np.arange(lesions) % 3 == 0).astype(np.int64)
    units = np.repeat(np.arange(lesions), per_lesion)
    common = generator.normal(size=lesions)[units] * np.sqrt(shared)
    scores = common + generator.normal(size=len(units)) * np.sqrt(1 - shared) + 1.5 * label[units]
    return Classified(scores[:, None], label[units], units)


TRUTH = float(norm.cdf(1.5 / np.sqrt(2)))


@pytest.mark.parametrize(("lesions", "per_lesion"), [(120, 1), (60, 4), (18, 1)])
def test_auroc_intervals_hold_the_truth(lesions: int, per_lesion: int) -> None:
    generator = np.random.default_rng(lesions)
    worlds = [world(generator, lesions, per_lesion, 0.8) for _ in range(300)]
    found = [interval(w, "auroc", seed=k) for k, w in enumerate(worlds)]
    held = np.mean([f.low is not None and f.high is not None and f.low <= TRUTH <= f.high for f in found])
    assert held > 0.89, held  # nominally .95; in 1,000 worlds each: .945, .923, .930


def test_resampling_images_of_one_lesion_would_promise_too_much() -> None:
    generator = np.random.default_rng(7)
    held = []
    for k in range(200):
        clustered = world(generator, 60, 4, 0.9)
        alone = Classified(clustered.logits, clustered.labels, np.arange(240))
        found = interval(alone, "auroc", seed=k)
        held.append(found.low is not None and found.high is not None and found.low <= TRUTH <= found.high)
    assert np.mean(held) < 0.85  # in 400 worlds: .67


def test_the_estimate_is_the_metric_and_the_same_seed_gives_the_same_interval() -> None:
    found = world(np.random.default_rng(1), 60, 3, 0.5)
    first = interval(found, "auroc", seed=4)
    assert first.estimate == found.metrics()["auroc"]
    assert first == interval(found, "auroc", seed=4)
    assert first != interval(found, "auroc", seed=5)
    assert (first.n, first.units) == (180, 60)
    assert first.low is not None
    assert first.high is not None
    assert first.low < (first.estimate or 0.0) < first.high


def test_weights_in_pieces_are_the_weights_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = world(np.random.default_rng(1), 60, 3, 0.5)
    whole = interval(found, "mcc", seed=4)
    monkeypatch.setattr("tasks.metrics.intervals.MOST_FLOATS", 180 * 7)
    assert interval(found, "mcc", seed=4) == whole


def test_nothing_wrong_so_far_is_no_proof() -> None:
    labels = np.tile([0, 1], 20)
    judged = Classified(np.where(labels == 1, 3.0, -3.0)[:, None], labels, np.arange(40))
    perfect = interval(judged, "auroc", seed=1)
    assert (perfect.estimate, perfect.high) == (1.0, 1.0)
    assert perfect.low == pytest.approx(beta.ppf(0.025, 20, 1))  # 20 disjoint pairs, all won: Clopper and Pearson
    recall = interval(judged, "recall", np.flatnonzero(labels == 1), seed=1)
    assert recall.low == pytest.approx(beta.ppf(0.025, 20, 1))
    never = interval(Classified(-judged.logits, labels, np.arange(40)), "recall", seed=1)
    assert (never.estimate, never.low) == (0.0, 0.0)
    assert never.high == pytest.approx(beta.ppf(0.975, 1, 40))
    assert interval(judged, "mcc", seed=1).reason == "every resample gives the same value"


def test_what_cannot_be_measured_says_why() -> None:
    judged = world(np.random.default_rng(2), 30, 1, 0.5)
    one = interval(judged, "auroc", np.flatnonzero(judged.labels == 0), seed=1)
    assert (one.estimate, one.low, one.reason) == (None, None, "one class only")
    few = interval(judged, "auroc", np.arange(8), seed=1)
    assert few.estimate is not None
    assert (few.low, few.reason) == (None, "fewer than 10 independent units")
    rare = interval(judged, "auroc", np.flatnonzero((judged.labels == 0) | (np.arange(30) == 0)), seed=1)
    assert rare.reason == "fewer than 5 independent units of a class"
