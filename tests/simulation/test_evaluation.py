"""Evaluation of images and of volumes: batches and windows change nothing, and nulls look at nothing."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from simulation import evaluation
from simulation.evaluation import Evaluator, judged, names_of
from simulation.nulls import MeanMask, null_metrics
from simulation.setup import Setup
from simulation.subgroups import COLUMNS, subgroup_rows, write_subgroups
from tasks.base import Mapped, Records, Task
from tasks.metrics import Classified, Overlaps, Segmented
from tasks.models import ModelSpec, build, initial_weights, normalise

NAMES = ("background", "liver", "tumour")


def volumes(count: int, shape: tuple[int, ...], seed: int) -> Records:
    """Volumes whose organ is bright and lies about the middle."""
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    masks = np.zeros((count, *shape), dtype=np.uint8)
    for mask in masks:
        centre = generator.uniform(-0.2, 0.2, 3)[:, None, None, None]
        mask[((grid - centre) ** 2).sum(axis=0) < 0.3] = 1
        mask[((grid - centre - 0.1) ** 2).sum(axis=0) < 0.02] = 2
    images = np.clip(60 + 90 * (masks > 0) + generator.normal(0, 9, masks.shape), 0, 255).astype(np.uint8)[:, None]
    names = np.array([f"scan-{k:02d}" for k in range(count)])
    groups = {"tumour": np.array(["yes", "no"])[np.arange(count) % 2], "spacing": np.array([""] * count)}
    labels = np.ones(count, dtype=np.int64)
    rows = np.arange(count)
    return Records(Mapped(images), labels, names, names, names, rows, Mapped(masks), groups)


def dense_setup(shape: tuple[int, ...], crop: tuple[int, ...]) -> Setup:
    spec = ModelSpec("unet", (1, *crop), outputs=3, width=2)
    task = Task("msd_liver", "scan", NAMES, (1, *crop), spec, "dice", load=cast(Any, None))
    heldout = volumes(3, shape, 1)
    deal = SimpleNamespace(hospitals=[SimpleNamespace(records=volumes(6, shape, 2))])
    return cast(
        Setup, SimpleNamespace(task=task, heldout=heldout, heldout_by_hospital={"a": [0, 2], "b": []}, deal=deal)
    )


def arrays(spec: ModelSpec) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in initial_weights(spec, 3).items()}


def test_whole_volumes_are_judged_by_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = dense_setup((16, 32, 24), (16, 32, 24))
    weights = arrays(setup.task.spec)
    overall, own = Evaluator(setup).measure(weights)
    model = build(setup.task.spec).eval()
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    with torch.inference_mode():
        logits = model(normalise(torch.from_numpy(setup.heldout.pixels())))
    said, true = logits.argmax(dim=1).numpy(), setup.heldout.targets()
    dice = [
        2 * np.sum((s == 1) & (t == 1)) / (np.sum(s == 1) + np.sum(t == 1)) for s, t in zip(said, true, strict=True)
    ]
    assert overall["dice_liver"] == pytest.approx(np.mean(dice), abs=1e-6)
    assert own["a"]["dice_liver"] == pytest.approx((dice[0] + dice[2]) / 2, abs=1e-6)
    assert set(own) == {"a"}
    assert tuple(overall) == names_of(setup.task) == ("dice_liver", "dice_tumour", "dice_soft", "loss")
    monkeypatch.setattr(evaluation, "BATCH_VOXELS", 1)
    one_by_one, _ = Evaluator(setup).measure(weights)
    assert one_by_one == pytest.approx(overall, abs=1e-6)


def test_windows_cover_a_volume_and_agree_with_a_model_that_looks_at_single_voxels() -> None:
    torch.manual_seed(0)
    pointwise = torch.nn.Conv3d(1, 3, 1).eval()
    setup = dense_setup((20, 40, 36), (16, 16, 16))
    images = torch.from_numpy(setup.heldout.pixels())
    with torch.inference_mode():
        whole = pointwise(normalise(images))
        windowed = evaluation._windows(pointwise, normalise(images), (16, 16, 16))  # pyright: ignore[reportPrivateUsage]
    assert torch.allclose(whole, windowed, atol=1e-5)
    twice = [Evaluator(setup).measure(arrays(setup.task.spec)) for _ in range(2)]
    assert twice[0] == twice[1]
    assert twice[0][0]["dice_liver"] is not None


def test_the_mean_mask_is_what_one_gets_without_looking() -> None:
    setup = dense_setup((12, 16, 16), (12, 16, 16))
    training = setup.deal.hospitals[0].records
    masks = np.asarray(training.targets())
    mean = MeanMask(training, 3)
    share = np.stack([(masks == c).mean(axis=0) for c in range(3)])
    assert mean.logits.softmax(dim=0).numpy() == pytest.approx(share, abs=1e-5)
    found = null_metrics(setup)

    def dice(mask: np.ndarray, label: int) -> float:
        pairs = [(mask == label, t == label) for t in np.asarray(setup.heldout.targets())]
        return float(np.mean([2 * np.sum(p & t) / (p.sum() + t.sum()) for p, t in pairs]))

    assert found["dice_liver"] == pytest.approx(dice(mean.cut.argmax(dim=0).numpy(), 1), abs=1e-6)
    assert found["dice_liver"] is not None
    assert found["dice_liver"] > 0.5  # a null that is no straw man
    assert found["dice_tumour"] is not None
    assert found["dice_tumour"] > dice(share.argmax(axis=0), 2)  # voxelwise majority draws no tumour


def test_shares_of_the_classes_are_the_null_of_a_classifier() -> None:
    generator = np.random.default_rng(1)
    labels = (generator.random(400) < 0.2).astype(np.int64)
    names = np.array([str(k) for k in range(400)])
    records = Records(Mapped(np.zeros((400, 1, 2, 2), np.uint8)), labels, names, names, names, np.arange(400))
    task = Task("x", "image", ("a", "b"), (1, 2, 2), ModelSpec("resnet9", (1, 8, 8), 1, 4), "binary", cast(Any, None))
    deal = SimpleNamespace(hospitals=[SimpleNamespace(records=records)])
    setup = cast(Setup, SimpleNamespace(task=task, heldout=records, deal=deal))
    found = null_metrics(setup)
    p = (labels.sum() + 1) / 402
    assert (found["auroc"], found["mcc"], found["balanced_accuracy"]) == (0.5, 0.0, 0.5)
    assert found["loss"] == pytest.approx(-np.mean(np.where(labels == 1, np.log(p), np.log(1 - p))))
    assert found["brier"] == pytest.approx(np.mean((p - labels) ** 2))


def test_subgroups_have_their_own_metric_and_say_why_there_is_none(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    labels = np.arange(200) % 4 // 3  # every fourth is positive
    scores = generator.normal(size=200) + 1.5 * labels
    names = np.array([f"{k:03d}" for k in range(200)])
    diagnosis = np.array(["nv", "bkl", "nv", "mel"])[np.arange(200) % 4]
    sex = np.array(["female"] * 90 + ["male"] * 106 + [""] * 4)
    scores[90:196] = generator.normal(size=106)  # for men it only guesses
    groups = {"sex": sex, "diagnosis": diagnosis, "same": np.where(labels == 1, "p", "n")}
    records = Records(Mapped(np.zeros((1, 1), np.uint8)), labels, names, names, names, np.arange(200), None, groups)
    found = subgroup_rows(Classified(scores[:, None], labels, np.arange(200)), records, ("no", "yes"), seed=1)
    by_name = {(r["group"], r["value"]): r for r in found}
    assert {r["group"] for r in found} == {"class", "sex", "diagnosis"}  # 'same' is the class
    assert by_name["class", "yes"]["estimate"] == pytest.approx(np.mean(scores[labels == 1] > 0))
    assert by_name["diagnosis", "mel"]["metric"] == "recall"
    female, male = by_name["sex", "female"], by_name["sex", "male"]
    assert female["metric"] == "auroc"
    assert female["low"] > male["high"]
    assert male["low"] < 0.5 < male["high"]
    unknown = by_name["sex", "unknown"]
    assert (unknown["estimate"], unknown["reason"]) == (None, "fewer than 10 independent units")
    write_subgroups(tmp_path / "a.csv", found)
    write_subgroups(tmp_path / "b.csv", [])
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert (tmp_path / "b.csv").read_text().splitlines()[0] == ",".join(COLUMNS)


def test_subgroups_of_scans_are_measured_by_dice() -> None:
    setup = dense_setup((8, 16, 16), (8, 16, 16))
    records = volumes(24, (8, 16, 16), 5)
    masks = torch.from_numpy(np.asarray(records.targets()))
    logits = 5.0 * torch.nn.functional.one_hot(masks.long(), 3).movedim(-1, 1).float()
    logits[1::2, 1] -= 6.0 * (torch.rand(12, 8, 16, 16, generator=torch.Generator().manual_seed(1)) < 0.3)
    found = judged(setup.task, records, lambda part: logits[part])
    assert isinstance(found, Segmented)
    assert isinstance(found.overlaps, Overlaps)
    rows = {(r["group"], r["value"]): r for r in subgroup_rows(found, records, NAMES, seed=1)}
    assert set(rows) == {
        ("class", "liver"),
        ("class", "tumour"),
        ("tumour", "yes"),
        ("tumour", "no"),
        ("spacing", "unknown"),
    }
    assert rows["tumour", "yes"]["estimate"] == 1.0
    assert rows["tumour", "yes"]["reason"] == "every resample gives the same value"
    assert rows["tumour", "no"]["high"] < 0.95
    assert rows["tumour", "no"]["units"] == 12
