"""The public images are fitted once, and what is kept changes nothing."""

import numpy as np
import pytest

from configs.adversary import DataTrapsSettings, ImprintSettings
from server.adversary import fitting, public_model
from server.adversary.base import PublicData, Trace
from server.adversary.bins import measurement
from server.adversary.data_traps import DataTraps
from server.adversary.fitting import LAST
from server.adversary.imprint import Imprint
from server.adversary.public_model import encode, fit
from tests.server.adversary import hospital

SETTINGS = ImprintSettings(rows=32, components=20)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the public images that were fitted, from an empty start."""
    LAST.clear()
    asked: list[tuple[int, ...]] = []

    def counted(public, *rest):
        asked.append(public.images.shape)
        return fit(public, *rest)

    monkeypatch.setattr(fitting, "fit", counted)
    return asked


def test_planting_and_reading_by_another_instance_fit_once_and_read_the_same(fits):
    public = hospital.public(count=60)
    spec, weights = Imprint(SETTINGS).plant(hospital.SPEC, hospital.agreed(), public)
    images = hospital.images(5, 6)
    found = hospital.gradients(spec, weights, images, [0, 1, 0, 1, 0, 1])
    sent = hospital.release(found, clip=1.0, noise=1e-3, seed=0)
    trace = Trace.of(hospital.observe(spec, weights, sent, clip=1.0, noise=1e-3, batch=6))
    copy = PublicData(public.images.copy(), "read from disk again")
    kept = Imprint(SETTINGS).reconstruct(trace, copy)
    assert len(fits) == 1
    LAST.clear()
    afresh = Imprint(SETTINGS).reconstruct(trace, public)
    assert len(fits) == 2
    assert len(kept.images)
    np.testing.assert_array_equal(kept.images, afresh.images)
    np.testing.assert_array_equal(kept.confidence, afresh.confidence)


def test_anything_that_a_fit_depends_on_is_another_fit(fits):
    public, agreed = hospital.public(count=60), hospital.agreed()
    changed = public.images.copy()
    changed[7, 1, 3, 3] ^= 1
    for settings, images in [
        (SETTINGS, public.images),
        (SETTINGS, changed),
        (ImprintSettings(rows=33, components=20), public.images),
        (ImprintSettings(rows=32, components=19), public.images),
        (SETTINGS, public.images[:-1]),
    ]:
        before = len(fits)
        _, weights = Imprint(settings).plant(hospital.SPEC, agreed, PublicData(images, ""))
        assert len(fits) == before + 1
        model = fit(PublicData(images, ""), hospital.SPEC.shape, settings.components)
        edges = measurement(model, model.encode(images), settings.rows).edges
        np.testing.assert_array_equal(weights["wide.centre"], model.centre)
        np.testing.assert_array_equal(
            weights["wide.units.bias"], (-1e-12 / np.diff(edges) * edges[:-1]).astype(np.float32)
        )


def test_one_instance_keeps_its_own_while_another_is_asked(fits):
    one, other = hospital.public(count=60), hospital.public(seed=2_000, count=60)
    first, second = Imprint(SETTINGS), Imprint(SETTINGS)
    for _ in range(3):
        first.public_model(one, hospital.SPEC.shape)
        second.public_model(other, hospital.SPEC.shape)
        DataTraps(DataTrapsSettings(rows=8)).plant(hospital.SPEC, hospital.agreed(), one)
    assert len(fits) == 2 + 1, "the traps' fit is still kept when they are planted again"


def test_coordinates_in_parts_are_the_products_as_a_whole(monkeypatch):
    model = fit(hospital.public(count=60), hospital.SPEC.shape, 20)
    z = np.random.default_rng(0).standard_normal((7, model.components.shape[1]))
    basis = model.components.astype(np.float64)
    for most in (1, 20 * 100, 2**21):
        monkeypatch.setattr(public_model, "_AT_ONCE", most)
        np.testing.assert_allclose(model.coordinates(z), z @ basis.T, rtol=0, atol=1e-12)
        np.testing.assert_allclose(model.spanned(z @ basis.T), z @ basis.T @ basis, rtol=0, atol=1e-12)


def test_encoding_in_place_spares_the_images_and_is_the_formula():
    rng = np.random.default_rng(0)
    pixels, centre = rng.random((3, 1, 4, 5), dtype=np.float32), rng.random(20, dtype=np.float32)
    before = pixels.copy()
    found = encode(pixels, centre, 0.3)
    np.testing.assert_allclose(
        found, 0.3 * ((before.reshape(3, 20).astype(np.float64) - 0.5) / 0.25 - centre), atol=1e-6
    )
    np.testing.assert_array_equal(pixels, before)
