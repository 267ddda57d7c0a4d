"""Look a dataset over: what is there, what is damaged, where it comes from, and how it would be dealt."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import tasks
from configs import Experiment, InputError, Study, load
from configs.sections import TaskName
from tasks.base import Records
from tasks.dealing import deal_experiment

CHUNK = 64
SHOWN_CLASSES = 12  # a row per class up to so many

_SOURCES = {
    "ham10000": "HAM10000 is free to download: Harvard Dataverse, doi:10.7910/DVN/DBW86T (CC BY-NC 4.0).",
    "radimagenet": "RadImageNet is given on request: apply at radimagenet.com; its licence forbids passing it on.",
    "msd_liver": "MSD Liver is free to download: Task03_Liver at medicaldecathlon.com (CC BY-SA 4.0).",
}


def sources(task: TaskName) -> str:
    """Say where a dataset comes from, and that a phantom needs no download."""
    return f"{_SOURCES[task]} 'phantom' instead of a folder needs no download."


@final
@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        task: the dataset.
        unit: what is never cut.
        fingerprint: of the dataset.
        parts: images and units of training, validation and test.
        hospitals: a row per hospital of the deal: images, units, images per class.
        classes: their names.
        missing: classes without any image.
        notes: what was left out and why, and what the data cannot tell.
        damaged: a sentence per image that cannot be read; None where images were not all read.
    """

    task: TaskName
    unit: str
    fingerprint: str
    parts: dict[str, dict[str, int]]
    hospitals: list[dict[str, Any]]
    classes: tuple[str, ...]
    missing: list[str]
    notes: tuple[str, ...]
    damaged: list[str] | None

    def to_json(self) -> dict[str, Any]:
        """Return one JSON document."""
        return {
            "task": self.task,
            "fingerprint": self.fingerprint,
            **{f"{part}_{what}": n for part, counts in self.parts.items() for what, n in counts.items()},
            "classes": len(self.classes),
            "classes_without_images": self.missing,
            "hospitals": self.hospitals,
            "notes": list(self.notes),
            "damaged": self.damaged,
            "source": sources(self.task),
        }

    def show(self, out: Console) -> None:
        """Print it for a person."""
        for part, counts in self.parts.items():
            out.print(f"{part}: " + ", ".join(f"{n:,} {what}" for what, n in counts.items()), highlight=False)
        table = Table(title="How it would be dealt", title_justify="left")
        counted = ["images"] if self.unit == "image" else ["images", f"{self.unit}s"]
        for column in ("hospital", *counted, "classes"):
            table.add_column(column, justify="left" if column in ("hospital", "classes") else "right")
        for row in self.hospitals:
            per_class = {c: n for c, n in row["classes"].items() if n}
            words = ", ".join(f"{c} {n:,}" for c, n in per_class.items())
            shown = words if len(self.classes) <= SHOWN_CLASSES else f"{len(per_class)} of {len(self.classes)}"
            table.add_row(row["hospital"], *(f"{row[c]:,}" for c in counted), shown)
        out.print(table)
        for note in self.notes:
            out.print(f"note: {note}", highlight=False)
        if self.missing:
            few = ", ".join(self.missing[:8]) + (", ..." if len(self.missing) > 8 else "")
            out.print(f"{len(self.missing)} of {len(self.classes)} classes have no image: {few}", highlight=False)
        for sentence in self.damaged or []:
            out.print(f"damaged: {sentence}", highlight=False)
        if self.damaged is None:
            out.print("images are read when they are needed and were not read now; --decode reads them all")
        out.print(sources(self.task), highlight=False)


def check_data(name: TaskName, root: str, settings: Sequence[str], *, decode: bool, shown: Console) -> Found:
    """Read a dataset and deal it as the settings say.

    Raises:
        InputError: where a run with these settings could not start either.
    """
    overrides = [f"task.name={name}", f"task.root={root}", *settings]
    loaded = load(name, overrides)
    experiment: Experiment = loaded.experiment if isinstance(loaded, Study) else loaded
    task = tasks.get(experiment.task)
    splits = task.load()
    named = {"training": splits.train, "validation": splits.validation, "test": splits.test}
    training, _ = splits.parts(experiment.task.holdout)
    everything = Records.joined(list(named.values()))
    lazily = name == "radimagenet"
    counts = np.bincount(everything.labels, minlength=len(task.class_names)) if everything.masks is None else None
    return Found(
        task=name,
        unit=task.unit,
        fingerprint=splits.fingerprint,
        parts={part: _counts(records, task.unit) for part, records in named.items()},
        hospitals=[
            {"hospital": h.name, **_counts(h.records, task.unit), "classes": _classes(h.records, task.class_names)}
            for h in deal_experiment(experiment, training).hospitals
        ],
        classes=task.class_names if everything.masks is None else ("without tumour", "with tumour"),
        missing=[] if counts is None else [c for c, n in zip(task.class_names, counts, strict=True) if n == 0],
        notes=splits.notes,
        damaged=None if lazily and not decode else _damaged(everything, shown),
    )


def _counts(records: Records, unit: str) -> dict[str, int]:
    if unit == "image":
        return {"images": len(records)}
    return {"images": len(records), f"{unit}s": len(np.unique(records.units))}


def _classes(records: Records, names: tuple[str, ...]) -> dict[str, int]:
    if records.masks is not None:  # a scan's label says whether it has a tumour
        names = ("without tumour", "with tumour")
    counts = np.bincount(records.labels, minlength=len(names))
    return {name: int(n) for name, n in zip(names, counts, strict=True)}


def _damaged(records: Records, shown: Console) -> list[str]:
    found: list[str] = []
    starts = range(0, len(records), CHUNK)
    for start in track(starts, "reading images", console=shown, transient=True):
        rows = np.arange(start, min(start + CHUNK, len(records)), dtype=np.int64)
        try:
            records.pixels(rows)
            records.targets(rows)
        except InputError:
            for row in rows:
                try:
                    records.pixels(rows[row - start : row - start + 1])
                except InputError as error:
                    found.append(str(error))
    return found


def draw_deal(found: Found, path: Path) -> None:
    """Draw the images per hospital and class as stacked bars.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    names = [row["hospital"] for row in found.hospitals]
    figure = Figure(figsize=(8, 1.2 + 0.35 * max(len(names), 4)), layout="constrained")
    axes = figure.add_subplot()
    left = np.zeros(len(names))
    for name in found.classes:
        widths = np.array([row["classes"].get(name, 0) for row in found.hospitals], dtype=np.float64)
        axes.barh(names, widths, left=left, label=name)
        left += widths
    axes.invert_yaxis()
    axes.set_xlabel("images" if found.unit != "scan" else "images (scans or slices)")
    axes.set_title(f"{found.task}: how the training images are dealt")
    if len(found.classes) <= SHOWN_CLASSES:
        axes.legend(fontsize="small")
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise InputError(f"--plot {path}: cannot be written ({error}); name a .png in a folder that exists.") from error
