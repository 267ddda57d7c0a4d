"""The pieces of the readout against plain probability."""

import numpy as np
import pytest
from scipy.stats import kstest, multivariate_normal, norm

from server.adversary.base import PublicData
from server.adversary.bins import measurement, smooth_edges
from server.adversary.evidence import evidence, features
from server.adversary.levels import Level, level
from server.adversary.matching import Membership
from server.adversary.public_model import PublicModel, decode, encode, fit
from server.adversary.readout import Rows, read_denoised, read_raw
from tests.server.adversary import hospital

SHAPE = (1, 4, 5)


def small(seed: int = 0) -> PublicModel:
    rng = np.random.default_rng(seed)
    images = np.clip(128 + 60 * rng.standard_normal((90, 1, 4, 1)) + 9 * rng.standard_normal((90, *SHAPE)), 0, 255)
    return fit(PublicData(images.astype(np.uint8), "bands"), SHAPE, 3)


def rows(model: PublicModel, weight: np.ndarray, bias: np.ndarray) -> Rows:
    direction = model.components[0].astype(np.float64)
    count = len(bias)
    return Rows(weight, bias, direction, np.full(count, 2.0), np.arange(count) - count / 2.0)


def test_evidence_is_the_log_likelihood_ratio_of_the_gaussians():
    model, at = small(), Level(0.3, 0.7, 0.2)
    rng = np.random.default_rng(1)
    weight, bias = 0.5 * rng.standard_normal((6, 20)), rng.standard_normal(6)
    basis = model.components.astype(np.float64)
    white = model.residual.sum() / (20 - len(basis))
    prior = basis.T @ np.diag(model.variances) @ basis + white * (np.eye(20) - basis.T @ basis)
    noise = at.std**2 * np.eye(20)
    wide = np.hypot(at.std, at.spread)
    with_image = multivariate_normal(np.zeros(20), at.amplitude**2 * prior + noise).logpdf(weight)
    with_image += np.log(0.5 * norm.pdf(bias, 0.7, wide) + 0.5 * norm.pdf(bias, -0.7, wide))
    alone = multivariate_normal(np.zeros(20), noise).logpdf(weight) + norm.logpdf(bias, 0, at.std)
    found = evidence(features(rows(model, weight, bias), model), model, at)
    np.testing.assert_allclose(found, with_image - alone, rtol=1e-5, atol=1e-5)


def test_the_denoised_readout_tends_to_the_raw_one_and_to_the_mean():
    model = small()
    rng = np.random.default_rng(2)
    z = 0.2 * rng.standard_normal((5, 20))
    seen = rows(model, 0.7 * z, np.full(5, -0.7))
    faint = Level(1e-9, 0.7, 0.1)
    np.testing.assert_allclose(read_denoised(seen, model, faint), read_raw(seen, faint), atol=1e-6)
    np.testing.assert_allclose(read_raw(seen, faint), -z, atol=1e-6)
    loud = read_denoised(seen, model, Level(1e3, 0.7, 0.1))
    # Nothing is left of the release: only the slab, which fixes the first component.
    rest = loud - (loud @ seen.direction)[:, None] * seen.direction
    assert np.abs(rest).max() < 1e-2


def test_the_level_follows_the_terms():
    model = small()
    one = level(hospital.observe(hospital.SPEC, {}, {}, clip=2.0, noise=0.1).terms, model)
    assert one.std == pytest.approx(0.2)
    assert 0 < (one.amplitude or 0) < 2
    assert level(hospital.observe(hospital.SPEC, {}, {}, noise=0.1).terms, model).amplitude is None
    many = hospital.observe(hospital.SPEC, {}, {}, clip=2.0, noise=0.1, batch=8, steps=4, learning_rate=0.5)
    several = level(many.terms, model)
    assert several.std / (several.amplitude or 0) == pytest.approx(2 * one.std / (one.amplitude or 0))


def test_the_matched_filter_knows_nothing_of_pure_noise_and_finds_what_is_there():
    model, at = small(), Level(0.05, 0.7, 0.15)
    rng = np.random.default_rng(3)
    basis = model.components.astype(np.float64)
    candidates = (rng.standard_normal((400, len(basis))) * np.sqrt(model.variances)) @ basis
    candidates = candidates.astype(np.float32)
    noise = rows(model, 0.05 * rng.standard_normal((16, 20)), 0.05 * rng.standard_normal(16))
    scores = Membership.of(noise, model, at, images=8).scores(candidates)
    assert np.all(scores < 0)
    inside = candidates[0]
    home = int(np.argmin(np.abs(2 * inside @ noise.direction + noise.offset - 0.5)))
    for extra in (None, candidates[1].astype(np.float64)):
        weight, bias = noise.weight.copy(), noise.bias.copy()
        size = 1 / np.sqrt(1 + inside @ inside)
        weight[home] -= size * inside
        bias[home] -= size
        if extra is not None:  # a second image in the same row
            weight[home] += extra / np.sqrt(1 + extra @ extra)
            bias[home] += 1 / np.sqrt(1 + extra @ extra)
        both = Membership.of(rows(model, weight, bias), model, at, images=8).scores(candidates)
        assert both[0] > 0
        assert both[0] == both[np.arange(400) != 1].max()


@pytest.mark.parametrize("count", [30, 500, 3_000])
def test_bins_are_equally_likely_for_values_never_seen(count):
    rng = np.random.default_rng(0)
    edges = smooth_edges(rng.standard_normal(count), 128)
    assert np.all(np.diff(edges) > 0)
    fresh = rng.standard_normal(40_000)
    assert edges[0] < fresh.min()
    assert fresh.max() < edges[-1]
    share = np.histogram(fresh, edges)[0] / len(fresh)
    alone = np.sum(share * (1 - share) ** 31)
    assert alone > (1 - 1 / 128) ** 31 - (0.02 if count >= 500 else 0.1)


def test_the_measurement_spreads_unseen_images_over_its_bins():
    public = hospital.public()
    model = fit(public, hospital.SPEC.shape, 60)
    bins = measurement(model, model.encode(public.images), 64)
    fresh = model.encode(hospital.images(5, 2_000)) @ bins.direction
    place = np.interp(fresh, bins.edges, np.linspace(0, 1, 65))
    assert kstest(place[(fresh > bins.edges[1]) & (fresh < bins.edges[-2])], "uniform").statistic < 0.06
    assert bins.edges[0] < fresh.min()
    assert fresh.max() < bins.edges[-1]


def test_the_public_model_is_centred_scaled_and_orthonormal():
    public = hospital.public()
    model = fit(public, hospital.SPEC.shape, 60)
    z = model.encode(public.images)
    assert np.mean(np.sum(z**2, axis=1)) == pytest.approx(1, rel=1e-4)
    np.testing.assert_allclose(model.components @ model.components.T, np.eye(60), atol=1e-5)
    back = decode(z, model.centre, model.scale, model.shape)
    np.testing.assert_allclose(back, public.images / 255, atol=1e-5)
    np.testing.assert_allclose(encode(back, model.centre, model.scale), z, atol=1e-5)
    # What the components and the cosine spectrum explain together is all of the held-out energy.
    assert model.variances.sum() + model.residual.sum() == pytest.approx(model.norms.mean(), rel=0.02)


def test_public_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="shape"):
        fit(PublicData(np.zeros((9, 1, 8, 8), dtype=np.uint8), "other"), SHAPE, 3)
