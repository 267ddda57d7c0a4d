"""A grid gives the same bits one after the other and side by side, keeps what is finished, and survives a bad cell."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from configs import Experiment, InputError, RunStoppedError, Study
from configs.experiment import StudyAxes
from simulation import grid
from simulation.cell_jobs import Job
from simulation.grid import run_budgets
from simulation.grid_progress import GridProgress, duration
from simulation.study_rows import budget_row

Make = Callable[..., Experiment]
Folders = Callable[..., Path]

AXES = StudyAxes(mechanisms=("pooled", "local", "alone", "distributed", "central"), budgets=("none", 8.0))
TINY: dict[str, dict[str, Any]] = {
    "training": {"rounds": 2},
    "privacy": {"delta": 1e-4},
    "task": {"phantom_images": 160},
}


def cells_of(folder: Path) -> dict[str, dict[str, Any]]:
    summary = json.loads((folder / "summary.json").read_text())
    return {row["cell"]: row["summary"] for row in summary["cells"]}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return when each cell's summary and event log were last written."""
    return {
        path.parent.name: (path.stat().st_mtime_ns, (path.parent / "events.jsonl").stat().st_mtime_ns)
        for path in folder.glob("cells/*/summary.json")
    }


@pytest.fixture(scope="module")
def inline(small: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("grid") / "inline"
    run_budgets(Study(experiment=small(**TINY), axes=AXES), out, "tiny", resume=False, console=None)
    return out


def test_inline_and_ray_agree_to_the_bit(small: Make, inline: Path, tmp_path: Path) -> None:
    experiment = small(**TINY, runtime={"engine": "ray", "workers": 2})
    study = Study(experiment=experiment, axes=AXES)
    run_budgets(study, tmp_path / "ray", "tiny", resume=False, console=None)
    one, other = cells_of(inline), cells_of(tmp_path / "ray")
    assert list(one) == list(other)
    assert len(one) == 1 + 2 + 1 + 8 + 1 + 1
    for name, summary in one.items():
        for key in ("model_sha256", "experiment_sha256", "hospitals", "attacks", "central", "utility", "intervals"):
            assert summary[key] == other[name][key], (name, key)
    assert len({s["model_sha256"] for s in one.values()}) == len(one)
    tables = [json.loads((folder / "summary.json").read_text()) for folder in (inline, tmp_path / "ray")]
    for key in ("settings", "price", "joining", "equal_noise", "recommended", "refused", "notes", "axes"):
        assert tables[0][key] == tables[1][key], key


def test_the_tables_have_a_line_per_cell_and_per_setting(inline: Path) -> None:
    lines = pd.read_csv(inline / "budgets.csv")
    assert len(lines) == 14
    assert lines["cell"].is_unique
    assert set(lines["hospital"].dropna()) == {"rosendahl", "vidir_modern", "vidir_molemax", "vienna_dias"}
    priced = lines[lines["budget"] == "8.0"]
    assert (priced["epsilon_upper"] <= 8).all()
    assert set(lines[lines["mechanism"] == "central"]["protects"]) == {"hospital"}
    unpriced = lines[lines["budget"] == "none"]
    assert unpriced["epsilon_upper"].isna().all()
    settings = pd.read_csv(inline / "settings.csv")
    assert len(settings) == 8
    assert "utility.estimate" in settings.columns
    assert (inline / "report.html").is_file()
    for name in cells_of(inline):
        assert (inline / "cells" / name / "predictions.npz").is_file()


def test_resuming_runs_nothing_twice(small: Make, inline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, bits = stamps(inline), {n: s["model_sha256"] for n, s in cells_of(inline).items()}
    study = Study(experiment=small(**TINY), axes=AXES)
    with pytest.raises(InputError, match="--resume"):
        run_budgets(study, inline, "tiny", resume=False, console=None)
    handed: list[str] = []
    attempt = grid.attempt

    def counted(job: Job, *rest: Any) -> str | None:
        handed.append(job.name)
        return attempt(job, *rest)

    monkeypatch.setattr(grid, "attempt", counted)
    run_budgets(study, inline, "tiny", resume=True, console=None)
    assert handed == []
    # A page that is missing is made again, without the run.
    page = inline / "cells" / "none-seed-10" / "report.html"
    page.unlink()
    (inline / "cells" / "pooled-none-seed-10" / "summary.json").unlink()
    (inline / "cells" / "pooled-none-seed-10" / "model.safetensors").unlink()
    run_budgets(study, inline, "tiny", resume=True, console=None)
    assert handed == ["pooled-none-seed-10"]
    assert page.is_file()
    assert {n: s["model_sha256"] for n, s in cells_of(inline).items()} == bits
    after = stamps(inline)
    assert {n for n in before if before[n] != after[n]} == {"pooled-none-seed-10"}
    other = Study(experiment=small(**{**TINY, "training": {"rounds": 3}}), axes=AXES)
    with pytest.raises(InputError, match="another experiment"):
        run_budgets(other, inline, "tiny", resume=True, console=None)


@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_a_failing_cell_stops_the_study_at_its_end(small: Make, tmp_path: Path, engine: str) -> None:
    # Hospitals that never answer lose the federation its quorum; who trains at one place waits for nobody.
    training = {"rounds": 2, "stragglers": 0.9, "quorum": 4}
    experiment = small(**{**TINY, "training": training}, runtime={"engine": engine, "workers": 1})
    study = Study(experiment=experiment, axes=StudyAxes(mechanisms=("pooled", "clip_only"), budgets=("none", 8.0)))
    with pytest.raises(RunStoppedError) as stopped:
        run_budgets(study, tmp_path / "out", "tiny", resume=False, console=None)
    assert stopped.value.exit_code == 3
    text = str(stopped.value)
    assert text.startswith("cell none-seed-10 (and clip_only-seed-10) failed: quorum lost")
    assert "The other 2 of 4 cells are finished" in text
    finished = {p.parent.name for p in (tmp_path / "out").glob("cells/*/summary.json")}
    assert finished == {"pooled-none-seed-10", "pooled-eps-8-seed-10"}
    assert not (tmp_path / "out" / "summary.json").exists()


def test_an_error_of_ours_keeps_its_traceback(small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import simulation.run

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(simulation.run, "simulate", broken)
    error = grid.attempt(Job("a", small(), tmp_path / "a"))
    assert error is not None
    assert error.startswith("ZeroDivisionError: of ours")
    assert "broken" in (tmp_path / "a" / "failure.txt").read_text()


def test_the_price_of_central_is_the_servers(inline: Path) -> None:
    summary = json.loads((inline / "summary.json").read_text())
    (row,) = [budget_row(r) for r in summary["cells"] if r["mechanism"] == "central"]
    own = cells_of(inline)["central-eps-8-seed-10"]["central"]
    assert row["epsilon_upper"] == own["epsilon"]["upper"] <= 8
    assert row["noise_multiplier_min"] == row["noise_multiplier_max"] == own["noise_multiplier"]
    local = budget_row(next(r for r in summary["cells"] if r["mechanism"] == "local"))
    assert local["protects"] == "image"


def test_the_time_left_counts_what_is_done_and_what_is_under_way(small: Make, tmp_path: Path) -> None:
    from server.events import EventLog

    shown = GridProgress(None, 5, 1)
    experiment = small(training={"rounds": 4})
    jobs = [Job(name, experiment, tmp_path / name) for name in "ab"]
    assert shown.left() == ""
    for job in jobs:
        shown.started(job)
    shown.ended(jobs[0], None)
    log = EventLog(tmp_path / "b" / "events.jsonl")
    for number in (1, 2):
        log.write("finished", round=number, releases=4)
    shown._last_look = -math.inf
    shown._began -= 72.0  # 1.5 cells in 72 seconds: 2.5 are left
    shown.look()
    assert shown.left() == "about 2 min left"
    assert [duration(s) for s in (12, 600, 7200)] == ["12 s", "10 min", "2.0 h"]
