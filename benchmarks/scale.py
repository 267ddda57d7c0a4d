"""How a federation grows: 10 to 10,000 hospitals through `fedward simulate`, each size in a process of its own.

    python benchmarks/scale.py                       # 10 to 10,000 hospitals, a few images each, cohort of 200
    python benchmarks/scale.py --images 50 --sizes 1000 --repeat 5
    python benchmarks/scale.py --json

Every row is a run of `configs/thousand_hospitals.yaml` with another number of hospitals, over one phantom that is
written to the cache beforehand and not timed. Times: `start` from the new process until every hospital has introduced
itself, `round` the median of the rounds, `end` from the last round until the report lies there and the process is gone.
Memory: the most that the process of the driver had resident, and the most that all its worker processes had together
(proportional: what they share with others counts in parts), looked at five times a second. Sizes are interleaved over
the repeats. Slopes are fitted to the medians by least squares.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PRESET = ROOT / "configs" / "thousand_hospitals.yaml"

SIZES = (10, 100, 1000, 10_000)
IMAGES = 5  # per hospital: a phantom of 50 times 10,000 images would take an hour to draw
HELD_OUT = 0.1
RATE = 0.1  # of an image to be drawn in a step
SPARE = 1.116  # so that 10,000 hospitals of 5 images and 1,000 of 50 are dealt from the preset's own phantom
LOOK = 0.2  # seconds between two looks at memory
TIMES = ("start", "round", "end", "total")
Row = dict[str, Any]


def main() -> None:
    """Measure and print."""
    options = _options()
    print("writing the phantom, unless it is in the cache ...", file=sys.stderr)
    subprocess.run(
        [sys.executable, "-c", _LOAD, PRESET, *_overrides(options, max(options.sizes))], check=True, cwd=ROOT
    )
    runs: list[Row] = []
    for _ in range(options.repeat):
        for size in options.sizes:
            runs.append(_measured(options, size))
            print(_line(runs[-1]), file=sys.stderr)
    rows = [_median([run for run in runs if run["hospitals"] == size]) for size in options.sizes]
    found = {"hardware": _hardware(), "settings": vars(options), "rows": rows, "runs": runs, "slopes": _slopes(rows)}
    print(json.dumps(found, indent=2) if options.json else _table(found))


_LOAD = """
import sys, configs, tasks
tasks.get(configs.load(sys.argv[1], sys.argv[2:]).task).load()
"""
_RUN = "from simulation.cli import main; main()"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="numbers of hospitals")
    parser.add_argument("--images", type=int, default=IMAGES, help="images at each hospital")
    parser.add_argument("--phantom", type=int, default=0, help="images of it; 0: what the largest size needs")
    parser.add_argument("--cohort", type=int, default=200, help="hospitals a round, at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=16, help="of the model")
    parser.add_argument("--partition", choices=("iid", "size"), default="iid")
    parser.add_argument("--engine", choices=("inline", "ray", "flower"), default="ray")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each size; claims take 5 and more")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _overrides(options: argparse.Namespace, hospitals: int) -> list[str]:
    """Return what `--set` changes in the preset."""
    # One phantom for all sizes, so that only the number of hospitals differs; a skewed deal keeps what it is dealt.
    images = max(1600, round(max(options.sizes) * options.images * SPARE / (1 - HELD_OUT)))
    return [
        f"task.phantom_images={options.phantom or images}",
        f"task.width={options.width}",
        f"hospitals.count={hospitals}",
        f"hospitals.max_records={options.images if options.partition == 'iid' else 'null'}",
        f"hospitals.partition={options.partition}",
        "hospitals.alpha=2.0",
        f"training.rounds={options.rounds}",
        f"training.cohort={min(options.cohort, hospitals)}",
        f"training.batch_size={RATE * hospitals * options.images:g}",
        f"training.batch={'proportional' if options.partition == 'iid' else 'equal'}",
        f"runtime.engine={options.engine}",
    ]


def _measured(options: argparse.Namespace, size: int) -> Row:
    """Run one size in a process of its own and watch its memory from outside."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        settings = [part for one in _overrides(options, size) for part in ("--set", one)]
        command = [sys.executable, "-c", _RUN, "simulate", str(PRESET), "--out", str(out), *settings]
        before = time.time()
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        watch = _Memory(child.pid)
        _, said = child.communicate()
        watch.stop()
        if child.returncode != 0:
            raise SystemExit(f"{size} hospitals: {said.strip().splitlines()[-1] if said.strip() else 'failed'}")
        return {
            "hospitals": size,
            "cohort": min(options.cohort, size),
            **_times(out / "events.jsonl", before, time.time()),
            "driver_mb": watch.driver,
            "workers_mb": watch.workers,
            "report_mb": (out / "report.html").stat().st_size / 1e6,
            "folder_mb": sum(f.stat().st_size for f in out.rglob("*") if f.is_file()) / 1e6,
        }


