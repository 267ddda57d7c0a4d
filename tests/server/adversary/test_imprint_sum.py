"""The imprint through a sum over hospitals: rows of their own, shared rows, and a share of the energy below 1."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.adversary import AdversarySettings, ImprintSettings
from server.adversary.base import EVERYBODY, Addressee, Candidates, Observation, PublicTerms, Trace, Weights
from server.adversary.imprint import BIAS, WEIGHT, Imprint
from server.adversary.public_model import mean_image
from server.adversary.registry import attack
from server.adversary.terms import terms_of_sum
from simulation.scoring.assignment import pair
from tasks.models import ModelSpec
from tests.server.adversary import hospital

PUBLIC = hospital.public()
HOSPITALS, EACH, ROWS = 6, 8, 32


def planted(imprint: Imprint, index: int | None) -> tuple[ModelSpec, Weights]:
    to = Addressee(count=HOSPITALS) if index is None else Addressee(f"h{index}", index, HOSPITALS)
    return imprint.plant(hospital.SPEC, hospital.agreed(), PUBLIC, to)


def summed(imprint: Imprint, *, noise: float = 0.0, clip: float | None = None) -> tuple[Trace, NDArray[np.uint8]]:
    """Every hospital's release with what it was sent, added up."""
    images = hospital.images(11, HOSPITALS * EACH)
    sent: list[dict[str, NDArray[np.float64]]] = []
    for index in range(HOSPITALS):
        spec, weights = planted(imprint, index)
        batch = images[index * EACH : (index + 1) * EACH]
        found = hospital.gradients(spec, weights, batch, np.random.default_rng(index).integers(0, 2, EACH).tolist())
        sent.append(dict(hospital.release(found, clip=clip, noise=noise, seed=index)))
    total = {name: np.sum([one[name] for one in sent], axis=0) for name in (WEIGHT, BIAS)}
    spec, weights = planted(imprint, None)
    terms = terms_of_sum([PublicTerms(clip, noise, 1.0, 1, EACH, 0.0)] * HOSPITALS)
    members = tuple(f"h{i}" for i in range(HOSPITALS))
    return Trace.of(Observation(1, "the sum", spec, weights, total, terms, members)), images


@pytest.fixture(scope="module")
def own() -> Imprint:
    return Imprint(ImprintSettings(rows=ROWS, components=60, per_hospital=True))


