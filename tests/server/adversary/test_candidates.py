"""Candidate matching against the hospital's own gradients, brute force, the formal bound, and real images."""

import csv
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import binom, multivariate_normal

from clients.gradients import GradientEngine
from configs.adversary import AdversarySettings
from privacy import reconstruction_bound
from server.adversary.base import (
    Candidates,
    MissingCapabilityError,
    Observation,
    PublicData,
    PublicTerms,
    Trace,
    Weights,
    require,
)
from server.adversary.candidates import CandidateMatching, participation
from server.adversary.candidates_background import Background
from server.adversary.candidates_gradients import ImageGradients, Vectors
from server.adversary.placements import PLACEMENTS
from server.adversary.registry import attack
from tasks.models import ModelSpec, build, initial_weights, load_weights
from tests.server.adversary.hospital import images

BINARY = ModelSpec("resnet9", (3, 16, 16), 1, 2)
SEVEN = ModelSpec("resnet9", (3, 16, 16), 7, 2)
MANY = ModelSpec("resnet9", (3, 16, 16), 20, 2)
DENSE = ModelSpec("unet", (1, 16, 16), 3, 2)
LOSS = {"resnet9": {1: "binary", 7: "categorical", 20: "categorical"}, "unet": {3: "dice"}}
NOBODY = PublicData(np.zeros((0, 3, 16, 16), np.uint8), "none")
CHANCE = 1e-6


def weights_of(spec: ModelSpec) -> Weights:
    return {name: value.numpy() for name, value in initial_weights(spec, 3).items()}


def hospital(spec: ModelSpec) -> GradientEngine:
    model = build(spec)
    load_weights(model, initial_weights(spec, 3))
    return GradientEngine(model, LOSS[spec.kind][spec.outputs])


def clipped(spec: ModelSpec, pictures: NDArray[np.uint8], targets: NDArray[np.int64], clip: float | None):
    """The hospital's own gradients, one image at a time, by name."""
    engine = hospital(spec)
    for picture, target in zip(pictures, targets, strict=True):
        one, label = torch.from_numpy(picture[None]), torch.from_numpy(np.asarray(target)[None])
        total = engine.plain_sum(one, label) if clip is None else engine.clipped_sum(one, label, torch.zeros(1), clip)
        yield {name: value.numpy() for name, value in engine.by_name(total).items()}


def observe(spec: ModelSpec, release: dict[str, NDArray[np.float64]] | None = None, **terms: object) -> Observation:
    told = {
        "clipping_norm": 1.0,
        "noise_multiplier": 0.0,
        "sample_rate": 1.0,
        "local_steps": 1,
        "expected_batch": 1.0,
        "learning_rate": 0.0,
        **terms,
    }
    weights = weights_of(spec)
    silence = {name: np.zeros(value.shape) for name, value in weights.items()}
    return Observation(1, "rosendahl", spec, weights, release or silence, PublicTerms(**told))


@pytest.mark.parametrize("spec", [BINARY, SEVEN, DENSE], ids=["binary", "7 classes", "dense"])
@pytest.mark.parametrize("clip", [None, 0.05, 1e3])
def test_gradients_are_the_hospitals(spec: ModelSpec, clip: float | None) -> None:
    pictures = images(1, 3, 16)[:, : spec.shape[0]]
    rng = np.random.default_rng(0)
    targets = rng.integers(0, max(2, spec.outputs), (3, 16, 16) if spec.dense else 3)
    gradients = ImageGradients(observe(spec, clipping_norm=clip))
    found = gradients.known(pictures, targets)
    for i, own in enumerate(clipped(spec, pictures, targets, clip)):
        mine = found.rows[i] * found.factors[i, 0]
        np.testing.assert_allclose(mine, gradients.flat(own), atol=1e-6 * np.linalg.norm(mine), rtol=1e-4)
        if clip == 0.05:
            assert np.linalg.norm(mine) == pytest.approx(clip, rel=1e-5)
    if not spec.dense:
        guesses = gradients.guessed(pictures, gradients.labels(pictures))
        every = np.concatenate([p.factors[:, :, None] * p.rows[:, None] for p in guesses], axis=1)
        assert every.shape[1] == max(2, spec.outputs)
        mine = (found.rows * found.factors)[:, None]
        own_guess = np.take_along_axis(every, targets[:, None, None], axis=1)
        np.testing.assert_allclose(own_guess, mine, atol=1e-6 * np.linalg.norm(mine), rtol=1e-4)


