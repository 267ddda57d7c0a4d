"""The command `fedward budgets`: its options, and what it prints when a study ends."""

import json
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from configs import InputError
from simulation.cli import app
from simulation.run import Run
from simulation.showing import recommendation, show_study

RUNNER = CliRunner()
STUDY = ["--set", "study.mechanisms=[local, central]", "--set", "study.budgets=[none, 8]"]


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        (["--hospitals", "3", "--records", "400"], [400, 400, 400]),
        (["--sizes", "1200, 300,80"], [1200, 300, 80]),
    ],
)
def test_planning_takes_hospitals_without_data(options: list[str], sizes: list[int]) -> None:
    batch = ["--set", "training.batch_size=64", "--set", "task.root=/nowhere"]
    result = RUNNER.invoke(app, ["budgets", "demo", *STUDY, *batch, "--plan", "--json", *options])
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    rows = [row for row in content["rows"] if row["mechanism"] == "local"]
    assert [h["units"] for h in rows[0]["places"]] == sizes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--plan", "--hospitals", "3"], "--records go together"),
        (["--plan", "--records", "3"], "--records go together"),
        (["--plan", "--sizes", "3,4", "--hospitals", "2"], "--sizes names every hospital"),
        (["--plan", "--sizes", "3,four"], "write whole numbers"),
        (["--plan", "--sizes", "3,0"], "at least one record"),
        (["--sizes", "3,4"], "for --plan only"),
    ],
)
def test_options_that_do_not_fit_are_named(options: list[str], words: str) -> None:
    result = RUNNER.invoke(app, ["budgets", "demo", *options])
    assert isinstance(result.exception, InputError)
    assert words in str(result.exception)


def setting(**changed: Any) -> dict[str, Any]:
    """Make a row of `settings` by hand."""
    row: dict[str, Any] = {
        "mechanism": "local",
        "budget": 8.0,
        "metric": "auroc",
        "seeds": 2,
        "utility": {"estimate": 0.8125, "low": 0.75, "high": 0.875},
        "worst_hospital": {"name": "north", "estimate": 0.625},
        "noise_multiplier": {"min": 0.5, "max": 2.5},
        "epsilon": {"upper": 7.96875},
        "epsilon_opacus_rdp": 9.25,
        "protects": "image",
        "bounds": {"prior": 0.01, "worst_case": 0.375, "relaxed": 0.25},
        "attack": {"attack": "imprint", "goal": "copied", "rate": 0.5, "null": 0.0, "above_null": True},
    }
    return {**row, **changed}


def test_the_table_shows_every_setting_and_the_recommendation(tmp_path: Any) -> None:
    empty = dict.fromkeys(("noise_multiplier", "epsilon", "epsilon_opacus_rdp", "protects", "bounds", "attack"))
    bare = setting(mechanism="none", budget="none", utility=None, worst_hospital=None, **empty)
    study = {
        "settings": [setting(), bare],
        "refused": [{"mechanism": "distributed", "budget": 8.0, "why": "training.local_steps: 2."}],
        "recommended": {"mechanism": "local", "budget": 8.0, "why": ["Nothing was heard.", "It costs little."]},
    }
    shown = Console(record=True, width=150)
    show_study(Run(tmp_path, study), shown)
    text = shown.export_text()
    line = next(row for row in text.splitlines() if row.strip().startswith("local"))
    for figure in (
        "0.812",
        "0.75 to 0.88",
        "0.625",
        "0.5 to 2.5",
        "7.97",
        "9.25",
        "image",
        "38 %",
        "50 % (0 %)",
        "yes",
    ):
        assert figure in line
    assert "imprint: copied" in line
    other = next(row for row in text.splitlines() if row.strip().startswith("none"))
    assert "no claim" in other
    assert "nobody" in other
    assert "not run: distributed at budget 8: training.local_steps: 2." in text
    assert "Recommended: local at epsilon 8. Nothing was heard. It costs little." in text


def test_no_recommendation_says_why() -> None:
    found = {"mechanism": None, "budget": None, "why": ["Attacks were heard everywhere.", "So they were."]}
    assert recommendation({"recommended": found}) == (
        "No budget is recommended. Attacks were heard everywhere. So they were."
    )
