"""For whom the model works: the leading metric with its interval, for all, per hospital and per subgroup.

Privacy costs small groups first: clipping and noise wipe out what few people's images teach.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs import derive
from simulation.nulls import null_metrics
from simulation.setup import Setup
from tasks.base import Records
from tasks.metrics import LEVEL, Classified, Interval, Judged, Segmented, interval
from tasks.metrics.segmentation import dice_name

CLASS = "class"
UNKNOWN = "unknown"
COLUMNS = ("group", "value", "metric", "estimate", "low", "high", "level", "n", "units", "reason")

Row = dict[str, Any]


def utility(setup: Setup, last: Judged, before: Judged | None) -> dict[str, Any]:
    """Return what a summary says about utility beyond the bare metrics.

    Args:
        setup: the run's data.
        last: what the final model says about the held-out records; intervals and subgroups are of it.
        before: what the model after the last round that was not attacked says, if it is another one.
    """
    seed = setup.experiment.seed
    return {
        "utility": {
            "primary": last.primary,
            "metrics": list(last.names),
            "class_names": list(setup.task.class_names),
            "unit": setup.task.unit,
            "level": LEVEL,
        },
        "null_metrics": null_metrics(setup),
        "intervals": {
            "overall": _row(interval(last, last.primary, seed=derive(seed, "bootstrap"))),
            "clean": None if before is None else _row(interval(before, last.primary, seed=derive(seed, "bootstrap"))),
            "hospitals": {
                name: _row(interval(last, last.primary, _rows(positions), seed=derive(seed, "bootstrap", name)))
                for name, positions in setup.heldout_by_hospital.items()
                if positions
            },
        },
        "subgroups": subgroup_rows(last, setup.heldout, setup.task.class_names, seed),
    }


def subgroup_rows(judged: Judged, heldout: Records, class_names: tuple[str, ...], seed: int) -> list[Row]:
    """Return one row per subgroup: {group, value, metric, estimate, low, high, level, n, units, reason}.

    - Group 'class': recall of every class (the share of its images that is called right), or its Dice.
    - Every attribute of the records: the leading metric among the images of each value. Where an attribute settles
      the class (a diagnosis, where the task is only whether it needs attention), no value has two classes to
      rank; then recall.

    A subgroup with too few units, or without a second class to tell apart, has no estimate; `reason` says why.
    """
    rows: list[Row] = []
    for label, name in enumerate(class_names):
        found = _class_interval(judged, label, name, derive(seed, "bootstrap", CLASS, name))
        if found is not None:
            rows.append({"group": CLASS, "value": name, **_row(found)})
    for group, values in heldout.groups.items():
        named = np.where(values == "", UNKNOWN, values)
        settled = isinstance(judged, Classified) and _settles(named, judged.labels)
        if settled and len(np.unique(named)) == len(np.unique(heldout.labels)):
            continue  # the attribute is the class itself
        metric = "recall" if settled else judged.primary
        for value in np.unique(named):
            chosen = np.flatnonzero(named == value)
            found = interval(judged, metric, chosen, seed=derive(seed, "bootstrap", group, str(value)), guarded=True)
            rows.append({"group": group, "value": str(value), **_row(found)})
    return rows


def write_subgroups(path: Path, rows: list[Row]) -> None:
    """Write `subgroups.csv`: the same columns also where there is no row."""
    pd.DataFrame(rows, columns=pd.Index(COLUMNS)).to_csv(path, index=False)


def _class_interval(judged: Judged, label: int, name: str, seed: int) -> Interval | None:
    if isinstance(judged, Segmented):
        return interval(judged, dice_name(name), seed=seed) if label else None
    if isinstance(judged, Classified):
        return interval(judged, "recall", np.flatnonzero(judged.labels == label), seed=seed, guarded=True)
    return None


def _settles(values: NDArray[np.str_], labels: NDArray[np.int64]) -> bool:
    """Say whether every value of an attribute has one class only, and there are several classes."""
    several = len(np.unique(labels)) > 1
    return several and all(len(np.unique(labels[values == v])) == 1 for v in np.unique(values))


def _row(found: Interval) -> Row:
    return {**found.row(), "level": LEVEL}


def _rows(positions: list[int]) -> NDArray[np.int64]:
    return np.asarray(positions, dtype=np.int64)
