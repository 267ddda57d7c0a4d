"""Label counts against the labels that were put in."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from configs import Experiment
from server.adversary.base import PublicData, Trace
from server.adversary.label_counts import LabelCounts, class_shares, composition, distinct_images, head_of
from server.adversary.nulls import noise_only
from simulation import attack_labels
from simulation.attack_labels import chance, compare, label_error, overlap, score_labels
from simulation.attacking import Case
from tasks.models import ModelSpec, WideBlock
from tests.server.adversary import hospital
from tests.server.adversary.test_inversion import DENSE, SEVEN, SPEC, observed

PUBLIC = hospital.public(count=200)
ATTACK = LabelCounts()
SKEWED = np.array([20, 0, 3, 9, 0, 1, 7])


def batch(counts: NDArray[np.int64], seed: int = 5) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return hospital.images(seed, int(counts.sum())), np.repeat(np.arange(len(counts)), counts)


def test_the_bias_of_the_logits_is_found_by_name() -> None:
    assert head_of(SPEC) == "head.bias"
    assert head_of(replace(SEVEN, block=WideBlock(4, 1.0, 1.0, 1.0))) == "core.head.bias"
    assert head_of(ModelSpec("scattering", (3, 16, 16), 2, 1)) is not None
    assert head_of(DENSE) is None


@pytest.mark.parametrize("spec", [SPEC, SEVEN], ids=["one logit", "seven"])
@pytest.mark.parametrize("clip", [None, 0.01])
def test_a_lone_label_is_always_found(spec: ModelSpec, clip: float | None) -> None:
    for label in range(max(2, spec.outputs)):
        images = hospital.images(label, 1)
        trace = Trace.of(observed(spec, images, np.array([label]), clip=clip))
        assert np.array_equal(ATTACK.label_counts(trace, PUBLIC), np.eye(max(2, spec.outputs))[label])


@pytest.mark.parametrize(
    ("conditions", "most"),
    [({}, 0.1), ({"clip": 0.5}, 0.1), ({"steps": 3, "rate": 0.01}, 0.15), ({"clip": 1.0, "noise": 0.3}, 0.25)],
    ids=["FedSGD", "clipped", "FedAvg", "noised"],
)
@pytest.mark.parametrize("counts", [SKEWED, np.array([27, 13])], ids=["seven", "one logit"])
def test_a_batch_is_counted_far_better_than_by_chance(
    counts: NDArray[np.int64], conditions: dict[str, Any], most: float
) -> None:
    spec = SEVEN if len(counts) == 7 else SPEC
    images, labels = batch(counts)
    trace = Trace.of(observed(spec, images, labels, **conditions))
    found, true = ATTACK.label_counts(trace, PUBLIC), counts.astype(np.float64)
    assert found.sum() == pytest.approx(40)
    assert found.min() >= 0
    assert label_error(found, true) < most < label_error(np.full(len(true), 40 / len(true)), true)


def test_a_release_proves_a_number_of_labels() -> None:
    """Without noise a class's negative gradient is at most its count: never fewer are stated."""
    for seed in range(5):
        counts = np.random.default_rng(seed).multinomial(12, np.full(7, 1 / 7))
        seen = observed(SEVEN, *batch(counts, seed), seed=seed)
        proven = np.ceil(np.maximum(0, -seen.release["head.bias"]) - 1e-4)
        found = ATTACK.label_counts(Trace.of(seen), PublicData(PUBLIC.images[:0], "none"))
        assert np.all(found >= proven - 1e-3)
        assert np.all(proven <= counts)


def test_noise_alone_gives_the_public_shares() -> None:
    public = replace(PUBLIC, targets=np.repeat([0, 1], [150, 50]))
    trace = noise_only(Trace.of(observed(SPEC, *batch(SKEWED[:2] + 4), clip=1.0, noise=1e4)))
    np.testing.assert_allclose(composition(trace.observations, public), [151 / 202, 51 / 202], atol=0.01)
    np.testing.assert_allclose(composition(trace.observations, PUBLIC), [0.5, 0.5], atol=0.01)


def test_rounds_are_explained_together() -> None:
    counts = np.array([6, 1, 0, 9, 4, 0, 0])
    true = counts.astype(np.float64)
    images, labels = batch(counts)
    rounds = [observed(SEVEN, images, labels, clip=1.0, noise=2.0, number=k, seed=k) for k in range(1, 5)]
    alone = np.mean([label_error(ATTACK.label_counts(Trace.of(one), PUBLIC), true) for one in rounds])
    together = label_error(ATTACK.label_counts(Trace.of(*rounds), PUBLIC), true)
    assert together < 0.7 * alone


def test_public_labels_help_where_predictions_depend_on_them() -> None:
    shares = class_shares(replace(PUBLIC, targets=np.array([0] * 150 + [2] * 50)), 3)
    np.testing.assert_allclose(shares, [151 / 203, 1 / 203, 51 / 203])
    np.testing.assert_allclose(class_shares(PUBLIC, 3), 1 / 3)


