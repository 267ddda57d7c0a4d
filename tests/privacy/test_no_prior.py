"""The no-prior bound against draws of the reading it describes."""

import math

import numpy as np
import pytest

import privacy

DRAWS = 20_000


@pytest.mark.parametrize(
    ("s", "pixels", "participations"), [(0.3, 50, 1), (2.0, 5, 4), (0.01, 3000, 1), (1.0, 2, 1), (20.0, 100, 1)]
)
def test_quantiles_and_means_of_draws(s: float, pixels: int, participations: int) -> None:
    rng = np.random.default_rng(pixels)
    image = rng.random(pixels)
    norm = float(np.linalg.norm(image))
    readings = image + s / math.sqrt(participations) * norm * rng.standard_normal((DRAWS, pixels))
    mse = ((readings - image) ** 2).mean(axis=1)
    psnr = -10 * np.log10(mse)
    ncc = readings @ image / np.linalg.norm(readings, axis=1) / norm
    found = privacy.no_prior_bound(noise_multiplier=s, pixels=pixels, norm=norm, participations=participations)
    for probability in (0.05, 0.5, 0.95):
        error = 4 * math.sqrt(probability * (1 - probability) / DRAWS)
        assert np.mean(mse <= found.mse_quantile(probability)) == pytest.approx(probability, abs=error)
        assert np.mean(psnr <= found.psnr_quantile(probability)) == pytest.approx(probability, abs=error)
        assert np.mean(ncc <= found.ncc_quantile(probability)) == pytest.approx(probability, abs=error)
    for drawn, mean in [(mse, found.mse_mean), (psnr, found.psnr_mean), (ncc, found.ncc_mean)]:
        assert drawn.mean() == pytest.approx(mean, abs=4 * drawn.std() / math.sqrt(DRAWS))


def test_many_pixels_concentrate() -> None:
    found = privacy.no_prior_bound(noise_multiplier=0.004, pixels=150_528, norm=180.0)
    assert found.ncc_mean == pytest.approx(1 / math.sqrt(1 + 150_528 * 0.004**2), rel=1e-4)
    assert found.ncc_quantile(0.001) == pytest.approx(found.ncc_quantile(0.999), rel=0.02)
    assert found.psnr_mean == pytest.approx(-20 * math.log10(0.004 * 180), abs=1e-3)


def test_peak_and_participations_shift_psnr() -> None:
    base = privacy.no_prior_bound(noise_multiplier=0.1, pixels=100, norm=5.0)
    wide = privacy.no_prior_bound(noise_multiplier=0.1, pixels=100, norm=5.0, peak=255.0)
    often = privacy.no_prior_bound(noise_multiplier=0.1, pixels=100, norm=5.0, participations=100)
    assert wide.psnr_mean - base.psnr_mean == pytest.approx(20 * math.log10(255))
    assert often.psnr_quantile(0.3) - base.psnr_quantile(0.3) == pytest.approx(20)


def test_no_noise_is_a_copy_and_bad_arguments_are_named() -> None:
    found = privacy.no_prior_bound(noise_multiplier=0.0, pixels=10, norm=1.0)
    assert (found.mse_quantile(0.5), found.psnr_mean, found.ncc_quantile(0.1), found.ncc_mean) == (0, math.inf, 1, 1)
    good = {"noise_multiplier": 1.0, "pixels": 10, "norm": 1.0}
    for name, value in [("pixels", 1), ("norm", 0.0), ("participations", 0), ("peak", -1.0)]:
        with pytest.raises(ValueError, match=name):
            privacy.no_prior_bound(**{**good, name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="probability"):
        found.mse_quantile(1.0)