def test_views_of_a_unit_are_added_before_they_are_clipped() -> None:
    pictures, labels, groups = images(2, 5, 16), np.array([1, 1, 0, 0, 0]), np.array([0, 0, 1, 1, 1])
    engine = hospital(BINARY)
    for clip in (None, 0.3):
        gradients = ImageGradients(observe(BINARY, clipping_norm=clip))
        found = gradients.known(pictures, labels, groups, views=1 if clip else 2)
        for unit in (0, 1):
            part = torch.from_numpy(pictures[groups == unit]), torch.from_numpy(labels[groups == unit])
            if clip is None:
                own = engine.plain_sum(*part) / 2
            else:
                own = engine.clipped_sum(*part, torch.zeros(len(part[0])), clip)
            mine = gradients.flat({n: v.numpy() for n, v in engine.by_name(own).items()})
            np.testing.assert_allclose(
                found.rows[unit] * found.factors[unit, 0], mine, atol=3e-5 * np.linalg.norm(mine), rtol=1e-4
            )


def test_an_image_without_a_finite_gradient_adds_nothing() -> None:
    seen = observe(BINARY)
    broken = {name: np.full_like(value, np.inf) for name, value in seen.weights.items()}
    gradients = ImageGradients(Observation(1, "x", BINARY, broken, seen.release, seen.terms))
    found = gradients.known(images(3, 2, 16), np.array([0, 1]))
    assert not found.rows.any()
    assert not found.factors.any()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12),
    st.floats(0.01, 1.0),
    st.floats(-3, 3),
    st.floats(0, 4),
)
def test_participation_is_the_mixture_over_counts(times: int, rate: float, along: float, energy: float) -> None:
    k = np.arange(times + 1)
    direct = math.log(np.sum(binom.pmf(k, times, rate) * np.exp(k * along - k**2 * energy / 2)))
    found = participation(np.array([along]), np.array([energy]), times=times, rate=rate)
    assert found[0] == pytest.approx(direct, abs=1e-6)


def test_whitening_is_the_gaussian_likelihood_ratio() -> None:
    """Against scipy's density of a full covariance matrix, on a model small enough to have one."""
    rng = np.random.default_rng(5)
    size, count = 40, 7
    spread = rng.standard_normal((count, size)).astype(np.float32)
    from server.adversary import candidates_background

    release = rng.standard_normal(size)
    background = candidates_background._whitened(0.7, spread, release)
    law = multivariate_normal(np.zeros(size), 0.7 * np.eye(size) + spread.astype(float).T @ spread.astype(float))
    candidates = rng.standard_normal((5, size)).astype(np.float32)
    along, energy = background.read(Vectors(candidates, np.array([[1.0, -0.5]] * 5)))
    for i, candidate in enumerate(candidates):
        for j, factor in enumerate((1.0, -0.5)):
            exact = law.logpdf(release - factor * candidate) - law.logpdf(release)
            assert along[i, j] - energy[i, j] / 2 == pytest.approx(exact, abs=1e-9)


def test_without_other_images_the_score_is_the_textbook_filter() -> None:
    pictures, labels = images(4, 6, 16), np.array([0, 1, 0, 1, 0, 1])
    own = list(clipped(BINARY, pictures, labels, 1.0))
    rng = np.random.default_rng(0)
    noisy = {name: value + 0.6 * rng.standard_normal(value.shape) for name, value in own[2].items()}
    rounds = [observe(BINARY, noisy, noise_multiplier=0.6, sample_rate=rate) for rate in (1.0, 0.3)]
    gradients = ImageGradients(rounds[0])
    r = gradients.flat(noisy)
    ratio = np.array([(r @ g - g @ g / 2) / 0.36 for g in map(gradients.flat, own)])
    expected = ratio + np.log(0.7 + 0.3 * np.exp(ratio))
    trace = Trace.of(*rounds)
    found = CandidateMatching().informed(trace, NOBODY, Candidates(pictures, labels))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    both = [CandidateMatching().informed(trace, NOBODY, Candidates(pictures, np.full(6, y))) for y in (0, 1)]
    unknown = CandidateMatching().informed(trace, NOBODY, Candidates(pictures))
    np.testing.assert_allclose(unknown, np.logaddexp(*both) - math.log(2), atol=1e-4)


