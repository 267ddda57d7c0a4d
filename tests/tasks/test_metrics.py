import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassMatthewsCorrCoef

from tasks.metrics import METRICS, classification_metrics


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
    assert result == {"auroc": None, "mcc": None, "balanced_accuracy": None, "loss": pytest.approx(0.8132617)}


def test_a_constant_prediction_has_mcc_zero() -> None:
    result = classification_metrics(np.array([[-1.0], [-1.0]]), np.array([0, 1]))
    assert (result["auroc"], result["mcc"], result["balanced_accuracy"]) == (0.5, 0.0, 0.5)


@pytest.mark.parametrize("logits", [np.zeros((0, 1)), np.array([[np.nan], [1.0]]), np.array([[np.inf], [1.0]])])
def test_never_nan(logits: np.ndarray) -> None:
    assert classification_metrics(logits, np.array([0, 1])[: len(logits)]) == dict.fromkeys(METRICS)


def test_huge_logits_do_not_overflow() -> None:
    result = classification_metrics(np.array([[1e300], [-1e300]]), np.array([0, 1]))
    assert result["loss"] == 1e300
