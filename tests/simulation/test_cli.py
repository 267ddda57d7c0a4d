"""The command line: bad input is one sentence and exit code 2, JSON is JSON alone, nothing is half-written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FEDWARD = [sys.executable, "-m", "simulation.cli"]
SMALL = [
    *("--set", "task.image_size=16", "--set", "task.width=4", "--set", "task.phantom_images=240"),
    *("--set", "training.rounds=2", "--set", "training.batch_size=48", "--set", "adversary.public_images=100"),
    *("--set", "adversary.imprint.rows=32", "--engine", "inline"),
]


def fedward(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        [*FEDWARD, *arguments], capture_output=True, text=True, env=environment, timeout=300, check=False
    )


def phantom_with(tmp_path: Path, damage: str) -> Path:
    """Write a phantom and damage it."""
    from tasks.ham10000.phantom import write_phantom

    root = tmp_path / "ham"
    write_phantom(root, images=64, seed=1)
    image = sorted(root.glob("HAM10000_images_part_1/*.jpg"))[3]
    if damage == "corrupt JPEG":
        image.write_bytes(image.read_bytes()[:200])
    elif damage == "missing image":
        image.unlink()
    return root


BAD = [
    ("unknown key", ["--set", "training.ronds=3"], "did you mean 'rounds'"),
    ("epsilon 0", ["--set", "privacy.mechanism=local", "--set", "privacy.epsilon=0"], "privacy.epsilon"),
    ("missing root", ["--set", "task.root=/nonexistent/ham"], "/nonexistent/ham"),
    ("unset root", ["--set", "task.root=null"], "task.root"),
    (
        "more hospitals than lesions",
        ["--set", "hospitals.partition=iid", "--set", "hospitals.count=5000"],
        "hospitals.count",
    ),
    ("quorum impossible", ["--set", "training.quorum=9"], "training.quorum"),
    ("batch too large", ["--set", "training.batch_size=100000"], "training.batch_size"),
    (
        "an attack that may not know enough",
        ["--set", "adversary.placement=server"],
        "attack 'imprint' needs control of the broadcast",
    ),
]


@pytest.mark.parametrize(("name", "settings", "says"), BAD, ids=[b[0] for b in BAD])
def test_bad_settings(tmp_path: Path, name: str, settings: list[str], says: str) -> None:
    out = tmp_path / "run"
    result = fedward("simulate", "demo", *SMALL, *settings, "--out", str(out))
    assert result.returncode == 2, result.stderr
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""
    assert not out.exists()


@pytest.mark.parametrize("damage", ["corrupt JPEG", "missing image"])
def test_damaged_data(tmp_path: Path, damage: str) -> None:
    root = phantom_with(tmp_path, damage)
    out = tmp_path / "run"
    result = fedward("simulate", "demo", *SMALL, "--set", f"task.root={root}", "--out", str(out))
    assert result.returncode == 2, result.stderr
    assert "ISIC_" in result.stderr
    assert "Traceback" not in result.stderr
    assert not out.exists()


@pytest.mark.parametrize("damage", ["corrupt JPEG", "missing image"])
def test_damaged_data_that_are_skipped_are_never_skipped_in_silence(tmp_path: Path, damage: str) -> None:
    root = phantom_with(tmp_path, damage)
    out = tmp_path / "run"
    settings = ["--set", f"task.root={root}", "--set", "task.damaged=skip", "--set", "training.rounds=2"]
    result = fedward("simulate", "demo", *SMALL, *settings, "--engine", "inline", "--out", str(out), "--json")
    assert result.returncode == 0, result.stderr
    (note,) = json.loads(result.stdout)["notes"]
    assert "ISIC_" in note
    assert "note: " in result.stderr
    assert "ISIC_" in result.stderr
    page = (out / "report.html").read_text()
    assert note.split("ISIC_")[1][:7] in page


def test_no_such_preset_names_the_nearest(tmp_path: Path) -> None:
    result = fedward("simulate", "ham1000", "--out", str(tmp_path / "x"))
    assert result.returncode == 2
    assert "did you mean 'ham10000'" in result.stderr


ONE = ("--set", "study.mechanisms=[local]")


def test_budgets_keep_finished_cells_and_resume(tmp_path: Path) -> None:
    out = tmp_path / "study"
    first = fedward("budgets", "demo", *SMALL, *ONE, "--out", str(out), "--json")
    assert first.returncode == 0, first.stderr
    study = json.loads(first.stdout)
    assert [c["cell"] for c in study["cells"]] == ["none-seed-10", "local-eps-1e+09-seed-10", "local-eps-8-seed-10"]
    assert study["cells"][0]["summary"]["hospitals"][0]["epsilon"] is None
    for cell, budget in zip(study["cells"][1:], (1e9, 8.0), strict=True):
        for row in cell["summary"]["hospitals"]:
            assert row["epsilon"]["upper"] <= budget
            assert row["epsilon_opacus_rdp"] > row["epsilon"]["upper"]
    assert "report.html" in first.stderr
    assert (out / "report.html").is_file()
    # Take one cell and the study's own summary away: the others are not run again.
    (out / "summary.json").unlink()
    kept = out / "cells" / "none-seed-10" / "events.jsonl"
    before = kept.stat().st_mtime_ns
    again = fedward("budgets", "demo", *SMALL, *ONE, "--out", str(out), "--json", "--resume")
    assert again.returncode == 0, again.stderr
    assert kept.stat().st_mtime_ns == before
    assert [c["summary"]["model_sha256"] for c in json.loads(again.stdout)["cells"]] == [
        c["summary"]["model_sha256"] for c in study["cells"]
    ]


def test_attack_and_report_again_without_training(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert fedward("simulate", "demo", *SMALL, "--out", str(out)).returncode == 0
    events = (out / "events.jsonl").read_bytes()
    again = fedward("attack", str(out), "--attack", "mean_image", "--json")
    assert again.returncode == 0, again.stderr
    assert {row["attack"] for row in json.loads(again.stdout)} == {"mean_image"}
    assert (out / "events.jsonl").read_bytes() == events
    assert fedward("report", str(out)).returncode == 0
    unknown = fedward("attack", str(out), "--attack", "magic")
    assert unknown.returncode == 2
    assert "magic" in unknown.stderr


def test_pricing_commands(tmp_path: Path) -> None:
    priced = fedward("epsilon", "--noise-multiplier", "1", "--sample-rate", "1", "--steps", "1", "--delta", "1e-5")
    content = json.loads(priced.stdout)
    assert set(content) == {"lower", "estimate", "upper", "method", "opacus_rdp"}
    assert content["estimate"] == pytest.approx(4.377, abs=2e-3)  # analytic Gaussian mechanism, Balle & Wang 2018
    nothing = fedward("epsilon", "--noise-multiplier", "0", "--sample-rate", "1", "--steps", "1", "--delta", "1e-5")
    assert json.loads(nothing.stdout)["upper"] is None
    wrong = fedward("epsilon", "--noise-multiplier", "-1", "--sample-rate", "1", "--steps", "1", "--delta", "1e-5")
    assert wrong.returncode == 2
    assert "noise_multiplier" in wrong.stderr
    noise = fedward("noise", "--epsilon", "8", "--delta", "1e-5", "--sample-rate", "1", "--steps", "1")
    value = json.loads(noise.stdout)["noise_multiplier"]
    back = fedward("epsilon", "--noise-multiplier", str(value), "--sample-rate", "1", "--steps", "1", "--delta", "1e-5")
    assert json.loads(back.stdout)["upper"] == pytest.approx(8, rel=1e-4)


def test_ledgers_are_checked_and_priced(tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = ["--set", "privacy.mechanism=local", "--set", "privacy.epsilon=8", "--set", "adversary.placement=none"]
    assert fedward("simulate", "demo", *SMALL, *settings, "--out", str(out)).returncode == 0
    files = sorted(str(p) for p in (out / "ledger").glob("*.jsonl"))
    one = json.loads(fedward("ledger", files[0], "--delta", "1e-5").stdout)
    both = json.loads(fedward("ledger", *files[:2], "--delta", "1e-5").stdout)
    assert one["epsilon"]["upper"] <= 8 < both["epsilon"]["upper"]
    text = Path(files[0]).read_text()
    Path(files[0]).write_text(text.replace('"steps": 1', '"steps": 0', 1))
    broken = fedward("ledger", files[0])
    assert broken.returncode == 2
    assert "line 1" in broken.stderr
