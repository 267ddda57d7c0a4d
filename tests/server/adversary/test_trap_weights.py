"""Trap weights: as many images as theory says are copied without noise, and what clipping and noise leave of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import ndtr

from configs.adversary import AdversarySettings, TrapWeightsSettings
from server.adversary.base import Candidates, MissingCapabilityError, Observation, Trace, Weights, require
from server.adversary.nulls import noise_only
from server.adversary.placements import placement
from server.adversary.registry import attack
from server.adversary.trap_weights import ALIKE, BIAS, WEIGHT, TrapWeights, trap_rows
from tasks.models import ModelSpec, normalise
from tests.server.adversary import hospital

ROWS, BATCH = 512, 24
PUBLIC = hospital.public(count=20)
Planted = tuple[TrapWeights, ModelSpec, Weights]


def planted(wiring: str, scale: float = 0.97) -> Planted:
    settings = TrapWeightsSettings.model_validate({"rows": ROWS, "scale": scale, "wiring": wiring})
    one = TrapWeights(settings)
    return one, *one.plant(hospital.SPEC, hospital.agreed(), PUBLIC)


@pytest.fixture(scope="module")
def logits() -> Planted:
    torch.set_num_threads(1)
    return planted("logits")


@pytest.fixture(scope="module")
def batches(logits: Planted) -> list[tuple[NDArray[np.uint8], hospital.Gradients]]:
    found = [hospital.images(seed, BATCH) for seed in range(5)]
    return [(batch, hospital.gradients(*logits[1:], batch, [0, 1] * (BATCH // 2))) for batch in found]


def activations(weights: Weights, batch: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether a row fires for an image, (n, rows), by hand."""
    return batch.reshape(len(batch), -1) / 255 @ np.asarray(weights[WEIGHT], dtype=np.float64).T > 0


