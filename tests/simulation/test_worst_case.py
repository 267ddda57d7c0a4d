"""The adversary of the bound in a live federation: what it is handed, what it finds, and what stops a run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.broadcast import broadcast_digest
from configs import HOSPITALS, Experiment, RunStoppedError, derive, root_of
from privacy import reconstruction_bound
from server.adversary.base import Trace, Update, View
from server.adversary.views import load_view
from simulation.attacking import check_bound
from simulation.pools import make_pools
from simulation.run import Run, simulate
from simulation.scoring.exact_tests import binomial_p
from simulation.setup import Setup, prepare
from simulation.worst_case import WorstCase, unit_of, worst_case_trace

Make = Callable[..., Experiment]

SEAT = {"placement": "worst_case", "attacks": ["candidate_matching"], "rounds": "all", "decoys": 19}
TINY = {"width": 2, "phantom_images": 160}
ONE_TARGET = {"targets": 1}
PRIVATE = {"mechanism": "local", "noise_multiplier": 0.6, "delta": 1e-5}
FEDAVG = {"local_steps": 2, "learning_rate": 0.05, "server_optimizer": "average", "optimizer": "nadam"}


def run(small: Make, folder: Path, **sections: dict[str, Any]) -> tuple[Setup, Run, View]:
    chosen: dict[str, dict[str, Any]] = {"adversary": SEAT, "privacy": PRIVATE, "task": TINY}
    for name, values in sections.items():
        chosen[name] = {**chosen.get(name, {}), **values}
    experiment = small(**chosen).with_seed(5)
    done = simulate(experiment, folder / "run", report=False)
    return prepare(experiment), done, load_view(done.folder / "views", experiment.adversary)


def flat(update: Update) -> np.ndarray:
    return np.concatenate([update[name].ravel() for name in sorted(update)])


@pytest.mark.parametrize("training", [{}, FEDAVG], ids=["FedSGD", "FedAvg"])
def test_what_is_left_is_the_noise_and_the_target(small: Make, tmp_path: Path, training: dict[str, Any]) -> None:
    """Against the hospital's own noise, drawn again from its root, and its own sampling."""
    settings = {"rounds": 2, "views": 2, **training}
    setup, _, view = run(small, tmp_path, training=settings, adversary=ONE_TARGET)
    trace = view.traces[1]
    behind = WorstCase.of(setup, trace)
    assert len(behind.steps) == 2 * settings.get("local_steps", 1)
    root, clip = root_of(5, HOSPITALS), setup.experiment.privacy.clipping_norm
    name = f"{setup.experiment.digest()[:16]}/{setup.fingerprint}"
    lengths = []
    for step in behind.steps:
        sent = next(o for o in trace.observations if o.round == step.seen.round)
        digest = broadcast_digest(sent.round, sent.spec.to_json(), sent.weights)
        seed = derive(root, "noise", name, trace.hospital, sent.round, step.step, digest)
        noise = 0.6 * clip * np.random.default_rng(seed).standard_normal(len(flat(sent.release)))
        # In the order of the model's parameters, as the hospital adds it.
        parts, start = {}, 0
        for key, value in step.seen.release.items():
            parts[key] = noise[start : start + value.size].reshape(value.shape)
            start += value.size
        np.testing.assert_allclose(flat(step.seen.release), flat(parts), atol=1e-9)
        assert step.seen.terms.expected_batch == 1
        if step.step == 0:
            assert all(np.array_equal(step.seen.weights[key], value) for key, value in sent.weights.items())
        lengths += [len(step.drawn.units)]
    unit = int(behind.steps[0].drawn.units[0])
    for step, seen in zip(behind.steps, behind.trace(unit).observations, strict=True):
        own = np.linalg.norm(flat(seen.release) - flat(step.seen.release))
        assert own == pytest.approx(clip if unit in step.drawn.units else 0.0, abs=1e-6)
    target = str(behind.records.ids[behind.units[unit][0]])
    again = worst_case_trace(setup, trace, target)
    np.testing.assert_array_equal(flat(again.last.release), flat(behind.trace(unit).last.release))
    with pytest.raises(ValueError, match="no record"):
        worst_case_trace(setup, trace, "nobody")
    assert min(lengths) > 0


def test_candidates_are_viewed_alike_whether_or_not_the_target_was_drawn(small: Make, tmp_path: Path) -> None:
    setup, _, view = run(small, tmp_path, training={"rounds": 3, "views": 2}, adversary=ONE_TARGET)
    behind = WorstCase.of(setup, view.traces[0])
    pool = make_pools(setup).decoys
    unit = next(u for u in range(len(behind.units)) if 0 < sum(u in s.drawn.units for s in behind.steps) < 3)
    lineup = behind.candidates(unit, pool, [7, 3, 5], [2, 0, 1, 3])
    assert lineup.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    for shown, step in zip(lineup.steps, behind.steps, strict=True):
        assert shown.targets is not None
        expected = [pool.labels[3], behind.records.labels[behind.units[unit][0]], pool.labels[7], pool.labels[5]]
        assert shown.targets.tolist() == np.repeat(expected, 2).tolist()
        for place, whole in ((0, pool.pixels()[3]), (4, pool.pixels()[7])):
            for row in (place, place + 1):  # a flip of the whole image
                flips = [whole, whole[:, :, ::-1], whole[:, ::-1], whole[:, ::-1, ::-1]]
                same = [np.array_equal(shown.images[row], flip) for flip in flips]
                assert any(same)
        if unit in step.drawn.units:
            where = np.flatnonzero(step.drawn.groups == list(step.drawn.units).index(unit))
            truth = behind.records.pixels(step.drawn.rows[where[:1]])[0]
            for axis, flipped in ((2, step.drawn.views.flips[where[0], 0]), (1, step.drawn.views.flips[where[0], 1])):
                truth = np.flip(truth, axis) if flipped else truth
            np.testing.assert_array_equal(shown.images[2], truth)


