"""Gradient inversion: what it simulates is compared with the hospitals' own engine, what it finds with the truth."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from clients.gradients import GradientEngine
from configs.adversary import InversionSettings
from configs.sections import LossName
from server.adversary import inversion as module
from server.adversary.base import Observation, PublicData, PublicTerms, Trace
from server.adversary.imprint import Imprint, ImprintSettings
from server.adversary.inversion import Inversion, whole_counts
from server.adversary.inversion_release import Exchange, released, soft_loss
from server.adversary.inversion_search import Objective, cosine_distance, squared_distance, total_variation
from server.adversary.nulls import noise_only
from server.adversary.public_model import mean_image
from tasks import losses
from tasks.models import ModelSpec, build, initial_weights, normalise
from tests.server.adversary import hospital

SPEC = ModelSpec("convnet", (3, 16, 16), 1, 16)
SEVEN = ModelSpec("convnet", (3, 16, 16), 7, 16)
DENSE = ModelSpec("unet", (1, 16, 16), 3, 2)
VOLUME = ModelSpec("unet", (1, 4, 8, 8), 3, 2)
PUBLIC = hospital.public()


def observed(
    spec: ModelSpec,
    images: NDArray[np.uint8],
    targets: NDArray[np.int64],
    *,
    clip: float | None = None,
    noise: float = 0.0,
    steps: int = 1,
    rate: float = 0.1,
    q: float = 1.0,
    number: int = 1,
    seed: int = 0,
) -> Observation:
    """What a hospital would send, by the engine that hospitals use; every image in every step."""
    loss: LossName = "dice" if spec.dense else "binary" if spec.outputs == 1 else "categorical"
    engine = GradientEngine(build(spec), loss)
    weights = initial_weights(spec, seed)
    engine.load(weights)
    pixels, wanted = torch.from_numpy(images), torch.from_numpy(targets)
    rng = np.random.default_rng([number, 77])

    def total() -> torch.Tensor:
        plain = engine.plain_sum(pixels, wanted)
        exact = plain if clip is None else engine.clipped_sum(pixels, wanted, torch.arange(len(pixels)), clip)
        return exact + noise * (clip or 1.0) * torch.from_numpy(rng.standard_normal(engine.size))

    if steps == 1:
        sent = total()
    else:
        before = engine.read()
        here = before.clone()
        for _ in range(steps):
            here = here - rate * total() / len(pixels)
            engine.write(here)
        sent = here - before
    terms = PublicTerms(clip, noise, q, steps, float(len(images)), rate if steps > 1 else 0.0)
    broadcast = {name: value.numpy() for name, value in weights.items()}
    release = {name: value.numpy().copy() for name, value in engine.by_name(sent).items()}
    return Observation(number, "rosendahl", spec, broadcast, release, terms)


def some(count: int, seed: int = 5) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return hospital.images(seed, count), np.arange(count) % 2


def psnr(guess: NDArray[np.floating], truth: NDArray[np.uint8]) -> float:
    return float(-10 * np.log10(np.mean((guess - truth / 255.0) ** 2)))


@pytest.mark.parametrize(("clip", "steps"), [(None, 1), (0.5, 1), (1e6, 1), (None, 4), (0.3, 3)])
@pytest.mark.parametrize("spec", [SPEC, SEVEN], ids=["one logit", "seven"])
def test_simulates_what_the_hospitals_engine_releases(spec: ModelSpec, clip: float | None, steps: int) -> None:
    images, labels = some(3)
    seen = observed(spec, images, labels, clip=clip, steps=steps)
    exchange = Exchange.of(seen)
    hard = torch.nn.functional.one_hot(torch.from_numpy(labels), max(2, spec.outputs)).float()
    found = released(exchange, normalise(torch.from_numpy(images)), hard)
    assert len(found) == len(seen.release)
    for name, got in zip(exchange.matched, found, strict=True):
        wanted = seen.release[name]
        np.testing.assert_allclose(got.detach().numpy(), wanted, atol=2e-5 * np.abs(wanted).max() + 1e-9)


def test_fewer_guesses_stand_for_the_whole_batch_and_many_steps_for_longer_ones() -> None:
    images, _ = some(1)
    four = np.repeat(images, 4, axis=0)
    ones = np.ones(4, dtype=np.int64)
    hard = torch.tensor([[0.0, 1.0]])
    for steps, rate, tolerance in ((1, 0.01, 1e-4), (3, 0.01, 1e-3), (40, 0.0005, 0.1)):
        seen = observed(SPEC, four, ones, steps=steps, rate=rate)
        exchange = Exchange.of(seen)
        found = released(exchange, normalise(torch.from_numpy(images)), hard)
        assert float(squared_distance(found, exchange.target).detach()) < tolerance**2


def test_losses_for_hard_labels_are_the_hospitals() -> None:
    generator = torch.Generator().manual_seed(0)
    cases: list[tuple[LossName, int, tuple[int, ...]]] = [
        ("binary", 1, ()),
        ("categorical", 5, ()),
        ("dice", 3, (4, 5)),
    ]
    for name, outputs, places in cases:
        logits = torch.randn(6, outputs, *places, generator=generator)
        targets = torch.randint(0, max(2, outputs), (6, *places), generator=generator)
        hard = torch.nn.functional.one_hot(targets, max(2, outputs)).movedim(-1, 1).float()
        torch.testing.assert_close(soft_loss(logits, hard, dense=bool(places)), losses.loss(name)(logits, targets))


def test_distances_and_total_variation_by_hand() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=12).astype(np.float32), rng.normal(size=12).astype(np.float32)
    parts = [[torch.from_numpy(x[:5]), torch.from_numpy(x[5:]).reshape(7, 1)] for x in (a, b)]
    cosine = 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert float(cosine_distance(*parts)) == pytest.approx(cosine, rel=1e-5)
    assert float(squared_distance(*parts)) == pytest.approx(np.sum((a - b) ** 2) / np.sum(b**2), rel=1e-5)
    image = rng.normal(size=(2, 3, 4, 5, 6)).astype(np.float32)
    by_hand = sum(np.abs(np.diff(image, axis=axis)).mean() for axis in (2, 3, 4))
    assert float(total_variation(torch.from_numpy(image))) == pytest.approx(by_hand, rel=1e-5)
    assert float(total_variation(torch.ones(1, 3, 1, 1))) == 0.0


def test_whole_counts_keep_the_sum() -> None:
    assert whole_counts(np.array([0.5, 0.5]), 3).tolist() == [2, 1]
    assert whole_counts(np.array([0.1, 0.0, 0.9]), 10).tolist() == [1, 0, 9]
    assert whole_counts(np.full(7, 1 / 7), 3).sum() == 3


@pytest.mark.parametrize(
    ("settings", "conditions", "least"),
    [
        ({"iterations": 80}, {}, 5.0),
        ({"iterations": 80}, {"clip": 0.1}, 5.0),
        ({"iterations": 60}, {"steps": 3}, 5.0),
        ({"objective": "dlg", "iterations": 100}, {}, 20.0),
        ({"objective": "idlg", "iterations": 100}, {}, 20.0),
        ({"objective": "idlg", "iterations": 60}, {"clip": 0.1, "steps": 3}, 15.0),
    ],
    ids=["cosine", "clipped", "FedAvg", "DLG", "iDLG", "iDLG FedAvg clipped"],
)
def test_finds_a_lone_image(settings: dict[str, object], conditions: dict[str, float], least: float) -> None:
    attack = Inversion(InversionSettings.model_validate(settings))
    gains: list[float] = []
    for k, label in enumerate((1,) if conditions else (0, 1)):
        image = hospital.images(50 + k, 1)
        seen = observed(SPEC, image, np.array([label]), **conditions)  # type: ignore[arg-type]
        found = attack.reconstruct(Trace.of(seen), PUBLIC)
        assert found.images.shape == (1, 3, 16, 16)
        gains.append(psnr(found.images[0], image[0]) - psnr(mean_image(PUBLIC, SPEC.shape), image[0]))
    assert min(gains) > least


def test_the_same_release_gives_the_same_bits_and_restarts_only_lower_the_objective() -> None:
    images, labels = some(1)
    trace = Trace.of(observed(SPEC, images, labels))
    one, two = (Inversion(InversionSettings(iterations=20, restarts=k)).reconstruct(trace, PUBLIC) for k in (1, 2))
    again = Inversion(InversionSettings(iterations=20)).reconstruct(trace, PUBLIC)
    assert np.array_equal(one.images, again.images)
    assert np.array_equal(one.confidence, again.confidence)
    assert two.confidence[0] >= one.confidence[0]


def test_rounds_of_the_same_images_are_matched_at_once_whatever_their_flips() -> None:
    image, label = hospital.images(9, 1), np.array([1])
    mirrored = (image[..., ::-1].copy(), image[..., ::-1, :].copy(), image[..., ::-1, ::-1].copy(), image)
    rounds = [
        observed(SPEC, view, label, clip=1.0, noise=3e-2, number=k + 1, seed=k) for k, view in enumerate(mirrored)
    ]
    attack = Inversion(InversionSettings(iterations=50))
    alone = attack.reconstruct(Trace.of(rounds[-1]), PUBLIC)
    together = attack.reconstruct(Trace.of(*rounds), PUBLIC)
    assert len(together.images) == 1
    assert "4 rounds, at once" in together.readout
    assert psnr(together.images[0], image[0]) > psnr(alone.images[0], image[0]) + 1.0


def test_rounds_of_other_images_are_inverted_one_by_one() -> None:
    rounds = [observed(SPEC, *some(2, seed=k), q=0.1, number=k) for k in (1, 2, 3)]
    found = Inversion(InversionSettings(iterations=2, most_images=5)).reconstruct(Trace.of(*rounds), PUBLIC)
    assert len(found.images) == 5
    assert "each alone" in found.readout
    assert np.all(np.diff(found.confidence) <= 0)


def test_a_batch_is_cut_off_at_most_images() -> None:
    found = Inversion(InversionSettings(iterations=2, most_images=3)).reconstruct(
        Trace.of(observed(SPEC, *some(6))), PUBLIC
    )
    assert found.images.shape == (3, 3, 16, 16)
    assert found.images.min() >= 0
    assert found.images.max() <= 1


def test_releases_without_a_direction_give_no_image_and_a_reason() -> None:
    seen = observed(SPEC, *some(1))
    attack = Inversion(InversionSettings(iterations=2))
    damaged = replace(seen, release={name: np.full_like(value, np.nan) for name, value in seen.release.items()})
    for trace in (Trace.of(damaged), noise_only(Trace.of(seen))):
        found = attack.reconstruct(trace, PUBLIC)
        assert found.images.shape == (0, 3, 16, 16)
        assert found.confidence.shape == (0,)
        assert "no image" in found.readout
    later = replace(seen, round=2)
    both = attack.reconstruct(Trace.of(damaged, later), PUBLIC)
    assert np.array_equal(both.images, attack.reconstruct(Trace.of(later), PUBLIC).images)


@pytest.mark.parametrize("spec", [DENSE, VOLUME], ids=["map", "volume"])
@pytest.mark.parametrize("objective", ["cosine", "dlg"])
def test_masks_are_searched_for_beside_the_images(spec: ModelSpec, objective: str) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, *spec.shape), dtype=np.uint8)
    masks = rng.integers(0, 3, (8, *spec.shape[1:]))
    seen = observed(spec, images[:1], masks[:1])
    settings = InversionSettings.model_validate({"objective": objective, "iterations": 12, "learning_rate": 0.01})
    for public in (PublicData(images[1:], "some", masks[1:]), PublicData(images[:0], "none")):
        found = Inversion(settings).reconstruct(Trace.of(seen), public)
        assert found.images.shape == (1, *spec.shape)
        assert np.isfinite(found.images).all()
        assert "masks searched for" in found.readout
        start = Inversion(settings.model_copy(update={"iterations": 1})).reconstruct(Trace.of(seen), public)
        assert found.confidence[0] > start.confidence[0]


def test_what_is_too_large_is_left_alone_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PLACES", 255)
    found = Inversion(InversionSettings()).reconstruct(Trace.of(observed(SPEC, *some(1))), PUBLIC)
    assert found.images.shape == (0, 3, 16, 16)
    assert "too large" in found.readout


def test_a_planted_block_does_not_drown_the_model() -> None:
    sent = {name: value.numpy() for name, value in initial_weights(SPEC, 0).items()}
    spec, weights = Imprint(ImprintSettings(rows=16, components=10)).plant(SPEC, sent, PUBLIC)
    image = hospital.images(50, 1)
    engine = GradientEngine(build(spec), "binary")
    engine.load({name: torch.tensor(np.asarray(value)) for name, value in weights.items()})
    total = engine.by_name(engine.plain_sum(torch.from_numpy(image), torch.tensor([1])))
    terms = PublicTerms(None, 0.0, 1.0, 1, 1.0, 0.0)
    seen = Observation(1, "rosendahl", spec, weights, {name: value.numpy() for name, value in total.items()}, terms)
    found = Inversion(InversionSettings(iterations=80)).reconstruct(Trace.of(seen), PUBLIC)
    assert psnr(found.images[0], image[0]) > psnr(mean_image(PUBLIC, SPEC.shape), image[0]) + 5


def test_an_objective_over_rounds_is_the_mean_of_each() -> None:
    images, labels = some(1)
    exchanges = tuple(Exchange.of(observed(SPEC, images, labels, seed=k)) for k in (0, 1))
    inputs, logits = torch.zeros(1, 3, 16, 16), torch.tensor([[5.0, -5.0]])
    both = Objective(exchanges, squared_distance, 0.0)(inputs, logits)
    each = [float(Objective((e,), squared_distance, 0.0)(inputs, logits).detach()) for e in exchanges]
    assert float(both.detach()) == pytest.approx(np.mean(each), rel=1e-5)
    assert abs(each[0] - each[1]) > 1e-4


@pytest.mark.skipif(
    not (Path(os.environ.get("FEDWARD_DATA", "/nonexistent")) / "ham10000").is_dir(),
    reason="FEDWARD_DATA names no folder with ham10000",
)
def test_twenty_real_images_lie_4_db_above_the_mean_image() -> None:
    torch.set_num_threads(1)
    root = Path(os.environ["FEDWARD_DATA"]) / "ham10000"
    files = {path.stem: path for path in root.glob("*/*.jpg")}
    with (root / "HAM10000_metadata.csv").open() as file:
        rows = {row["lesion_id"]: row for row in csv.DictReader(file)}  # one image of each lesion
    lesions = np.random.default_rng(0).permutation(sorted(rows))[:520].tolist()
    opened = (Image.open(files[rows[x]["image_id"]]).convert("RGB") for x in lesions)
    images = np.stack([np.asarray(i.resize((32, 32), Image.Resampling.BILINEAR)) for i in opened])
    images = images.transpose(0, 3, 1, 2).copy()
    public = PublicData(images[20:], "other lesions")
    spec = ModelSpec("convnet", (3, 32, 32), 1, 16)
    attack = Inversion(InversionSettings(iterations=80))
    gains: list[float] = []
    for lesion, image in zip(lesions[:20], images[:20], strict=True):
        seen = observed(spec, image[None], np.array([int(rows[lesion]["dx"] == "mel")]))
        found = attack.reconstruct(Trace.of(seen), public)
        gains.append(psnr(found.images[0], image) - psnr(mean_image(public, spec.shape), image))
    assert np.mean(gains) >= 4
    assert np.mean(gains) - stats.t.ppf(0.975, 19) * np.std(gains, ddof=1) / np.sqrt(20) >= 4
