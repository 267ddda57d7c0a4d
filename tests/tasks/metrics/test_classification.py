import math
import time

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, matthews_corrcoef, recall_score, roc_auc_score
from torchmetrics.classification import (
    BinaryCalibrationError,
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassCalibrationError,
    MulticlassMatthewsCorrCoef,
)

from tasks.metrics import Classified, classification_metrics
from tasks.metrics.classification import METRICS


def pairs_won(scores: np.ndarray, positive: np.ndarray) -> float:
    """The probability that a positive outranks a negative, ties count half: AUROC's own meaning."""
    difference = scores[positive][:, None] - scores[~positive][None, :]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


@pytest.mark.parametrize("seed", range(5))
def test_binary_against_the_definitions(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, 50)
    logits = np.round(generator.normal(size=(50, 1)) + 0.7 * labels[:, None], 1)  # rounded: ties occur
    result = classification_metrics(logits.astype(np.float32), labels)
    z, truth = logits[:, 0].astype(np.float32).astype(float), labels == 1
    tp, fp = int(np.sum((z > 0) & truth)), int(np.sum((z > 0) & ~truth))
    fn, tn = int(np.sum((z <= 0) & truth)), int(np.sum((z <= 0) & ~truth))
    mcc = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    probability = 1 / (1 + np.exp(-z))
    assert result["auroc"] == pytest.approx(pairs_won(z, truth))
    assert result["mcc"] == pytest.approx(mcc)
    assert result["balanced_accuracy"] == pytest.approx((tp / (tp + fn) + tn / (tn + fp)) / 2)
    assert result["loss"] == pytest.approx(-np.mean(np.log(np.where(truth, probability, 1 - probability))))


