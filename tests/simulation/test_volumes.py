"""Segmentation of volumes through the whole of a run: crops, masks, Dice, the imprint attack, and the same bits."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from configs import Experiment, InputError
from simulation.attacking import decoy_images
from simulation.pools import make_pools, targets_of
from simulation.run import simulate
from simulation.setup import prepare

LIVER: dict[str, Any] = {
    "name": "msd_liver",
    "root": "phantom",
    "phantom_images": 12,
    "image_size": 16,
    "depth": 8,
    "width": 4,
    "loss": "dice_ce",
}


def experiment(**sections: dict[str, Any]) -> Experiment:
    content: dict[str, Any] = {
        "task": {**LIVER, **sections.pop("task", {})},
        "hospitals": {"partition": "iid", "count": 2},
        "training": {
            "rounds": 2,
            "batch_size": None,
            "flips": 0.0,
            "learning_rate": 5e-3,
            **sections.pop("training", {}),
        },
        "adversary": {"public_images": 10, "imprint": {"rows": 64, "components": 8}, **sections.pop("adversary", {})},
        **sections,
    }
    return Experiment.model_validate(content)


ATTACKED = {"placement": "malicious_server"}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(experiment(adversary=ATTACKED), tmp_path_factory.mktemp("volumes") / "run").folder


def test_whole_scans_are_copied_without_privacy(attacked: Path) -> None:
    targets = pd.read_csv(attacked / "attacks.csv")
    assert len(targets) >= 8
    # 64 rows, five scans a hospital: nearly all are alone in theirs, and exact; the null resembles them by .83.
    assert targets["recovered"].mean() >= 0.7
    assert targets["null_ssim"].median() < 0.95 < targets["ssim"].median()
    first = targets[targets["true_png"].notna() & (targets["true_png"] != "")].iloc[0]
    true, guess = (np.asarray(Image.open(attacked / first[f"{k}_png"])) for k in ("true", "reconstructed"))
    assert true.shape == guess.shape == (16, 16)


def test_dice_beside_the_mean_mask(attacked: Path) -> None:
    rounds = pd.read_csv(attacked / "rounds.csv")
    assert rounds["dice_liver"].between(0, 1).all()
    assert (attacked / "subgroups.csv").is_file()
    page = (attacked / "report.html").read_text()
    assert "Dice" in page


def test_the_same_bits_twice_and_none_of_the_scans_is_told_from_a_null_under_noise(tmp_path: Path) -> None:
    noisy = {"mechanism": "local", "epsilon": 8, "delta": 1e-3}
    runs = [simulate(experiment(privacy=noisy, adversary=ATTACKED), tmp_path / name) for name in "ab"]
    assert runs[0].summary["model_sha256"] == runs[1].summary["model_sha256"]
    assert all(h["unit"] == "scan" for h in runs[0].summary["hospitals"])
    for attack in runs[0].summary["attacks"]:  # phantom bodies resemble their mean: the null is not zero
        assert attack["recovered"] <= attack["null_recovered"]
        assert not attack["above_null"]


def test_crops_have_the_models_shape_everywhere() -> None:
    setup = prepare(experiment(task={"crop": [7, 8, 12]}, training={"views": 3}, adversary=ATTACKED))
    assert setup.task.shape == (1, 7, 8, 12)
    pools = make_pools(setup)
    assert pools.public.images.shape[1:] == (1, 7, 8, 12)
    assert decoy_images(setup, pools).shape == (len(pools.decoys), 1, 7, 8, 12)
    hospital = setup.deal.hospitals[0]
    targets = targets_of(setup, {hospital.name: [2]})
    assert targets.images.shape == (len(hospital.records), 1, 7, 8, 12)
    whole = hospital.records.pixels()
    position = {name: i for i, name in enumerate(hospital.records.ids)}
    for name, crop in zip(targets.ids, targets.images, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(whole[position[name]], (1, 7, 8, 12))
        assert np.any(np.all(windows == crop, axis=(-4, -3, -2, -1)))


def test_slices_train_with_the_scan_as_their_unit(tmp_path: Path) -> None:
    small = {"slices": True, "phantom_images": 8}
    run = simulate(
        experiment(task=small, privacy={"mechanism": "local", "epsilon": 8, "delta": 1e-3}), tmp_path / "run"
    )
    for row in run.summary["hospitals"]:
        assert row["records"] == 8 * row["units"]
        assert row["epsilon_larger_unit"] is None
    image = experiment(task=small, privacy={"mechanism": "local", "epsilon": 8, "delta": 1e-3, "unit": "image"})
    again = simulate(image, tmp_path / "image")
    for row in again.summary["hospitals"]:
        assert row["records"] == row["units"]
        assert (row["larger_unit"], row["images_in_larger_unit"]) == ("scan", 8)
        assert row["epsilon_larger_unit"]["lower"] > row["epsilon"]["upper"]


def test_volumes_too_thin_to_score_are_refused() -> None:
    with pytest.raises(InputError, match="windows of 7 pixels"):
        prepare(experiment(task={"depth": 6}, adversary=ATTACKED))