def alone(fires: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether an image is the only one in some row, (n,)."""
    return fires[:, fires.sum(axis=0) == 1].any(axis=1)


def errors(batch: NDArray[np.uint8], guesses: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean squared error of the nearest guess to each image, (n,)."""
    apart = guesses.reshape(len(guesses), 1, 768) - batch.reshape(1, len(batch), 768) / 255
    return np.mean(apart**2, axis=2).min(axis=0, initial=1.0)


def read(of: Planted, sent: dict[str, NDArray[np.float64]], clip: float | None = None, noise: float = 0.0):
    return of[0].reconstruct(Trace.of(hospital.observe(of[1], of[2], sent, clip=clip, noise=noise)), PUBLIC)


def released(found: hospital.Gradients, clip: float | None, noise: float, seed: int = 0):
    return dict(hospital.release(found, clip=clip, noise=noise, seed=seed))


@pytest.mark.parametrize("scale", [0.95, 0.97])
def test_the_images_alone_in_some_row_are_copied_and_no_others(scale):
    of = planted("logits", scale)
    counts = []
    for seed in range(5):
        batch = hospital.images(seed, BATCH)
        expected = alone(activations(of[2], batch))
        found = hospital.gradients(*of[1:], batch, [0, 1] * (BATCH // 2))
        for clip in (None, 1.0):
            guesses = read(of, released(found, clip, 0), clip).images
            np.testing.assert_array_equal(errors(batch, guesses) < 1e-8, expected)
        counts.append(int(expected.sum()))
    # Published: rows of one image for some of a batch, not for all of it; the smaller the scale, the fewer fire.
    assert (0.3 if scale == 0.95 else 0.6) < np.mean(counts) / BATCH < (0.6 if scale == 0.95 else 1.0)


def test_rows_are_half_negative_and_fire_as_often_as_the_normal_limit_says():
    rows = trap_rows(400, 768, 0.97)
    assert np.all(np.count_nonzero(rows < 0, axis=1) == 384)
    for row in rows[:5]:
        np.testing.assert_allclose(np.sort(row[row > 0]), 0.97 * np.sort(-row[row < 0]), rtol=1e-12)
    # Independent uniform pixels x and half-normal sizes |n|, each size used once with either sign.
    mean = -(1 - 0.97) * 384 * np.sqrt(2 / np.pi) / 2
    single = 1 / 3 - (2 / np.pi) / 4
    variance = 384 * ((1 + 0.97**2) * single - 2 * 0.97 / 4 * (1 - 2 / np.pi))
    expected = ndtr(mean / np.sqrt(variance))
    fires = np.random.default_rng(1).random((2000, 768)) @ rows.T > 0
    per_row = fires.mean(axis=0)
    assert abs(per_row.mean() - expected) < 4 * per_row.std() / np.sqrt(len(rows))
    assert np.all(np.full((1, 768), 0.5) @ rows.T < 0)  # a flat image fires nothing


def test_the_layer_in_front_is_read_without_clipping_and_drowns_when_clipped():
    of = planted("image")
    batch = hospital.images(1, BATCH)
    found = hospital.gradients(*of[1:], batch, [0, 1] * (BATCH // 2))
    fires = activations(of[2], batch)
    np.testing.assert_array_equal(found.bias != 0, fires)
    assert alone(fires).sum() > BATCH / 2
    assert np.all(errors(batch, read(of, released(found, None, 0)).images)[alone(fires)] < ALIKE**2)
    module = np.sum(found.weight**2, axis=(1, 2)) + np.sum(found.bias**2, axis=1)
    assert np.max(module / (module + found.rest)) < 1e-4  # the constant shift is all but cancelled
    noisy = read(of, released(found, 1.0, 1e-4), 1.0, 1e-4)
    assert np.all(errors(batch, noisy.images) > ALIKE**2)


def test_wired_to_the_logits_the_layer_is_the_gradient(logits, batches):
    batch, found = batches[0]
    module = np.sum(found.weight**2, axis=(1, 2)) + np.sum(found.bias**2, axis=1)
    np.testing.assert_array_equal(found.bias != 0, activations(logits[2], batch))
    assert np.min(module / (module + found.rest)) > 0.999999
    with torch.no_grad():
        inputs = normalise(torch.tensor(batch))
        shift = hospital.model(*logits[1:])(inputs) - hospital.model(hospital.SPEC, hospital.agreed())(inputs)
    assert 0 < shift.abs().max() < 0.2
    assert ModelSpec.from_json(logits[1].to_json()) == logits[1]


def test_several_rows_with_one_image_are_shown_once_and_average_the_noise_away(logits, batches):
    for seed, (batch, found) in enumerate(batches):
        fires = activations(logits[2], batch)
        lone = fires[:, fires.sum(axis=0) == 1]
        often = np.flatnonzero(lone.sum(axis=1) >= 4)
        assert len(often) > 0
        plain = read(logits, released(found, 1.0, 0), 1.0)
        shown = errors(batch, plain.images)
        near = np.mean((plain.images.reshape(-1, 1, 768) - batch.reshape(1, -1, 768) / 255) ** 2, axis=2) < 1e-8
        assert np.all(near.sum(axis=0)[shown < 1e-8] == 1)
        noise = 2e-4
        sent = released(found, 1.0, noise, seed)
        merged = read(logits, sent, 1.0, noise)
        single = np.clip(sent[WEIGHT] / sent[BIAS][:, None], 0, 1).astype(np.float32)
        best = np.mean(errors(batch, merged.images)[often] / errors(batch, single)[often])
        assert best < 0.7  # a mean over four rows and more, against the best single row
        assert np.all(np.diff(merged.confidence) <= 0)


def test_strong_noise_leaves_nothing(logits, batches):
    _, found = batches[0]
    result = read(logits, released(found, 1.0, hospital.NOISE_AT_EPSILON_8), 1.0, hospital.NOISE_AT_EPSILON_8)
    assert len(result.images) <= 1


def test_noise_alone_passes_no_more_rows_than_stated(logits):
    zero = {WEIGHT: np.zeros((ROWS, 768)), BIAS: np.zeros(ROWS)}
    passed = 0
    for round_number in range(1, 21):
        seen = replace(hospital.observe(*logits[1:], zero, clip=1.0, noise=0.01), round=round_number)
        passed += len(logits[0].reconstruct(noise_only(Trace.of(seen)), PUBLIC).images)
    assert passed <= 1  # .2 expected at most


def test_rounds_that_were_sent_the_same_layer_are_added_up(logits, batches):
    one, spec, weights = logits
    noise = 1e-3
    _, found = batches[0]
    seen = [
        replace(hospital.observe(spec, weights, released(found, 1.0, noise, r), clip=1.0, noise=noise), round=r)
        for r in range(1, 17)
    ]
    other = replace(seen[0], weights={**weights, BIAS: np.ones(ROWS, dtype=np.float32)})
    together = one.reconstruct(Trace.of(other, *seen[1:]), PUBLIC)
    total = {name: np.sum([s.release[name] for s in seen[1:]], axis=0) for name in (WEIGHT, BIAS)}
    by_hand = replace(seen[-1], release=total, rounds=tuple(range(2, 17)))
    np.testing.assert_array_equal(together.images, one.reconstruct(Trace.of(by_hand), PUBLIC).images)
    batch = batches[0][0]
    assert np.median(errors(batch, together.images)) < 0.5 * np.median(
        errors(batch, one.reconstruct(Trace.of(seen[-1]), PUBLIC).images)
    )


def test_bad_releases_are_survived(logits, batches):
    zero = {WEIGHT: np.zeros((ROWS, 768)), BIAS: np.zeros(ROWS)}
    nothing = {name: np.full_like(value, np.nan) for name, value in zero.items()}
    for noise in (0.0, 0.5):
        for sent in (zero, nothing):
            assert read(logits, sent, 1.0, noise).images.shape == (0, 3, 16, 16)
    sent = released(batches[0][1], None, 0)
    first = np.flatnonzero(sent[BIAS])[0]
    sent[WEIGHT][first, 0] = np.inf
    partly = read(logits, sent)
    assert len(partly.images) > 0
    assert np.isfinite(partly.images).all()
    assert partly.images.dtype == np.float32
    one = hospital.images(9, 1)
    found = hospital.gradients(*logits[1:], np.repeat(one, 6, axis=0), [1] * 6)
    guess = read(logits, released(found, 1.0, 0), 1.0).images
    assert len(guess) == 1
    np.testing.assert_allclose(guess, one / 255, atol=1e-4)


def test_it_needs_the_broadcast_and_a_model_without_a_block(logits):
    one = attack("trap_weights", AdversarySettings())
    require(one, "malicious_aggregate", placement("malicious_aggregate").capabilities)
    with pytest.raises(MissingCapabilityError, match="control of the broadcast"):
        require(one, "server", placement("server").capabilities)
    with pytest.raises(ValueError, match="already carries a wide block"):
        one.plant(*logits[1:], PUBLIC)
    honest: Observation = hospital.observe(hospital.SPEC, hospital.agreed(), {})
    with pytest.raises(ValueError, match="wide block"):
        one.reconstruct(Trace.of(honest), PUBLIC)
    assert one.informed(Trace.of(honest), PUBLIC, Candidates(PUBLIC.images)) is None