def test_images_of_several_rounds_are_counted_once() -> None:
    seen = observed(SPEC, *batch(SKEWED[:2] + 5))
    whole, half = seen.terms, replace(seen.terms, sample_rate=0.5)
    later = replace(seen, round=2)
    assert distinct_images([seen, later]) == whole.expected_batch
    some = [replace(one, terms=half) for one in (seen, later)]
    assert distinct_images(some) == pytest.approx(whole.expected_batch / 0.5 * 0.75)
    assert distinct_images([replace(seen, terms=half, rounds=(1, 2))]) == distinct_images(some)


def test_damaged_releases_are_left_out_and_masks_are_refused() -> None:
    seen = observed(SPEC, *batch(np.array([3, 9])))
    damaged = replace(seen, release={**seen.release, "head.bias": np.array([np.nan])})
    np.testing.assert_allclose(ATTACK.label_counts(Trace.of(damaged), PUBLIC), [6, 6])
    both = Trace.of(damaged, replace(seen, round=2))
    np.testing.assert_allclose(ATTACK.label_counts(both, PUBLIC), ATTACK.label_counts(Trace.of(seen), PUBLIC))
    maps = observed(DENSE, np.zeros((1, *DENSE.shape), np.uint8), np.zeros((1, *DENSE.shape[1:]), np.int64))
    with pytest.raises(ValueError, match="masks"):
        ATTACK.label_counts(Trace.of(maps), PublicData(np.zeros((0, *DENSE.shape), np.uint8), "none"))


def test_errors_and_overlap_by_hand() -> None:
    true = np.array([3.0, 1.0, 0.0])
    assert label_error(np.array([2.0, 1.0, 1.0]), true) == pytest.approx(0.5)
    assert overlap(np.array([2.0, 1.0, 1.0]), true) == pytest.approx(0.75)
    assert overlap(np.array([6.0, 2.0, 0.0]), true) == pytest.approx(0.5)


@pytest.mark.parametrize(("guessed", "true"), [(7.2, 8), (12.0, 6), (3.0, 15)])
def test_the_chance_of_two_classes_is_a_binomial_sum(guessed: float, true: int) -> None:
    exact = sum(binom.pmf(k, 20, 0.4) for k in range(21) if abs(k - guessed) <= abs(true - guessed) + 1e-9)
    rng = np.random.default_rng(0)
    pair = (np.array([20 - guessed, guessed]), np.array([20.0 - true, float(true)]))
    found = chance(*pair, np.array([0.6, 0.4]), rng)
    assert found == pytest.approx(exact, abs=float(4 * np.sqrt(exact * (1 - exact) / 9_999) + 1e-3))


def test_who_is_not_better_than_the_null_has_no_evidence() -> None:
    true, right, wrong = np.array([15.0, 5.0]), np.array([15.0, 5.0]), np.array([10.0, 10.0])
    shares = np.array([0.5, 0.5])
    good = compare(right, wrong, true, shares, np.random.default_rng(0))
    bad = compare(wrong, right, true, shares, np.random.default_rng(0))
    assert good["success"] == 1.0
    assert good["success_p"] == good["above_null_p"] == pytest.approx(binom.pmf(15, 20, 0.5), abs=0.005)
    assert good["null_label_error"] == pytest.approx(0.5)
    assert bad["success_p"] == 1.0
    assert good["success_ci"][0] < 1.0 == good["success_ci"][1]


def case(trace: Trace, labels: NDArray[np.int64], monkeypatch: pytest.MonkeyPatch) -> Case:
    """A case with the parts that the scorer reads."""

    class Part:
        def __init__(self, **parts: object) -> None:
            self.__dict__.update(parts)

    monkeypatch.setattr(attack_labels, "head", lambda _: {"attack": "label_counts"})
    decoys = Part(labels=np.repeat(np.arange(7), 10))
    parts = {"setup": Part(experiment=Experiment()), "attack": ATTACK, "trace": trace, "public": PUBLIC}
    return cast(Case, Part(**parts, pools=Part(decoys=decoys), targets=Part(labels=labels)))


def test_a_case_is_scored_beside_its_null(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = batch(SKEWED)
    row, rows = score_labels(case(Trace.of(observed(SEVEN, images, labels)), labels, monkeypatch))
    assert rows == []
    assert row["label_error"] < 0.1
    assert row["null_label_error"] == pytest.approx(
        label_error(np.full(7, 40 / 7), SKEWED.astype(np.float64)), abs=1e-6
    )
    assert row["success"] > 0.95
    assert row["success_p"] < 0.001
    assert row["true_labels"] == SKEWED.tolist()
    assert row["success_name"] == "labels counted right"


def test_a_case_without_labels_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = observed(DENSE, np.zeros((1, *DENSE.shape), np.uint8), np.zeros((1, *DENSE.shape[1:]), np.int64))
    row, _ = score_labels(case(Trace.of(maps), np.zeros(1, np.int64), monkeypatch))
    assert row["label_error"] is None
    assert "masks" in row["why"]
    empty, _ = score_labels(
        case(Trace.of(observed(SPEC, *batch(np.array([1, 0])))), np.zeros(0, np.int64), monkeypatch)
    )
    assert empty["success"] is None
    assert "no image" in empty["why"]