def bound_and_rate(
    s: float, q: float, steps: int, count: int, overlap: float, trials: int, seed: int
) -> tuple[float, float]:
    """Synthetic gradients of norm 1 whose pairs overlap equally: (bound, rate of rank one); the target is always 0."""
    rng = np.random.default_rng(seed)
    shared, own = math.sqrt(overlap), math.sqrt(1 - overlap)
    total = np.zeros((trials, count))
    for _ in range(steps):
        drawn = (rng.random((trials, 1)) < q).astype(float)
        noise = own * rng.standard_normal((trials, count)) + shared * rng.standard_normal((trials, 1))
        along = s * noise + drawn * np.where(np.arange(count) == 0, 1.0, overlap)
        total += participation(along / s**2, np.full(total.shape, 1 / s**2), times=1, rate=q)
    rate = float(np.mean(np.argmax(total + 1e-9 * rng.random(total.shape), axis=1) == 0))
    return reconstruction_bound(
        noise_multiplier=s, sample_rate=q, steps=steps, prior=1 / count, threat="worst_case"
    ), rate


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.floats(0.15, 4.0),
    st.sampled_from([1.0, 0.5, 0.1]),
    st.sampled_from([1, 3, 20]),
    st.sampled_from([5, 50]),
    st.sampled_from([0.0, 0.5, 0.95]),
)
def test_never_above_the_bound(s: float, q: float, steps: int, count: int, overlap: float) -> None:
    bound, rate = bound_and_rate(s, q, steps, count, overlap, trials=1500, seed=1)
    assert binom.sf(round(rate * 1500) - 1, 1500, bound) > CHANCE


@pytest.mark.parametrize(("count", "share"), [(100, 0.8), (1000, 0.8)])
def test_orthogonal_candidates_reach_the_bound_at_epsilon_8(count: int, share: float) -> None:
    bound, rate = bound_and_rate(0.6002, 1.0, 1, count, 0.0, trials=12_000, seed=2)
    assert share * bound <= rate <= bound


def test_only_who_reads_releases_may_match_and_it_says_what_it_cannot() -> None:
    matching = attack("candidate_matching", AdversarySettings())
    for name, seat in PLACEMENTS.items():
        if name == "release":
            with pytest.raises(MissingCapabilityError, match="releases of single rounds"):
                require(matching, name, seat.capabilities)
        else:
            require(matching, name, seat.capabilities)
    pictures = images(6, 2, 16)
    assert matching.informed(Trace.of(observe(DENSE)), NOBODY, Candidates(pictures[:, :1])) is None
    still = Trace.of(observe(BINARY, local_steps=4))
    assert matching.informed(still, NOBODY, Candidates(pictures)) is None
    nothing = matching.informed(Trace.of(observe(BINARY)), NOBODY, Candidates(pictures[:0]))
    assert nothing is not None
    assert nothing.shape == (0,)
    broken = observe(BINARY, {name: np.full(v.shape, np.nan) for name, v in weights_of(BINARY).items()})
    scores = matching.informed(Trace.of(broken), NOBODY, Candidates(pictures))
    np.testing.assert_array_equal(scores, [0, 0])
    assert isinstance(matching, CandidateMatching)
    with pytest.raises(ValueError, match="known targets"):
        matching.informed_units(Trace.of(observe(BINARY)), NOBODY, Candidates(pictures), np.zeros(2, np.int64))


