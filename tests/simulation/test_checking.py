"""`fedward data`: what is there, what is missing, and how it would be dealt."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from simulation.cli import app


def check(*arguments: str) -> dict[str, object]:
    run = CliRunner().invoke(app, ["data", "check", *arguments, "--json"])
    assert run.exit_code == 0, run.exception
    return json.loads(run.stdout)


def test_a_deal_adds_up_and_is_drawn(tmp_path: Path) -> None:
    picture = tmp_path / "deal.png"
    deal = ("--set", "hospitals.partition=dirichlet", "--set", "hospitals.count=5")
    found = check("ham10000", "phantom", "--set", "task.phantom_images=200", *deal, "--plot", str(picture))
    hospitals = found["hospitals"]
    assert isinstance(hospitals, list)
    assert len(hospitals) == 5
    total = sum(h["images"] for h in hospitals)
    assert total == found["training_images"] + found["validation_images"]  # type: ignore[operator]
    assert total + found["test_images"] == 200  # type: ignore[operator]
    assert all(sum(h["classes"].values()) == h["images"] for h in hospitals)
    assert found["damaged"] == []
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "ham1000", "phantom"], "did you mean 'ham10000'"),
        (["check", "radimagenet", "/no/such/folder"], "apply at radimagenet.com"),
        (["check", "msd_liver", "/no/such/folder"], "medicaldecathlon.com"),
        (["check", "ham10000", "phantom", "--set", "hospitals.count=5"], "hospitals.count"),
        (["check", "ham10000", "phantom", "--plot", "/no/such/folder/deal.png"], "--plot"),
        (["phantom", "ham10000", "/tmp"], "exists already"),
        (["check", "ham10000", "phantom", "--set", "task.phantom_images=10"], "use 64 or more"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], words: str) -> None:
    run = CliRunner().invoke(app, ["data", *arguments])
    assert words in str(run.exception)
