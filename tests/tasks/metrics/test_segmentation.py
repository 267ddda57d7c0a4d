"""Dice against MONAI, torchmetrics and a plain reading of the definition, and what empty classes do."""

import numpy as np
import pytest
import torch
from monai.metrics.meandice import DiceMetric
from torchmetrics.functional.segmentation import dice_score

from tasks.losses import loss
from tasks.metrics import Overlaps, Segmented, interval
from tasks.metrics.segmentation import metric_names

NAMES = ("background", "liver", "tumour")


def drawn(seed: int, scans: int = 6, shape: tuple[int, ...] = (5, 7, 6)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 3, (scans, *shape), generator=generator, dtype=torch.uint8)
    logits = torch.randn((scans, 3, *shape), generator=generator)
    return logits + 1.5 * torch.nn.functional.one_hot(masks.long(), 3).movedim(-1, 1), masks


def judged(logits: torch.Tensor, masks: torch.Tensor, units: np.ndarray | None = None) -> Segmented:
    overlaps = Overlaps.of(logits, masks, torch.zeros(len(masks)))
    return Segmented(overlaps, NAMES, np.arange(len(masks)) if units is None else units)


def plain(predicted: np.ndarray, truth: np.ndarray) -> float | None:
    """The definition, voxel by voxel, over flat arrays of booleans; None where neither holds anything."""
    both = sum(1 for p, t in zip(predicted.tolist(), truth.tolist(), strict=True) if p and t)
    sizes = sum(predicted.tolist()) + sum(truth.tolist())
    return 2 * both / sizes if sizes else None


@pytest.mark.parametrize("shape", [(9, 8), (5, 7, 6)])
def test_hard_dice_against_monai_and_torchmetrics(shape: tuple[int, ...]) -> None:
    logits, masks = drawn(1, shape=shape)
    found = judged(logits, masks).metrics()
    said = torch.nn.functional.one_hot(logits.argmax(1), 3).movedim(-1, 1)
    true = torch.nn.functional.one_hot(masks.long(), 3).movedim(-1, 1)
    monai = DiceMetric(include_background=False, reduction="none")(said, true)
    assert isinstance(monai, torch.Tensor)
    theirs = dice_score(said, true, num_classes=3, include_background=False, average="none")
    assert [found["dice_liver"], found["dice_tumour"]] == pytest.approx(monai.mean(dim=0).tolist(), abs=1e-6)
    assert [found["dice_liver"], found["dice_tumour"]] == pytest.approx(theirs.mean(dim=0).tolist(), abs=1e-6)


def test_soft_dice_against_a_plain_reading() -> None:
    logits, masks = drawn(2)
    z = logits.double().numpy()
    chance = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    scans = []
    for i in range(len(masks)):
        classes = []
        for c in range(3):
            p, t = chance[i, c].ravel(), (masks[i].numpy() == c).ravel()
            classes.append(2 * sum(p[t]) / (sum(p) + sum(t)))
        scans.append(sum(classes) / 3)
    found = judged(logits, masks).metrics()["dice_soft"]
    assert found == pytest.approx(np.mean(scans), abs=1e-6)
    assert found == pytest.approx(1 - float(loss("dice")(logits, masks).mean()), abs=1e-6)


def test_a_class_in_neither_does_not_count_and_in_one_of_them_counts_nothing() -> None:
    masks = torch.zeros((3, 4, 4), dtype=torch.uint8)
    masks[:, :2] = 1
    masks[0, 0, :2] = 2
    said = masks.clone()
    said[1, 0, 0] = 2  # a false alarm in a scan without tumour
    logits = 9.0 * torch.nn.functional.one_hot(said.long(), 3).movedim(-1, 1)
    found = judged(logits, masks)
    assert found.metrics()["dice_tumour"] == pytest.approx((1 + 0) / 2)  # the third scan does not count
    assert found.metrics()["dice_liver"] == pytest.approx((1 + 2 * 7 / (7 + 8) + 1) / 3)
    assert found.sample("dice_tumour").units == 2
    nobody = judged(logits[2:], masks[2:])
    assert nobody.metrics()["dice_tumour"] is None
    assert nobody.sample("dice_tumour").problem == "the class is in no scan"


def test_slices_are_added_up_to_their_scan_before_anything_is_divided() -> None:
    logits, masks = drawn(3, scans=4, shape=(6, 8, 8))
    slices = logits.movedim(2, 1).flatten(0, 1)
    units = np.repeat(np.arange(4), 6)
    by_slice = judged(slices, masks.flatten(0, 1), units)
    whole = judged(logits, masks)
    for name in ("dice_liver", "dice_tumour", "dice_soft"):
        assert by_slice.metrics()[name] == pytest.approx(whole.metrics()[name])
    per_slice = judged(slices, masks.flatten(0, 1)).metrics()["dice_liver"]
    assert by_slice.metrics()["dice_liver"] != pytest.approx(per_slice, abs=1e-6)
    first = by_slice.metrics(np.arange(6))["dice_liver"]
    voxels = plain((logits[0].argmax(0) == 1).flatten().numpy(), (masks[0] == 1).flatten().numpy())
    assert first == pytest.approx(voxels)


def test_few_scans_have_a_figure_and_no_interval_and_a_diverged_model_has_neither() -> None:
    logits, masks = drawn(4)
    few = interval(judged(logits, masks), "dice_liver", seed=1)
    assert few.estimate == pytest.approx(judged(logits, masks).metrics()["dice_liver"])
    assert (few.low, few.high, few.reason) == (None, None, "fewer than 10 independent units")
    logits[0, 0, 0] = float("nan")
    broken = judged(logits, masks)
    assert set(broken.metrics().values()) == {None}
    assert interval(broken, "dice_liver", seed=1).reason == "the training diverged"


def test_names_follow_the_classes() -> None:
    assert metric_names(NAMES) == ("dice_liver", "dice_tumour", "dice_soft", "loss")
