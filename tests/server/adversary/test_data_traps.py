"""Data traps: the final model copies the first image of every row, whatever training did afterwards."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from configs import Experiment, RunStoppedError
from configs.adversary import AdversarySettings, DataTrapsSettings
from server.adversary.base import MissingCapabilityError, Observation, Trace, Weights, require
from server.adversary.data_traps import BIAS, WEIGHT, DataTraps
from server.adversary.nulls import noise_only
from server.adversary.placements import placement
from server.adversary.registry import attack
from server.adversary.views import load_view
from simulation.run import simulate
from tasks.models import ModelSpec
from tests.server.adversary import hospital

ROWS, BATCH, STEPS, HOSPITALS, ROUNDS = 64, 6, 2, 3, 3
PUBLIC = hospital.public()
Planted = tuple[DataTraps, ModelSpec, Weights]
Named = dict[str, NDArray[np.float64]]


@pytest.fixture(scope="module")
def planted() -> Planted:
    torch.set_num_threads(1)
    one = DataTraps(DataTrapsSettings(rows=ROWS))
    return one, *one.plant(hospital.SPEC, hospital.agreed(), PUBLIC)


def batch_of(round_number: int, site: int, step: int) -> NDArray[np.uint8]:
    return hospital.images(1000 * round_number + 100 * site + step, BATCH)


def rows_of(spec: ModelSpec, weights: Weights, batch: NDArray[np.uint8]) -> list[int]:
    """The row that each image fires in the planted block, by hand."""
    assert spec.block is not None
    centre = np.asarray(weights["wide.centre"], dtype=np.float64)
    z = spec.block.scale * ((batch.reshape(len(batch), -1) / 255.0 - 0.5) / 0.25 - centre)
    units = z @ np.asarray(weights[WEIGHT], dtype=np.float64).T + np.asarray(weights[BIAS], dtype=np.float64)
    fired = (units > 0) & (units < 1e-12)
    assert np.all(fired.sum(axis=1) == 1)
    return np.argmax(fired, axis=1).tolist()


def federated(spec: ModelSpec, first: Weights, rate: float, clip: float | None, noise: float = 0.0) -> Named:
    """FedAvg by hand: the block's weights after all rounds, the core as it was."""
    here = {name: np.asarray(value, dtype=np.float64) for name, value in first.items()}
    for round_number in range(ROUNDS):
        steps: list[Named] = []
        for site in range(HOSPITALS):
            own = dict(here)
            for step in range(STEPS):
                sent = {name: value.astype(np.float32) for name, value in own.items()}
                labels = [(step + site) % 2] * BATCH
                found = hospital.gradients(spec, sent, batch_of(round_number, site, step), labels)
                seed = 100 * round_number + 10 * site + step
                for name, value in hospital.release(found, clip=clip, noise=noise, seed=seed).items():
                    own[name] = own[name] - rate / BATCH * value
            steps.append({name: own[name] - here[name] for name in (WEIGHT, BIAS)})
        for name in (WEIGHT, BIAS):
            here[name] = (here[name] + np.mean([s[name] for s in steps], axis=0)).astype(np.float32).astype(np.float64)
    return here


def final(spec: ModelSpec, first: Weights, last: Named) -> Observation:
    step = {name: last[name] - np.asarray(first[name], dtype=np.float64) for name in (WEIGHT, BIAS)}
    seen = hospital.observe(spec, first, step, batch=BATCH, steps=STEPS, learning_rate=0.01)
    return replace(seen, round=ROUNDS, rounds=tuple(range(1, ROUNDS + 1)), members=("a", "b", "c"))