def _times(events: Path, before: float, after: float) -> Row:
    started: dict[int, float] = {}
    rounds: list[float] = []
    introduced = finished = before
    with events.open(encoding="utf-8") as file:
        for line in file:
            event = json.loads(line)
            if event["event"] == "introduced":
                introduced = event["time"]
            elif event["event"] == "round":
                started[event["round"]] = event["time"]
            elif event["event"] == "finished":
                finished = event["time"]
                rounds.append(finished - started[event["round"]])
    return {
        "start": introduced - before,
        "round": statistics.median(rounds),
        "end": after - finished,
        "total": after - before,
    }


class _Memory:
    """Watches a process and all that descend from it: the most resident megabytes of the first, of the others' sum."""

    def __init__(self, root: int) -> None:
        self.driver = self.workers = 0.0
        self._root = root
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(LOOK):
            self.driver = max(self.driver, _megabytes(self._root, "status", "VmRSS:"))
            others = [pid for pid in _family(self._root) if "HospitalWorker" in _read(Path(f"/proc/{pid}/cmdline"))]
            self.workers = max(self.workers, sum(_megabytes(pid, "smaps_rollup", "Pss:") for pid in others))


def _family(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (stat := _read(entry / "stat")):
            parents[int(entry.name)] = int(stat.rsplit(")", 1)[1].split()[1])
    found = [root]
    for pid in found:  # it grows while it is walked through
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def _megabytes(pid: int, file: str, key: str) -> float:
    lines = _read(Path(f"/proc/{pid}/{file}")).splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith(key)) * 1024 / 1e6


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # a process ends when it likes
        return ""


def _median(runs: list[Row]) -> Row:
    keys = [key for key in runs[0] if key not in ("hospitals", "cohort")]
    middle = {key: statistics.median(run[key] for run in runs) for key in keys}
    return {"hospitals": runs[0]["hospitals"], "cohort": runs[0]["cohort"], "n": len(runs), **middle}


def _slopes(rows: list[Row]) -> Row:
    """Return milliseconds and kilobytes per further hospital, by least squares over the sizes."""
    if len(rows) < 2:
        return {}
    sizes = np.array([row["hospitals"] for row in rows], dtype=np.float64)

    def slope(key: str) -> float:
        return float(np.polyfit(sizes, [row[key] for row in rows], 1)[0])

    times = {f"{key}_ms": 1e3 * slope(key) for key in TIMES}
    return {**times, "driver_kb": 1e3 * slope("driver_mb"), "workers_kb": 1e3 * slope("workers_mb")}


def _hardware() -> Row:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cores": os.cpu_count(),
        "cpu": models[0].split(":", 1)[1].strip() if models else "",
        "load": os.getloadavg(),
    }


def _line(row: Row) -> str:
    return (
        f"{row['hospitals']:>7,} hospitals: start {row['start']:6.1f} s, round {row['round']:6.2f} s, "
        f"end {row['end']:5.1f} s, total {row['total']:6.1f} s, driver {row['driver_mb']:5.0f} MB, "
        f"workers {row['workers_mb']:5.0f} MB, report {row['report_mb']:.2f} MB, folder {row['folder_mb']:.1f} MB"
    )


def _table(found: Row) -> str:
    lines = [_line(row) for row in found["rows"]]
    slopes = ", ".join(f"{key} {value:.3g}" for key, value in found["slopes"].items())
    return "\n".join([*lines, f"per further hospital: {slopes}" if slopes else "", f"{found['hardware']}"])


if __name__ == "__main__":
    main()
