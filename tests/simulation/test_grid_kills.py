"""A grid survives the death of a worker, of its driver, and an interruption: nothing finished is touched or lost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs import Experiment, Study
from configs.experiment import StudyAxes
from privacy import Ledger
from simulation.grid import run_budgets

Make = Callable[..., Experiment]

AXES: dict[str, Any] = {"mechanisms": ["pooled", "local"], "budgets": ["none", 8]}
SETTINGS: dict[str, dict[str, Any]] = {
    "training": {"rounds": 10, "evaluate_every": 10},
    "task": {"phantom_images": 160},
    "privacy": {"delta": 1e-4},
}
CELLS = 4
MARK = f"fedward-grid-test-{os.getpid()}"
PATIENCE = 180.0
# A shell's background job ignores interruptions, and so does everything that it starts, these tests' processes too.
COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from simulation.cli import main
main()
"""


def marked() -> dict[int, str]:
    """Return the processes that inherited our mark, with their command lines: the driver, Ray, and its workers."""
    found: dict[int, str] = {}
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and MARK.encode() in (process / "environ").read_bytes():
                found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def until(what: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)


def start(config: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMAND, "budgets", str(config), "--out", str(out), *options]
    return subprocess.Popen(
        command,
        env={**os.environ, "FEDWARD_TEST_MARK": MARK},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as a terminal does: an interruption goes to the whole group
    )


def kill_a_worker() -> None:
    os.kill(next(pid for pid, line in marked().items() if line.startswith("ray::CellWorker.run")), signal.SIGKILL)


def stamps(out: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("cells/*/summary.json")}


def under_way(out: Path) -> list[Path]:
    """Return the cells that have finished a round, and not their run."""
    logs = [path for path in out.glob("cells/*/events.jsonl") if not (path.parent / "summary.json").exists()]
    return [path.parent for path in logs if '"event": "finished"' in path.read_text()]


@pytest.fixture(scope="module")
def config(small: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    experiment = small(**SETTINGS, runtime={"engine": "ray", "workers": 1}).model_dump(mode="json")
    path = tmp_path_factory.mktemp("grid") / "grid.yaml"
    path.write_text(yaml.safe_dump({**experiment, "study": AXES}))
    return path


def test_kill_a_worker_then_the_driver_then_resume(small: Make, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    driver = start(config, out)
    until(lambda: bool(under_way(out)), driver)
    (struck, *_) = under_way(out)
    kill_a_worker()
    until(lambda: struck.name in stamps(out) and bool(under_way(out)), driver)
    driver.kill()
    _, told = driver.communicate()
    assert f"{struck.name}: its worker died" in told
    until(lambda: not marked())  # no worker outlives its driver
    finished = stamps(out)
    assert 0 < len(finished) < CELLS
    assert not (out / "summary.json").exists()

    again = start(config, out, "--resume", "--json")
    text, told = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, told
    assert f"{len(finished)} of {CELLS} cells were finished before" in told
    assert stamps(out).items() >= finished.items()
    study = json.loads(text)
    assert study["cells"][0]["cell"] == "none-seed-10"
    until(lambda: not marked())

    settings = small(**SETTINGS)
    axes = StudyAxes.model_validate(AXES)
    whole = run_budgets(Study(experiment=settings, axes=axes), tmp_path / "whole", "grid", resume=False, console=None)
    hashes = {row["cell"]: row["summary"]["model_sha256"] for row in whole.summary["cells"]}
    assert {row["cell"]: row["summary"]["model_sha256"] for row in study["cells"]} == hashes
    for row in study["cells"]:
        for hospital in row["summary"]["hospitals"]:
            entries = Ledger.open(out / row["folder"] / hospital["ledger"]).entries
            assert sorted(entry.round for entry in entries) == list(range(1, 11))  # a release is charged once


def test_an_interruption_ends_everything(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "interrupted"
    driver = start(config, out, "--set", "runtime.workers=2")
    until(lambda: bool(under_way(out)), driver)
    os.killpg(driver.pid, signal.SIGINT)
    _, told = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 130, told
    assert "--resume" in told
    assert "Traceback" not in told
    until(lambda: not marked())
    assert under_way(out)


def test_a_cell_whose_workers_keep_dying_fails_and_the_others_run(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "dying"
    two = ["--set", "study.mechanisms=[pooled]", "--set", "study.budgets=[8, 1]", "--set", "runtime.retries=0"]
    driver = start(config, out, *two)
    until(lambda: bool(under_way(out)), driver)
    kill_a_worker()
    _, told = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 3, told
    assert "cell pooled-eps-8-seed-10 failed: its worker died" in told.replace("\n", " ")
    assert set(stamps(out)) == {"pooled-eps-1-seed-10"}
    assert not (out / "summary.json").exists()
    until(lambda: not marked())