def test_many_classes_try_the_likeliest_labels_of_the_last_round_in_all_rounds() -> None:
    pictures, labels = images(7, 4, 16), np.array([3, 9, 11, 17])
    gradients = ImageGradients(observe(MANY))
    tried = gradients.labels(pictures)
    assert tried.shape == (4, 5)
    own = next(clipped(MANY, pictures[:1], tried[:1, 0], 1.0))
    trace = Trace.of(observe(MANY, own, noise_multiplier=0.1), observe(MANY, own, noise_multiplier=0.1))
    found = CandidateMatching().informed(trace, NOBODY, Candidates(pictures))
    assert found is not None
    assert np.argmax(found) == 0
    each = [
        CandidateMatching().informed(trace, NOBODY, Candidates(pictures, tried[:, k])) for k in range(tried.shape[1])
    ]
    np.testing.assert_allclose(found, np.logaddexp.reduce(each) - math.log(5), atol=1e-3)
    assert len(labels) == 4


def test_local_steps_are_read_to_first_order() -> None:
    """Plain SGD over three steps on one image: its difference of weights points at it."""
    pictures, rate, steps = images(8, 12, 16), 1e-3, 3
    engine = hospital(BINARY)
    before = engine.read()
    here = before.clone()
    for _ in range(steps):
        here -= rate * engine.clipped_sum(torch.from_numpy(pictures[:1]), torch.ones(1), torch.zeros(1), 1.0)
        engine.write(here)
    release = {name: value.numpy() for name, value in engine.by_name(here - before).items()}
    seen = observe(BINARY, release, local_steps=steps, learning_rate=rate, noise_multiplier=0.05)
    found = CandidateMatching().informed(Trace.of(seen), NOBODY, Candidates(pictures))
    assert found is not None
    assert np.argmax(found) == 0
    background = Background.of(seen, ImageGradients(seen), NOBODY)
    assert background.variance == pytest.approx(steps * 0.05**2)


@pytest.mark.skipif(
    not (Path(os.environ.get("FEDWARD_DATA", "/nonexistent")) / "ham10000").is_dir(),
    reason="FEDWARD_DATA names no folder with ham10000",
)
def test_finds_real_images_in_a_batch_of_others() -> None:
    """HAM10000 at 64x64, 64 images in one unnoised release, unknown labels, 150 public images of other lesions."""
    root = Path(os.environ["FEDWARD_DATA"]) / "ham10000"
    files = {path.stem: path for path in root.glob("*/*.jpg")}
    with (root / "HAM10000_metadata.csv").open() as file:
        rows = {row["lesion_id"]: row for row in csv.DictReader(file)}  # one image of each lesion
    lesions = np.random.default_rng(0).permutation(sorted(rows))[:560]
    read = [Image.open(files[rows[name]["image_id"]]).convert("RGB").resize((64, 64)) for name in lesions]
    pictures = np.stack([np.asarray(one) for one in read]).transpose(0, 3, 1, 2).copy()
    malignant = np.array([rows[name]["dx"] in ("mel", "bcc", "akiec") for name in lesions]).astype(np.int64)
    spec = ModelSpec("resnet9", (3, 64, 64), 1, 4)
    public, batch, elsewhere, pool = pictures[:150], slice(150, 214), slice(214, 278), pictures[278:]
    targets = 24
    shown = np.concatenate([pictures[batch][:targets], pool])
    found = []
    for inside in (batch, elsewhere):
        total = {name: np.zeros(value.shape) for name, value in weights_of(spec).items()}
        for own in clipped(spec, pictures[inside], malignant[inside], 1.0):
            total = {name: value + own[name] for name, value in total.items()}
        trace = Trace.of(observe(spec, total, expected_batch=64.0))
        scores = CandidateMatching().informed(trace, PublicData(public, "other lesions"), Candidates(shown))
        assert scores is not None
        decoys = [np.random.default_rng(t).choice(scores[targets:], 95, replace=False) for t in range(targets)]
        found.append(float(np.mean([np.all(scores[t] > decoys[t]) for t in range(targets)])))
    assert found[0] >= 0.4  # chance is .01
    assert found[1] <= 0.15  # a release of other images
