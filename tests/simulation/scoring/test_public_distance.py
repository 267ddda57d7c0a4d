"""Distance of public data: 1 for the same source, and plain loops."""

import numpy as np
import pytest

from simulation.scoring.public_distance import public_distance


def names(count: int) -> np.ndarray:
    return np.array([f"unit {i}" for i in range(count)])


def test_the_same_source_is_at_one():
    ratios = []
    for seed in range(40):
        images = np.random.default_rng(seed).random((90, 1, 4, 4))
        ratio = public_distance(images[:30], images[30:], names(60))
        assert ratio is not None
        ratios.append(ratio)
    assert abs(np.mean(ratios) - 1) < 3 * np.std(ratios) / np.sqrt(len(ratios))
    assert np.std(ratios) < 0.1


def test_images_of_one_unit_do_not_count_as_near():
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(40):
        lesions = rng.random((60, 1, 4, 4))
        shots = np.repeat(lesions, 3, axis=0) + 0.01 * rng.standard_normal((180, 1, 4, 4))
        units = np.repeat(names(60), 3)
        ratio = public_distance(shots[:60], shots[60:], units[60:])
        assert ratio is not None
        ratios.append(ratio)
        alone = public_distance(shots[:60], shots[60:], names(120))  # as if every shot were a lesion of its own
        assert alone is not None
        assert alone > 5
    assert abs(np.mean(ratios) - 1) < 3 * np.std(ratios) / np.sqrt(len(ratios))


def test_scale_and_loops():
    rng = np.random.default_rng(1)
    public, targets = 0.4 + 0.1 * rng.random((6, 1, 3, 3)), 0.4 + 0.1 * rng.random((6, 1, 3, 3)) + 0.3

    def apart(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(np.mean((a - b) ** 2)))

    among = np.mean([min(apart(p, q) for j, q in enumerate(public) if j != i) for i, p in enumerate(public)])
    # every public unit is left out for one target; which one is drawn
    low = np.mean([sorted(apart(t, p) for p in public)[0] for t in targets]) / among
    high = np.mean([sorted(apart(t, p) for p in public)[1] for t in targets]) / among
    ratio = public_distance(targets, public, names(6))
    assert ratio is not None
    assert low <= ratio <= high
    assert ratio > 3


def test_what_has_no_distance():
    images = np.random.default_rng(2).integers(0, 256, (9, 3, 4, 4), dtype=np.uint8)
    assert public_distance(images, images[:0], names(0)) is None
    assert public_distance(images[:0], images, names(9)) is None
    assert public_distance(images, images, np.repeat(names(1), 9)) is None
    assert public_distance(images, np.repeat(images[:1], 9, axis=0), names(9)) is None
    assert public_distance(images, images, names(9)) == pytest.approx(
        public_distance(images / 255.0, images, names(9)), rel=1e-6
    )
    with pytest.raises(ValueError, match="units of 8"):
        public_distance(images, images, names(8))
