"""All-pairs SSIM against scikit-image, pair by pair."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from simulation.scoring import all_pairs
from simulation.scoring.all_pairs import all_pairs_ssim
from simulation.scoring.similarity import ssim


def by_scikit_image(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.array([[structural_similarity(a, b, data_range=1, channel_axis=0) for b in second] for a in first])


@pytest.mark.parametrize("shape", [(1, 7, 7), (3, 9, 16), (2, 24, 11), (1, 7, 8, 9), (2, 8, 7, 7)])
def test_every_pair_is_scikit_images(shape):
    rng = np.random.default_rng(0)
    first = rng.random((5, *shape))
    second = np.concatenate([first[:3], np.clip(first + 0.1 * rng.standard_normal(first.shape), 0, 1)])
    found = all_pairs_ssim(first, second)
    assert found.shape == (5, 8)
    np.testing.assert_allclose(found, by_scikit_image(first, second), atol=1e-5)
    np.testing.assert_allclose(found[np.arange(3), np.arange(3)], 1, atol=1e-5)


def test_flat_bright_and_dark_images_lose_nothing_to_single_precision():
    # Windows of variance near 0 and mean near 1: differences of squares would lose four digits there.
    rng = np.random.default_rng(1)
    flat = np.concatenate([np.full((1, 3, 16, 16), value) for value in (0.0, 1e-3, 0.5, 0.98, 1.0)])
    faint = np.clip(0.97 + 1e-3 * rng.standard_normal((5, 3, 16, 16)), 0, 1)
    images = np.concatenate([flat, faint])
    exact = np.array([ssim(np.repeat(a[None], len(images), axis=0), images) for a in images])
    assert np.abs(all_pairs_ssim(images, images) - exact).max() < 1e-4


def test_blocks_and_bytes_change_nothing(monkeypatch):
    rng = np.random.default_rng(2)
    first, second = (rng.integers(0, 256, (n, 3, 8, 10), dtype=np.uint8) for n in (23, 17))
    whole = all_pairs_ssim(first, second)
    np.testing.assert_allclose(all_pairs_ssim(first / 255.0, second), whole, atol=1e-6)
    np.testing.assert_allclose(all_pairs_ssim(second, first).T, whole, atol=1e-5)
    monkeypatch.setattr(all_pairs, "_SIDE", 5)
    monkeypatch.setattr(all_pairs, "_MOST", 12)
    np.testing.assert_allclose(all_pairs_ssim(first, second), whole, atol=1e-6)
    monkeypatch.setattr(all_pairs, "_WORKERS", 1)
    alone = all_pairs_ssim(first, second)
    monkeypatch.setattr(all_pairs, "_WORKERS", 4)
    assert np.array_equal(all_pairs_ssim(first, second), alone)


def test_nothing_and_broken_images():
    images = np.random.default_rng(3).random((3, 1, 8, 8))
    assert all_pairs_ssim(images[:0], images).shape == (0, 3)
    assert all_pairs_ssim(images, images[:0]).shape == (3, 0)
    broken = np.stack([np.full((1, 8, 8), value) for value in (np.nan, np.inf, -np.inf)])
    grey = np.stack([np.full((1, 8, 8), value) for value in (0.5, 1.0, 0.0)])
    np.testing.assert_allclose(all_pairs_ssim(images, broken), by_scikit_image(images, grey), atol=1e-5)
    with pytest.raises(ValueError, match="at least 7"):
        all_pairs_ssim(images[:, :, :6], images[:, :, :6])
    with pytest.raises(ValueError, match="one shape"):
        all_pairs_ssim(images, images[..., :7])
