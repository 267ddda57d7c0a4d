"""The nulls, and attacks by name."""

import numpy as np
import pytest

from configs.adversary import AdversarySettings
from server.adversary.base import Candidates, PublicData, Trace
from server.adversary.imprint import Imprint
from server.adversary.nulls import MeanImage, noise_only, noise_std
from server.adversary.registry import ATTACKS, attack
from tests.server.adversary import hospital


def seen(**terms):
    release = {"b": np.full((200, 100), 5.0), "a": np.full(40, 5.0)}
    return hospital.observe(hospital.SPEC, hospital.agreed(), release, **terms)


def test_mean_image_needs_nothing_and_reads_nothing():
    public = hospital.public(count=20)
    one = attack("mean_image", AdversarySettings())
    assert one.needs == frozenset()
    guess = one.reconstruct(Trace.of(seen()), public)
    np.testing.assert_allclose(guess.images[0], public.images.mean(axis=0) / 255, atol=1e-6)
    assert guess.images.dtype == np.float32
    assert one.informed(Trace.of(seen()), public, Candidates(public.images)) is None
    nobody = PublicData(np.zeros((0, 3, 16, 16), dtype=np.uint8), "none")
    np.testing.assert_array_equal(one.reconstruct(Trace.of(seen()), nobody).images, np.full((1, 3, 16, 16), 0.5))


def test_noise_only_has_the_terms_noise_and_nothing_of_the_release():
    null = noise_only(Trace.of(seen(clip=2.0, noise=0.3))).last
    assert np.std(null.release["b"]) == pytest.approx(0.6, rel=0.02)
    assert abs(np.mean(null.release["b"])) < 0.02
    again = noise_only(Trace.of(seen(clip=2.0, noise=0.3))).last
    np.testing.assert_array_equal(null.release["a"], again.release["a"])
    assert not np.any(noise_only(Trace.of(seen())).last.release["b"])


def test_noise_of_several_local_steps_adds_up():
    terms = seen(clip=2.0, noise=0.3, batch=10, steps=4, learning_rate=0.5).terms
    assert noise_std(terms) == pytest.approx(0.3 * 2.0 * 0.5 / 10 * 2)
    assert noise_std(seen(noise=0.3).terms) == 0.3


def test_every_setting_names_an_attack():
    for name in ATTACKS:
        assert attack(name, AdversarySettings()).name == name
    assert isinstance(attack("imprint", AdversarySettings()), Imprint)
    assert isinstance(attack("mean_image", AdversarySettings()), MeanImage)
    with pytest.raises(ValueError, match="choose from imprint"):
        attack("guess", AdversarySettings())