def kept_alone(spec: ModelSpec, weights: Weights) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The images that are the first of a row and alone there in their step and round, and all other images."""
    closed: set[int] = set()
    alone: list[NDArray[np.uint8]] = []
    others: list[NDArray[np.uint8]] = []
    for round_number in range(ROUNDS):
        caught: list[tuple[int, NDArray[np.uint8]]] = []
        for site in range(HOSPITALS):
            own = set(closed)
            for step in range(STEPS):
                batch = batch_of(round_number, site, step)
                rows = rows_of(spec, weights, batch)
                for row, image in zip(rows, batch, strict=True):
                    (others.append(image) if row in own else caught.append((row, image)))
                own |= set(rows)
        counts = Counter(row for row, _ in caught)
        for row, image in caught:
            (alone if counts[row] == 1 else others).append(image)
        closed |= set(counts)
    return np.stack(alone), np.stack(others)


def errors(images: NDArray[np.uint8], guesses: NDArray[np.float32]) -> NDArray[np.float64]:
    apart = guesses.reshape(len(guesses), 1, 768) - images.reshape(1, len(images), 768) / 255
    return np.mean(apart**2, axis=2).min(axis=0, initial=1.0)


@pytest.mark.parametrize(("rate", "clip"), [(0.01, None), (1e-4, None), (0.01, 1.0)])
def test_exactly_the_images_that_came_first_and_alone_are_in_the_final_model(planted, rate, clip):
    one, spec, weights = planted
    alone, others = kept_alone(spec, weights)
    assert len(alone) >= 0.2 * HOSPITALS * ROUNDS * STEPS * BATCH
    found = one.reconstruct(Trace.of(final(spec, weights, federated(spec, weights, rate, clip))), PUBLIC)
    assert np.all(errors(alone, found.images) < 1e-8)
    assert np.all(errors(others, found.images) > 1e-6)
    assert np.all(np.diff(found.confidence) <= 0)
    # The surest are copies: confidence knows a mixture of two signs by itself.
    assert np.mean(errors(alone, found.images[: len(alone) // 2]) < 1e-8) > 0.4


def test_a_flipped_image_fires_the_row_of_the_image(planted):
    _, spec, weights = planted
    batch = hospital.images(7, 40)
    for axes in ((-1,), (-2,), (-2, -1)):
        flipped = np.ascontiguousarray(np.flip(batch, axes))
        assert np.mean(np.equal(rows_of(spec, weights, flipped), rows_of(spec, weights, batch))) > 0.95


def test_steps_of_equal_size_are_named_and_show_nothing(planted):
    one, spec, weights = planted
    last = federated(spec, weights, 0.01, None)
    signs = {name: weights[name] + 1e-3 * np.sign(last[name] - weights[name]) for name in (WEIGHT, BIAS)}
    found = one.reconstruct(Trace.of(final(spec, weights, signs)), PUBLIC)
    assert len(found.images) == 0
    assert "Adam" in found.readout


def test_noise_closes_every_row_at_the_first_step(planted):
    one, spec, weights = planted
    alone, others = kept_alone(spec, weights)
    last = federated(spec, weights, 0.01, 1.0, noise=0.6)
    found = one.reconstruct(Trace.of(final(spec, weights, last)), PUBLIC)
    assert np.all(errors(np.concatenate([alone, others]), found.images) > 1e-3)
    assert f"{ROWS} traps moved" in found.readout


def test_what_holds_nothing_or_no_number_shows_nothing(planted):
    one, spec, weights = planted
    untouched = final(spec, weights, {name: np.asarray(weights[name], dtype=np.float64) for name in (WEIGHT, BIAS)})
    assert one.reconstruct(Trace.of(untouched), PUBLIC).images.shape == (0, 3, 16, 16)
    assert len(one.reconstruct(noise_only(Trace.of(untouched)), PUBLIC).images) == 0
    wrong = {name: np.full(np.shape(weights[name]), np.nan) for name in (WEIGHT, BIAS)}
    assert len(one.reconstruct(Trace.of(replace(untouched, release=wrong)), PUBLIC).images) == 0
    honest = hospital.observe(hospital.SPEC, hospital.agreed(), {})
    with pytest.raises(ValueError, match="wide block"):
        one.reconstruct(Trace.of(honest), PUBLIC)
    with pytest.raises(ValueError, match="already carries a wide block"):
        one.plant(spec, weights, PUBLIC)


def test_it_needs_the_first_and_the_final_model():
    one = attack("data_traps", AdversarySettings(placement="release"))
    require(one, "release", placement("release").capabilities)
    with pytest.raises(MissingCapabilityError, match="control of the first model"):
        require(one, "malicious_server", placement("malicious_server").capabilities)


SECTIONS: dict[str, dict[str, Any]] = {
    "hospitals": {"partition": "iid", "count": 4, "max_records": 16},
    "training": {
        "rounds": 3,
        "local_steps": 4,
        "batch_size": 16,
        "server_optimizer": "average",
        "learning_rate": 0.01,
        "flips": 0.0,
    },
    "adversary": {
        "placement": "release",
        "attacks": ["data_traps"],
        "public_images": 100,
        "decoys": 5,
        "data_traps": {"rows": 128},
    },
}


def test_a_federation_that_starts_from_traps_hands_out_its_images(small: Callable[..., Experiment], tmp_path: Path):
    experiment = small(**SECTIONS)
    run = simulate(experiment, tmp_path / "run", report=False)
    row = run.summary["attacks"][0]
    assert row["targets"] > 48
    assert row["null_recovered"] == 0
    assert row["recovered"] > 0.2
    assert row["hospitals"] == 4
    view = load_view(run.folder / "views", experiment.adversary)
    assert [len(trace.observations) for trace in view.traces] == [1]
    assert view.traces[0].rounds == (1, 2, 3)
    # All hospitals' images leak, not one hospital's.
    assert len(view.traces[0].members) == 4


def test_a_hospital_that_vets_refuses_the_first_model(small: Callable[..., Experiment], tmp_path: Path):
    experiment = small(**{**SECTIONS, "hospitals": {**SECTIONS["hospitals"], "vetting": "refuse"}})
    with pytest.raises(RunStoppedError, match="quorum lost"):
        simulate(experiment, tmp_path / "run", report=False)
