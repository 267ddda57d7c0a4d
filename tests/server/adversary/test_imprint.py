"""The imprint at its published strength, and through clipping, noise, FedAvg and bad input."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from configs.adversary import AdversarySettings, ImprintSettings
from server.adversary.base import Candidates, MissingCapabilityError, Observation, PublicData, Trace, Weights, require
from server.adversary.imprint import BIAS, WEIGHT, Imprint
from server.adversary.nulls import noise_only
from server.adversary.placements import placement
from server.adversary.public_model import mean_image
from server.adversary.registry import attack
from simulation.scoring.exact_tests import holm
from simulation.scoring.identification import Decoys
from simulation.scoring.score import AttackScore, score_reconstruction
from tasks.models import ModelSpec, normalise
from tests.server.adversary import hospital

ROWS, BATCH = 256, 24
SETTINGS = ImprintSettings(rows=ROWS, components=60)
PUBLIC = hospital.public()
THEORY = (1 - 1 / ROWS) ** (BATCH - 1)


@pytest.fixture(scope="module")
def imprint() -> Imprint:
    torch.set_num_threads(1)
    return Imprint(SETTINGS)


@pytest.fixture(scope="module")
def planted(imprint: Imprint) -> tuple[ModelSpec, Weights]:
    return imprint.plant(hospital.SPEC, hospital.agreed(), PUBLIC)


@pytest.fixture(scope="module")
def batches(planted: tuple[ModelSpec, Weights]) -> list[tuple[NDArray[np.uint8], hospital.Gradients]]:
    out = []
    for seed in range(5):
        batch = hospital.images(seed, BATCH)
        labels = np.random.default_rng(seed).integers(0, 2, BATCH).tolist()
        out.append((batch, hospital.gradients(*planted, batch, labels)))
    return out


def score(imprint: Imprint, seen: Observation, truths: NDArray[np.uint8], *, decoys: int = 19) -> AttackScore:
    pool = hospital.images(77, len(truths) * decoys)
    return score_reconstruction(
        truths=truths,
        guesses=imprint.reconstruct(Trace.of(seen), PUBLIC).images,
        noise_guesses=imprint.reconstruct(noise_only(Trace.of(seen)), PUBLIC).images,
        mean_image=mean_image(PUBLIC, hospital.SPEC.shape),
        ranked=np.arange(len(truths)),
        decoys=Decoys(pool, np.arange(len(pool)).reshape(len(truths), decoys)),
        informed=lambda candidates: imprint.informed(Trace.of(seen), PUBLIC, Candidates(candidates)),
    )


def test_recovers_what_theory_allows_and_clipping_changes_nothing(imprint, planted, batches):
    plain, clipped = 0, 0
    for batch, found in batches:
        for clip in (None, 1.0):
            sent = hospital.release(found, clip=clip, noise=0, seed=0)
            result = score(imprint, hospital.observe(*planted, sent, clip=clip), batch)
            assert result.null_recovered == 0
            assert result.above_null
            if clip is None:
                plain += round((result.recovered or 0) * BATCH)
            else:
                clipped += round((result.recovered or 0) * BATCH)
                assert result.rank1_p < 1e-6
    trials = BATCH * len(batches)
    error = np.sqrt(THEORY * (1 - THEORY) / trials)
    assert abs(plain / trials - THEORY) < 4 * error
    # A row with two images may tip over .9 when clipping rescales them; rows with one image may not.
    assert abs(plain - clipped) <= 3


def test_clipping_leaves_the_ratio_of_single_rows_alone(imprint, planted, batches):
    _, found = batches[0]
    single = np.flatnonzero(np.count_nonzero(found.bias, axis=0) == 1)
    ratios = []
    for clip in (None, 1.0, 0.01):
        sent = hospital.release(found, clip=clip, noise=0, seed=0)
        ratios.append(sent[WEIGHT][single] / sent[BIAS][single, None])
    np.testing.assert_allclose(ratios[0], ratios[1], rtol=1e-12)
    np.testing.assert_allclose(ratios[0], ratios[2], rtol=1e-12)


def test_the_module_is_the_gradient_and_the_logits_hardly_move(planted, batches):
    spec, weights = planted
    batch, found = batches[0]
    module = np.sum(found.weight**2, axis=(1, 2)) + np.sum(found.bias**2, axis=1)
    fired = np.count_nonzero(found.bias, axis=1)
    assert np.all(fired == 1)
    share = module / (module + found.rest)
    assert share.min() > 0.999999
    bias = np.sum(found.bias**2, axis=1) / module
    assert 0.35 < bias.mean() < 0.65
    inputs = normalise(torch.tensor(batch))
    with torch.no_grad():
        shift = hospital.model(spec, weights)(inputs) - hospital.model(hospital.SPEC, hospital.agreed())(inputs)
    assert shift.abs().max() < 0.2


def test_two_logits_feel_the_module_and_the_agreed_weights_are_untouched(imprint):
    spec = replace(hospital.SPEC, outputs=7)
    sent_spec, sent = imprint.plant(spec, hospital.agreed(spec), PUBLIC)
    for name, value in hospital.agreed(spec).items():
        np.testing.assert_array_equal(sent[f"core.{name}"], value)
    with torch.no_grad():
        inputs = normalise(torch.tensor(hospital.images(5, 9)))
        shift = hospital.model(sent_spec, sent)(inputs) - hospital.model(spec, hospital.agreed(spec))(inputs)
    assert shift[:, 2:].abs().max() == 0
    assert shift.abs().max() < 0.2
    assert ModelSpec.from_json(sent_spec.to_json()) == sent_spec


def test_the_row_that_fires_in_float32_is_the_row_that_is_read(imprint, planted, batches):
    for batch, found in batches:
        sent = {WEIGHT: found.weight.sum(axis=0), BIAS: found.bias.sum(axis=0)}
        seen = hospital.observe(*planted, sent)
        alone = [int(np.flatnonzero(b)[0]) for b in found.bias]
        unique = np.array([alone.count(k) == 1 for k in alone])
        scores = imprint.informed(Trace.of(seen), PUBLIC, Candidates(batch))
        assert scores is not None
        assert np.all(scores[unique] > 1 - 1e-9)


def test_copies_survive_little_noise_and_none_survive_epsilon_8(imprint, planted, batches):
    p_values = []
    for seed, (batch, found) in enumerate(batches):
        little = hospital.release(found, clip=1.0, noise=1e-4, seed=seed)
        result = score(imprint, hospital.observe(*planted, little, clip=1.0, noise=1e-4), batch)
        assert (result.recovered or 0) > THEORY - 0.25
        assert result.identified_informed is not None
        assert result.identified_informed > 0.9
        s = hospital.NOISE_AT_EPSILON_8
        strong = hospital.release(found, clip=1.0, noise=s, seed=100 + seed)
        result = score(imprint, hospital.observe(*planted, strong, clip=1.0, noise=s), batch)
        assert not result.above_null
        p_values.append(result.rank1_p)
    assert min(holm(p_values)) > 0.05


def test_strong_noise_gets_guesses_up_to_the_batch_and_pure_noise_no_claims(imprint, planted):
    zero = {WEIGHT: np.zeros((ROWS, 768)), BIAS: np.zeros(ROWS)}
    strong = hospital.observe(*planted, zero, clip=1.0, noise=0.6)
    guesses = imprint.reconstruct(noise_only(Trace.of(strong)), PUBLIC)
    assert len(guesses.images) == BATCH
    assert np.all(np.diff(guesses.confidence) <= 0)
    weak = hospital.observe(*planted, zero, clip=1.0, noise=1e-3)
    assert len(imprint.reconstruct(noise_only(Trace.of(weak)), PUBLIC).images) == 0


@pytest.mark.parametrize("noise", [1e-3, 0.02, 0.1, 0.6])
def test_noise_alone_passes_no_more_rows_than_stated(imprint, planted, noise):
    zero = {WEIGHT: np.zeros((ROWS, 768)), BIAS: np.zeros(ROWS)}
    passed = 0
    for round_number in range(1, 21):
        seen = replace(hospital.observe(*planted, zero, clip=1.0, noise=noise), round=round_number)
        found = imprint.reconstruct(noise_only(Trace.of(seen)), PUBLIC)
        passed += int(np.sum(found.confidence > np.log(ROWS / 0.01)))
    assert passed <= 1  # .2 expected at most


def test_the_denoised_readout_beats_the_raw_one_where_it_is_chosen(imprint, planted, batches):
    batch, found = batches[0]
    sent = hospital.release(found, clip=1.0, noise=0.01, seed=0)
    seen = hospital.observe(*planted, sent, clip=1.0, noise=0.01)
    guesses = imprint.reconstruct(Trace.of(seen), PUBLIC)
    assert "Wiener" in guesses.readout
    raw = imprint.reconstruct(Trace.of(replace(seen, terms=replace(seen.terms, noise_multiplier=0.0))), PUBLIC)
    truths = batch / 255.0

    def error(images):
        return np.median([np.min(np.mean((images - truth) ** 2, axis=(1, 2, 3))) for truth in truths])

    assert error(guesses.images) < 0.5 * error(raw.images)


def test_unclipped_noise_is_read_raw(imprint, planted, batches):
    batch, found = batches[0]
    sent = hospital.release(found, clip=None, noise=0.5, seed=0)
    result = score(imprint, hospital.observe(*planted, sent, noise=0.5), batch)
    assert (result.recovered or 0) > THEORY - 0.25


@pytest.mark.parametrize("clip", [None, 1.0])
def test_federated_averaging_keeps_the_first_image_of_a_row(imprint, planted, clip):
    spec, weights = planted
    rate, steps, size = 0.01, 3, 16
    current = {name: np.asarray(value, dtype=np.float64) for name, value in weights.items()}
    batches = [hospital.images(50 + step, size) for step in range(steps)]
    for step, batch in enumerate(batches):
        rounded = {name: value.astype(np.float32) for name, value in current.items()}
        found = hospital.gradients(spec, rounded, batch, [step % 2] * size)
        for name, value in hospital.release(found, clip=clip, noise=0, seed=0).items():
            current[name] = current[name] - rate / size * value
    sent = {name: current[name] - weights[name] for name in (WEIGHT, BIAS)}
    seen = hospital.observe(spec, weights, sent, clip=clip, batch=size, steps=steps, learning_rate=rate)
    result = score(imprint, seen, np.concatenate(batches), decoys=5)
    # Alone in its row among its own step's images, and the row not taken in an earlier step.
    expected = np.mean([(1 - 1 / ROWS) ** (size * (step + 1) - 1) for step in range(steps)])
    assert abs((result.recovered or 0) - expected) < 4 * np.sqrt(expected * (1 - expected) / (steps * size))


def test_bad_releases_are_survived(imprint, planted, batches):
    spec, weights = planted
    batch, found = batches[0]
    zero = {WEIGHT: np.zeros((ROWS, 768)), BIAS: np.zeros(ROWS)}
    assert len(imprint.reconstruct(Trace.of(hospital.observe(spec, weights, zero)), PUBLIC).images) == 0
    scores = imprint.informed(Trace.of(hospital.observe(spec, weights, zero)), PUBLIC, Candidates(batch))
    np.testing.assert_array_equal(scores, np.zeros(BATCH))
    nothing = {name: np.full_like(value, np.nan) for name, value in zero.items()}
    for noise in (0.0, 0.5):
        seen = hospital.observe(spec, weights, nothing, clip=1.0, noise=noise)
        assert imprint.reconstruct(Trace.of(seen), PUBLIC).images.shape == (0, 3, 16, 16)
        assert imprint.informed(Trace.of(seen), PUBLIC, Candidates(batch)) is not None
    sent = dict(hospital.release(found, clip=1.0, noise=0, seed=0))
    sent[WEIGHT] = sent[WEIGHT].copy()
    sent[WEIGHT][np.flatnonzero(sent[BIAS])[0], 0] = np.inf
    partly = imprint.reconstruct(Trace.of(hospital.observe(spec, weights, sent, clip=1.0)), PUBLIC)
    assert len(partly.images) == np.count_nonzero(sent[BIAS]) - 1
    assert np.isfinite(partly.images).all()
    assert partly.images.dtype == np.float32


def test_one_image_and_a_batch_of_one_image_are_copied(imprint, planted):
    one = hospital.images(9, 1)
    for count in (1, 6):
        batch = np.repeat(one, count, axis=0)
        found = hospital.gradients(*planted, batch, [1] * count)
        sent = hospital.release(found, clip=1.0, noise=0, seed=0)
        guess = imprint.reconstruct(Trace.of(hospital.observe(*planted, sent, clip=1.0)), PUBLIC).images
        assert len(guess) == 1
        np.testing.assert_allclose(guess, one / 255.0, atol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 8])
def test_little_public_data_is_enough_to_plant_and_read(count):
    few = PublicData(hospital.images(3, 8)[:count], "few")
    imprint = Imprint(ImprintSettings(rows=64, components=400))
    spec, weights = imprint.plant(hospital.SPEC, hospital.agreed(), few)
    batch = hospital.images(4, 4)
    found = hospital.gradients(spec, weights, batch, [0, 1, 0, 1])
    sent = hospital.release(found, clip=1.0, noise=0, seed=0)
    assert len(imprint.reconstruct(Trace.of(hospital.observe(spec, weights, sent, clip=1.0)), few).images) >= 2
    noisy = hospital.release(found, clip=1.0, noise=0.1, seed=0)
    seen = hospital.observe(spec, weights, noisy, clip=1.0, noise=0.1)
    assert np.isfinite(imprint.reconstruct(Trace.of(seen), few).images).all()


def test_constant_public_images_and_fewer_rows_than_images():
    flat = PublicData(np.full((20, 3, 16, 16), 90, dtype=np.uint8), "all alike")
    for public in (flat, PUBLIC):
        imprint = Imprint(ImprintSettings(rows=2))
        spec, weights = imprint.plant(hospital.SPEC, hospital.agreed(), public)
        found = hospital.gradients(spec, weights, hospital.images(4, 6), [0, 1, 0, 1, 0, 1])
        for noise in (0.0, 0.3):
            sent = hospital.release(found, clip=1.0, noise=noise, seed=0)
            guess = imprint.reconstruct(
                Trace.of(hospital.observe(spec, weights, sent, clip=1.0, noise=noise, batch=6)), public
            )
            assert len(guess.images) <= 2
            assert np.isfinite(guess.images).all()


def test_it_needs_the_broadcast(planted):
    one = attack("imprint", AdversarySettings())
    require(one, "malicious_server", placement("malicious_server").capabilities)
    with pytest.raises(MissingCapabilityError, match="control of the broadcast"):
        require(one, "server", placement("server").capabilities)
    with pytest.raises(ValueError, match="already carries a wide block"):
        one.plant(*planted, PUBLIC)
    honest = hospital.observe(hospital.SPEC, hospital.agreed(), {})
    with pytest.raises(ValueError, match="wide block"):
        one.reconstruct(Trace.of(honest), PUBLIC)
