"""RadImageNet at size, on a phantom: seconds to the index, peak resident memory, images per second by epoch.

    python benchmarks/radimagenet.py [--json] [--images 200000] [--size 32] [--folder DIR] [--keep]

Rows: stage, seconds, images_per_second, peak_rss_mb, disk_mb. Each stage runs in a process of its own, so that its peak
is its own; `import` is what the libraries take. `index` reads the CSVs, lists the folders and splits; `again` does so
with the index in the cache; `deal` deals to natural hospitals. An epoch reads every training image in random order in
batches of 256: the first decodes, the second reads the store.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

STAGES = ("import", "index", "again", "deal", "first_epoch", "second_epoch")


def stage(name: str, root: Path, size: int) -> dict[str, object]:
    """Return the row of one stage; runs in the stage's own process."""
    from configs.sections import HospitalSettings, TaskSettings
    from tasks.partition import deal
    from tasks.radimagenet import radimagenet_task

    row: dict[str, object] = {"stage": name}
    if name != "import":
        start = time.perf_counter()
        task = radimagenet_task(TaskSettings(name="radimagenet", root=str(root), image_size=size, classes=165))
        splits = task.load()
        if name == "deal":
            start = time.perf_counter()
            row["hospitals"] = len(deal(splits.train, HospitalSettings(), 10).hospitals)
        elif name.endswith("epoch"):
            order = np.random.default_rng(0).permutation(len(splits.train))
            start = time.perf_counter()
            for first in range(0, len(order), 256):
                splits.train.pixels(order[first : first + 256])
        row["seconds"] = round(time.perf_counter() - start, 2)
        row["images"] = len(splits.train)
        if name.endswith("epoch"):
            row["images_per_second"] = round(len(splits.train) / (time.perf_counter() - start))
    row["peak_rss_mb"] = peak_megabytes()
    return row


def peak_megabytes() -> int:
    """Return this process's largest resident memory; Linux: getrusage would count the parent's before `exec`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


def measure(folder: Path, images: int, size: int) -> list[dict[str, object]]:
    """Write the phantom into `folder` and return one row per stage."""
    from tasks.radimagenet import write_phantom

    start = time.perf_counter()
    write_phantom(folder / "phantom", images=images, seed=0)
    seconds = time.perf_counter() - start
    used = sum(path.stat().st_blocks for path in (folder / "phantom").rglob("*")) * 512 // 2**20
    rows: list[dict[str, object]] = [
        {"stage": "write", "seconds": round(seconds, 1), "images_per_second": round(images / seconds), "disk_mb": used}
    ]
    here = Path(__file__).parents[1]
    environment = {**os.environ, "FEDWARD_CACHE": str(folder / "cache"), "PYTHONPATH": str(here)}
    for name in STAGES:
        command = [sys.executable, __file__, "--stage", name, "--folder", str(folder / "phantom"), "--size", str(size)]
        answer = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(answer.stdout))
    return rows


def main() -> None:
    """Print one row per stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON rows only")
    parser.add_argument("--images", type=int, default=200_000, help="images of the phantom")
    parser.add_argument("--size", type=int, default=32, help="side that the images are decoded to")
    parser.add_argument(
        "--folder", type=Path, help="where the phantom and the cache are written; empty: a temporary one"
    )
    parser.add_argument("--keep", action="store_true", help="do not delete them at the end")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        print(json.dumps(stage(options.stage, options.folder, options.size)))
        return
    parent = options.folder
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="radimagenet-", dir=parent))
    try:
        rows = measure(folder, options.images, options.size)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
