"""Similarity against scikit-image and against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from simulation.scoring.similarity import intensities, ncc, psnr, squared_errors, ssim


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.integers(1, 3),
    height=st.integers(7, 20),
    width=st.integers(7, 20),
    noise=st.sampled_from([0.0, 1e-3, 0.1, 1.0]),
)
def test_ssim_and_psnr_are_scikit_images(seed, channels, height, width, noise):
    rng = np.random.default_rng(seed)
    first = rng.random((3, channels, height, width))
    first[2] = 0.25
    second = np.clip(first + noise * rng.standard_normal(first.shape), 0, 1)
    ours, ratios = ssim(first, second), psnr(first, second)
    for a, b, value, ratio in zip(first, second, ours, ratios, strict=True):
        assert value == pytest.approx(structural_similarity(a, b, data_range=1, channel_axis=0), abs=1e-6)
        if np.any(a != b):
            assert ratio == pytest.approx(min(100.0, peak_signal_noise_ratio(a, b, data_range=1)), abs=1e-6)
        else:
            assert ratio == 100.0


@pytest.mark.parametrize("shape", [(1, 7, 9, 12), (2, 8, 7, 7)])
def test_volumes_are_scored_as_scikit_image_does(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    first = rng.random((3, *shape))
    second = np.clip(first + 0.2 * rng.standard_normal(first.shape), 0, 1)
    expected = [structural_similarity(a, b, data_range=1, channel_axis=0) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(ssim(first, second), expected, atol=1e-9)
    ratios = [peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(psnr(first, second), ratios, atol=1e-9)
    with pytest.raises(ValueError, match="7 pixels"):
        ssim(first[:, :, :6], second[:, :, :6])


def test_blocks_and_bytes_agree_with_floats():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (300, 3, 8, 9), dtype=np.uint8)
    b = rng.integers(0, 256, (300, 3, 8, 9), dtype=np.uint8)
    np.testing.assert_allclose(ssim(a, b), ssim(a / 255.0, b / 255.0), atol=1e-12)
    one = [structural_similarity(x / 255, y / 255, data_range=1, channel_axis=0) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(ssim(a, b), one, atol=1e-9)


def test_ncc_is_the_correlation_of_all_pixels():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 5, 3, 7, 7))
    expected = [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(ncc(a, b), expected, atol=1e-12)
    np.testing.assert_allclose(ncc(a, 0.2 + a / 2), 1.0, atol=1e-12)
    assert np.all(ncc(a, np.full_like(a, 0.3)) == 0)


def test_squared_errors_are_those_of_every_pair():
    rng = np.random.default_rng(0)
    a = rng.random((5, 3, 7, 8)).astype(np.float32)
    b = rng.integers(0, 256, (300, 3, 7, 8), dtype=np.uint8)
    loops = [[np.mean((intensities(x) - intensities(y)) ** 2) for y in b] for x in a]
    np.testing.assert_allclose(squared_errors(a, b), loops, atol=1e-12)
    assert squared_errors(a[:0], b).shape == (0, 300)
    assert squared_errors(a, b[:0]).shape == (5, 0)


def test_what_cannot_be_scored_is_refused_or_made_grey():
    with pytest.raises(ValueError, match="at least 7"):
        ssim(np.zeros((1, 1, 6, 9)), np.zeros((1, 1, 6, 9)))
    with pytest.raises(ValueError, match="equal shapes"):
        psnr(np.zeros((1, 1, 8, 8)), np.zeros((2, 1, 8, 8)))
    np.testing.assert_array_equal(intensities(np.array([np.nan, np.inf, -np.inf, 2.0, 0.3])), [0.5, 1, 0, 1, 0.3])
