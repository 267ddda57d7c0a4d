"""Paper-style scoring against plain loops, and what it says about knowing nothing."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from simulation.scoring import paper
from simulation.scoring.paper import min_max, paper_score

MEAN = np.linspace(0, 1, 3 * 8 * 8).reshape(3, 8, 8)


def stretched(image: np.ndarray) -> np.ndarray:
    span = image.max() - image.min()
    return (image - image.min()) / span if span else np.zeros_like(image)


def by_loops(truths: np.ndarray, guesses: np.ndarray, threshold: float) -> float:
    hits = 0
    for truth in truths:
        scores = [
            structural_similarity(stretched(truth), stretched(guess), data_range=1, channel_axis=0) for guess in guesses
        ]
        hits += max(scores, default=-1) > threshold
    return hits / len(truths)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_rates_are_those_of_plain_loops(threshold):
    rng = np.random.default_rng(0)
    truths = rng.random((12, 3, 8, 8))
    mixed = rng.random((12, 1, 1, 1))
    guesses = mixed * truths + (1 - mixed) * rng.random(truths.shape)
    noise = 0.3 * truths[:4] + 0.7 * rng.random((4, 3, 8, 8))
    result = paper_score(truths, guesses, noise, MEAN, threshold)
    assert result.recovered == by_loops(truths, guesses, threshold)
    assert result.null_recovered == max(by_loops(truths, noise, threshold), by_loops(truths, MEAN[None], threshold))
    assert (result.threshold, result.targets) == (threshold, 12)


def test_one_faint_reconstruction_is_credited_with_every_alike_truth_and_the_null_shows_it():
    rng = np.random.default_rng(1)
    disc = np.hypot(*np.mgrid[-1:1:16j, -1:1:16j]) < 0.6
    truths = 0.7 - 0.4 * disc + 0.02 * rng.standard_normal((10, 1, 16, 16))
    faint = (0.5 - 0.001 * disc)[None, None]  # a mean image at a four-hundredth of its contrast
    result = paper_score(truths, faint, faint[:0], truths.mean(axis=0))
    assert result.recovered == 1
    assert result.null_recovered == 1


def test_stretching():
    rng = np.random.default_rng(2)
    images = 0.3 + 0.1 * rng.random((4, 3, 8, 8))
    images[2] = 0.4
    found = min_max(images)
    np.testing.assert_allclose(found, [stretched(image) for image in images], atol=1e-12)
    assert np.all(found[2] == 0)
    broken = np.full((1, 1, 8, 8), np.nan)
    broken[0, 0, 0, :2] = [np.inf, -np.inf]
    found = min_max(broken)
    assert (found.min(), found.max(), np.median(found)) == (0, 1, 0.5)
    wide = np.array([-3.0, 1.0]).repeat(32).reshape(1, 1, 8, 8)  # what was not clipped is stretched, not clipped
    assert set(np.unique(min_max(wide))) == {0.0, 1.0}
    assert min_max(np.zeros((0, 3, 8, 8))).shape == (0, 3, 8, 8)


def test_nothing_to_score_and_too_much(monkeypatch):
    rng = np.random.default_rng(3)
    truths = rng.random((9, 3, 8, 8))
    none = truths[:0]
    assert paper_score(truths, none, none, MEAN).recovered == 0
    empty = paper_score(none, truths, truths, MEAN)
    assert (empty.recovered, empty.null_recovered, empty.targets) == (None, None, 0)
    monkeypatch.setattr(paper, "_MOST_VALUES", 3 * 9 * 192)
    few = paper_score(truths, truths, none, MEAN, 0.9)
    assert (few.targets, few.recovered, few.null_recovered) == (3, 1, 0)
    with pytest.raises(ValueError, match="threshold"):
        paper_score(truths, truths, none, MEAN, 1.0)