@pytest.mark.parametrize("seed", range(3))
def test_seven_classes_against_torchmetrics(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(7), generator.integers(0, 7, 80)])
    logits = generator.normal(size=(87, 7)) + 1.5 * np.eye(7)[labels]
    result = classification_metrics(logits, labels)
    scores, truth = torch.from_numpy(logits).softmax(dim=1), torch.from_numpy(labels)
    assert result["auroc"] == pytest.approx(float(MulticlassAUROC(7)(scores, truth)), abs=1e-6)
    assert result["mcc"] == pytest.approx(float(MulticlassMatthewsCorrCoef(7)(scores, truth)), abs=1e-6)
    recall = float(MulticlassAccuracy(7, average="macro")(scores, truth))
    assert result["balanced_accuracy"] == pytest.approx(recall, abs=1e-6)
    assert result["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(scores.log(), truth)))


def test_absent_classes_do_not_count() -> None:
    labels = np.array([0, 0, 2, 2, 2])
    logits = np.array([[2.0, 0, 1], [0, 0, 1], [0, 0, 3], [1, 0, 0], [0, 5, 4]])
    result = classification_metrics(logits, labels)
    odds = np.log(np.exp(logits) / (np.exp(logits).sum(1, keepdims=True) - np.exp(logits)))
    expected = np.mean([pairs_won(odds[:, 0], labels == 0), pairs_won(odds[:, 2], labels == 2)])
    assert result["auroc"] == pytest.approx(expected)
    assert result["balanced_accuracy"] == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_auroc_survives_saturated_probabilities() -> None:
    logits = np.array([[900.0, 0], [800.0, 0], [700.0, 0]])
    assert classification_metrics(logits, np.array([0, 0, 1]))["auroc"] == 1.0


def test_one_class_only_has_a_loss_and_no_ranking() -> None:
    result = classification_metrics(np.array([[1.0], [-1.0]]), np.array([0, 0]))
    assert result["loss"] == pytest.approx(0.8132617)
    assert [result[name] for name in ("auroc", "mcc", "balanced_accuracy")] == [None] * 3
    assert result["classes_present"] == 1


def test_a_constant_prediction_has_mcc_zero() -> None:
    result = classification_metrics(np.array([[-1.0], [-1.0]]), np.array([0, 1]))
    assert (result["auroc"], result["mcc"], result["balanced_accuracy"]) == (0.5, 0.0, 0.5)


@pytest.mark.parametrize("logits", [np.zeros((0, 1)), np.array([[np.nan], [1.0]]), np.array([[np.inf], [1.0]])])
def test_never_nan(logits: np.ndarray) -> None:
    assert classification_metrics(logits, np.array([0, 1])[: len(logits)]) == dict.fromkeys(METRICS)


def test_huge_logits_do_not_overflow() -> None:
    result = classification_metrics(np.array([[1e300], [-1e300]]), np.array([0, 1]))
    assert result["loss"] == 1e300


def tail(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of 165 classes, 2000 to 1 from head to tail, and logits that know a little about them."""
    generator = np.random.default_rng(seed)
    prior = np.geomspace(2000, 1, 165)
    labels = generator.choice(165, count, p=prior / prior.sum())
    logits = generator.normal(size=(count, 165)).astype(np.float32)
    logits[np.arange(count), labels] += 2
    return logits, labels


def test_165_classes_with_a_long_tail_against_scikit_learn() -> None:
    logits, labels = tail(20_000, 5)
    start = time.perf_counter()
    result = classification_metrics(logits, labels)
    assert time.perf_counter() - start < 10  # 1.7 s here; 100,000 images take 9 s
    present = np.unique(labels)
    assert 100 < len(present) < 165
    assert result["classes_present"] == len(present)
    chance = softmax(logits.astype(np.float64), axis=1)
    areas = [roc_auc_score(labels == c, chance[:, c]) for c in present]
    assert result["auroc"] == pytest.approx(np.mean(areas), abs=1e-9)
    assert result["mcc"] == pytest.approx(matthews_corrcoef(labels, logits.argmax(1)), abs=1e-12)
    assert result["balanced_accuracy"] == pytest.approx(
        recall_score(labels, logits.argmax(1), labels=present, average="macro"), abs=1e-12
    )


def test_what_leads_and_what_a_group_can_be_measured_by() -> None:
    logits, labels = tail(2_000, 6)
    many = Classified(logits, labels, np.arange(2_000))
    assert many.primary == "mcc"
    binary = Classified(logits[:60, :1], (labels[:60] > 50).astype(np.int64), np.arange(60) // 2)
    assert binary.primary == "auroc"
    positive = np.flatnonzero(binary.labels == 1)
    assert binary.sample("auroc", positive).problem == "one class only"
    assert binary.sample("recall", positive).problem == ""
    assert binary.sample("auroc", np.arange(12)).thin == "fewer than 10 independent units"
    assert binary.sample("auroc").units == 30
    assert binary.sample("auroc", np.array([], dtype=np.int64)).problem == "no image"


@pytest.mark.parametrize("outputs", [1, 7])
def test_calibration_against_torchmetrics_and_scikit_learn(outputs: int) -> None:
    generator = np.random.default_rng(outputs)
    logits = 2 * generator.normal(size=(500, outputs))
    labels = generator.integers(0, max(2, outputs), 500)
    result = classification_metrics(logits, labels)
    truth = torch.from_numpy(labels)
    if outputs == 1:
        chance = torch.from_numpy(logits[:, 0]).sigmoid()
        expected = float(BinaryCalibrationError(n_bins=15)(chance, truth))
        brier = brier_score_loss(labels, chance.numpy())
    else:
        chance = torch.from_numpy(logits).softmax(dim=1)
        expected = float(MulticlassCalibrationError(7, n_bins=15)(chance, truth))
        brier = 2 * brier_score_loss(labels, chance.numpy(), scale_by_half=True)  # type: ignore[arg-type]
    assert result["calibration_error"] == pytest.approx(expected, abs=1e-6)
    assert result["brier"] == pytest.approx(brier, abs=1e-12)


def test_an_honest_forecaster_is_calibrated_and_a_boaster_is_not() -> None:
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(40_000, 1))
    labels = (generator.random(40_000) < 1 / (1 + np.exp(-logits[:, 0]))).astype(np.int64)
    honest, boaster = classification_metrics(logits, labels), classification_metrics(4 * logits, labels)
    assert honest["calibration_error"] is not None
    assert boaster["calibration_error"] is not None
    assert honest["calibration_error"] < 0.01
    assert boaster["calibration_error"] > 0.1
    assert honest["auroc"] == boaster["auroc"]


@pytest.mark.parametrize("name", ["auroc", "mcc", "balanced_accuracy", "recall"])
@pytest.mark.parametrize("outputs", [1, 4])
def test_counting_a_unit_twice_is_copying_its_images(name: str, outputs: int) -> None:
    generator = np.random.default_rng(outputs)
    units = generator.integers(0, 20, 60)
    logits = np.round(generator.normal(size=(60, outputs)), 1)
    labels = generator.integers(0, max(2, outputs), 60)
    counts = generator.integers(0, 4, (5, len(np.unique(units)))).astype(float)
    sample = Classified(logits, labels, units).sample(name)
    found = sample.value(counts)
    for drawn, value in zip(counts, found, strict=True):
        copies = np.repeat(np.arange(60), drawn[np.unique(units, return_inverse=True)[1]].astype(int))
        copied = Classified(logits[copies], labels[copies], np.arange(len(copies)))
        if name == "recall":
            predicted = logits.argmax(1) if outputs > 1 else (logits[:, 0] > 0)
            assert value == pytest.approx(np.mean(predicted[copies] == labels[copies]))
        else:
            assert value == pytest.approx(copied.metrics()[name])