def test_a_hospitals_own_rows_are_live_and_all_others_get_exactly_nothing(own: Imprint):
    batch = hospital.images(3, EACH)
    for index in (0, 3, HOSPITALS - 1):
        spec, weights = planted(own, index)
        found = hospital.gradients(spec, weights, batch, [0, 1] * (EACH // 2))
        mine = np.arange(HOSPITALS * ROWS) // ROWS == index
        assert np.count_nonzero(found.bias[:, ~mine]) == 0
        assert np.count_nonzero(found.weight[:, ~mine]) == 0
        assert np.all(np.count_nonzero(found.bias[:, mine], axis=1) == 1)
        share = np.sum(found.weight**2, axis=(1, 2)) + np.sum(found.bias**2, axis=1)
        assert np.all(share / (share + found.rest) > 0.999999)


def test_everybodys_rows_are_each_hospitals_and_the_specification_is_one(own: Imprint):
    spec, everybody = planted(own, None)
    for index in range(HOSPITALS):
        sent_spec, sent = planted(own, index)
        assert sent_spec == spec
        mine = slice(index * ROWS, (index + 1) * ROWS)
        for name in (WEIGHT, BIAS):
            np.testing.assert_array_equal(sent[name][mine], everybody[name][mine])
    assert own.personal
    assert attack("imprint", AdversarySettings(imprint=own.settings)).personal
    shared = Imprint(ImprintSettings(rows=ROWS, components=60))
    assert not shared.personal
    whole, named = shared.plant(hospital.SPEC, hospital.agreed(), PUBLIC), planted(shared, 2)
    assert whole[0] == named[0] == shared.plant(hospital.SPEC, hospital.agreed(), PUBLIC, EVERYBODY)[0]
    np.testing.assert_array_equal(whole[1][WEIGHT], named[1][WEIGHT])


@pytest.mark.parametrize("clip", [None, 1.0])
def test_rows_of_their_own_keep_hospitals_apart_in_a_sum(own: Imprint, clip: float | None):
    mean = mean_image(PUBLIC, hospital.SPEC.shape)
    shares = {}
    for name, imprint in (("own", own), ("shared", Imprint(ImprintSettings(rows=ROWS, components=60)))):
        trace, images = summed(imprint, clip=clip)
        guesses = imprint.reconstruct(trace, PUBLIC)
        shares[name] = np.mean(pair(images, guesses.images, mean).ssim > 0.9)
        scores = imprint.informed(trace, PUBLIC, Candidates(images))
        assert scores is not None
        assert np.mean(scores > 0.9999) == pytest.approx(shares[name], abs=0.1)
    count = HOSPITALS * EACH
    for name, behind in (("own", EACH), ("shared", count)):
        theory = (1 - 1 / ROWS) ** (behind - 1)
        assert abs(shares[name] - theory) < 4 * np.sqrt(theory * (1 - theory) / count), name


def test_the_sums_noise_is_told_from_images_and_candidates_are_found_in_any_block(own: Imprint):
    trace, images = summed(own, noise=1e-3, clip=1.0)
    guesses = own.reconstruct(trace, PUBLIC)
    mean = mean_image(PUBLIC, hospital.SPEC.shape)
    assert np.mean(pair(images, guesses.images, mean).ssim > 0.9) > 0.5
    scores = own.informed(trace, PUBLIC, Candidates(np.concatenate([images, hospital.images(99, 300)])))
    assert scores is not None
    assert np.mean(scores[: len(images)] > scores[len(images) :].max()) > 0.9


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_a_share_is_what_an_unseen_image_feels(share: float):
    imprint = Imprint(ImprintSettings(rows=64, components=60, share=share))
    spec, weights = imprint.plant(hospital.SPEC, hospital.agreed(), PUBLIC)
    batch = hospital.images(21, 24)
    found = hospital.gradients(spec, weights, batch, [0, 1] * 12)
    module = np.sum(found.weight**2, axis=(1, 2)) + np.sum(found.bias**2, axis=1)
    assert np.median(module / (module + found.rest)) == pytest.approx(share, rel=0.35)
    # Clipped, and still read: the ratio of a row does not depend on its size.
    sent = hospital.release(found, clip=1.0, noise=0, seed=0)
    seen = hospital.observe(spec, weights, sent, clip=1.0)
    mean = mean_image(PUBLIC, hospital.SPEC.shape)
    copied = pair(batch, imprint.reconstruct(Trace.of(seen), PUBLIC).images, mean).ssim > 0.9
    theory = (1 - 1 / 64) ** 23
    assert abs(copied.mean() - theory) < 4 * np.sqrt(theory * (1 - theory) / 24)
    scores = imprint.informed(
        Trace.of(replace(seen, release=hospital.release(found, clip=1.0, noise=0.01, seed=0),
                         terms=replace(seen.terms, noise_multiplier=0.01))),
        PUBLIC, Candidates(np.concatenate([batch, hospital.images(99, 100)])),
    )  # fmt: skip
    assert scores is not None
    assert np.mean(scores[:24] > np.quantile(scores[24:], 0.95)) > 0.8


def test_a_share_of_a_dense_model_is_measured_too():
    spec = ModelSpec("unet", (1, 16, 16), 3, 4)
    public = replace(PUBLIC, images=PUBLIC.images[:, :1])
    imprint = Imprint(ImprintSettings(rows=16, components=20, share=0.2))
    sent, weights = imprint.plant(spec, hospital.agreed(spec), public)
    assert sent.block is not None
    assert 0 < sent.block.gain < 1e6
    assert np.isfinite(weights[WEIGHT]).all()