def test_units_of_several_images_are_not_ranked(small: Make, tmp_path: Path) -> None:
    setup, done, view = run(small, tmp_path, training={"rounds": 1}, privacy={"unit": "lesion"})
    behind = WorstCase.of(setup, view.traces[1])
    many = next(u for u, rows in enumerate(behind.units) if len(rows) > 1)
    with pytest.raises(ValueError, match="a candidate has one"):
        behind.candidates(many, make_pools(setup).decoys, [0], [0, 1])
    assert unit_of(behind.units, int(behind.units[many][1])) == many
    assert sum(row["ranked"] for row in done.summary["attacks"]) > 0


def test_a_release_that_was_not_made_as_planned_stops_the_run(small: Make, tmp_path: Path) -> None:
    setup, _, view = run(small, tmp_path, training={"rounds": 1}, adversary=ONE_TARGET)
    seen = view.traces[0].last
    louder = {name: 1.0001 * value for name, value in seen.release.items()}
    with pytest.raises(RunStoppedError, match="own sampling, gradients and noise"):
        WorstCase.of(setup, Trace.of(replace(seen, release=louder)))
    other = {name: value + 1e-3 for name, value in seen.weights.items()}
    with pytest.raises(RunStoppedError, match="own sampling, gradients and noise"):
        WorstCase.of(setup, Trace.of(replace(seen, weights=other)))
    with pytest.raises(ValueError, match=r"adversary\.keep"):
        WorstCase.of(setup, Trace.of(replace(seen, rounds=(1, 2))))


def test_another_descent_than_the_hospitals_stops_the_run(small: Make, tmp_path: Path) -> None:
    setup, _, view = run(small, tmp_path, training={"rounds": 1, **FEDAVG}, adversary=ONE_TARGET)
    WorstCase.of(setup, view.traces[0])
    experiment = setup.experiment
    faster = experiment.training.model_copy(update={"optimizer": "sgd"})
    changed = replace(setup, experiment=experiment.model_copy(update={"training": faster}))
    with pytest.raises(RunStoppedError, match="own sampling, gradients and noise"):
        WorstCase.of(changed, view.traces[0])


def test_live_identification_keeps_below_the_bound_and_above_chance(small: Make, tmp_path: Path) -> None:
    """Four hospitals, 20 candidates: rates, bounds, and rows."""
    hits = ranked = 0
    bounds: list[float] = []
    settings = {"rounds": 2, "batch_size": None}
    more = {"targets": 8, "public_images": 500}  # decoys of each site for as many targets
    _, done, _ = run(small, tmp_path, task={"phantom_images": 400}, training=settings, adversary=more)
    for row in done.summary["attacks"]:
        check_bound(row)
        assert row["decoys"] == 19
        exact = reconstruction_bound(noise_multiplier=0.6, sample_rate=1.0, steps=2, prior=0.05, threat="worst_case")
        assert row["bound_worst_case"] == pytest.approx(exact)
        assert row["bound_relaxed"] < exact
        assert row["success"] == row["identified_informed"]
        assert row["success_null"] == pytest.approx(0.05)
        assert row["success_name"] == "identified among 20"
        low, high = row["success_ci"]
        assert low <= row["success"] <= high
        hits += round(row["success"] * row["ranked"])
        ranked += row["ranked"]
        bounds.append(row["bound_worst_case"])
    assert ranked >= 20
    assert binomial_p(hits, ranked, max(bounds)) > 1e-6
    assert binomial_p(hits, ranked, 0.05) < 1e-6


def test_a_bound_counts_every_step_before_the_last_attacked_round(small: Make, tmp_path: Path) -> None:
    """Only round 3 is attacked, but its weights came out of rounds 1 and 2."""
    setup, done, view = run(small, tmp_path, training={"rounds": 3}, adversary={"rounds": [3], **ONE_TARGET})
    row = done.summary["attacks"][0]
    plan = setup.plans[row["hospital"]]

    def at(rate: float) -> float:
        return reconstruction_bound(noise_multiplier=0.6, sample_rate=rate, steps=3, prior=0.05, threat="worst_case")

    assert row["bound_worst_case"] == pytest.approx(min(at(1.0), at(plan.sample_rate) / plan.sample_rate))
    assert view.traces[0].rounds == (3,)


def test_without_noise_every_target_is_found(small: Make, tmp_path: Path) -> None:
    nothing = {"mechanism": "clip_only", "noise_multiplier": None}
    _, done, _ = run(small, tmp_path, training={"rounds": 1}, privacy=nothing)
    for row in done.summary["attacks"]:
        assert row["success"] == 1.0
        assert row["bound_worst_case"] is None
