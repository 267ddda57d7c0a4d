"""What a run's model says about every held-out record, kept so that runs can be compared on the same records."""

import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from configs import InputError
from simulation.setup import Setup
from tasks.metrics import Classified, Judged, Overlaps, Segmented

FILE = "predictions.npz"
NOWHERE = -1  # the share of a record that stands for no hospital of the federation

Rows = NDArray[np.int64]


@final
@dataclass(frozen=True)
class Predictions:
    """A model's answers beside the truth; all arrays are over the n held-out records, in the dataset's order.

    Attributes:
        judged: the answers, ready for any metric on any of the records.
        labels: int64 (n,), the class of each; for segmentation what a deal is stratified by.
        units: int64 (n,), the number of the lesion or scan that each belongs to, from 0 in the order of their names.
        ids: str (n,), the records' own names: two runs are compared on the same records or not at all.
        share: int64 (n,), the position in `hospitals` of the one that each stands for; -1 for none of them.
        hospitals: the federation's, also where data were pooled or one trained alone.
        class_names: in the order of the labels.
        round: after which the model stood so.
    """

    judged: Judged
    labels: Rows
    units: Rows
    ids: NDArray[np.str_]
    share: Rows
    hospitals: tuple[str, ...]
    class_names: tuple[str, ...]
    round: int

    def rows_of(self, hospital: str) -> Rows:
        """Return the positions of the records that stand for a hospital."""
        return np.flatnonzero(self.share == self.hospitals.index(hospital))


def predictions_of(setup: Setup, judged: Judged, round_number: int) -> Predictions:
    """Return a run's predictions.

    Args:
        setup: the run's data.
        judged: what the model says about `setup.heldout`.
        round_number: after which the model stood so.
    """
    heldout = setup.heldout
    _, units = np.unique(heldout.units, return_inverse=True)
    share = np.full(len(heldout), NOWHERE, dtype=np.int64)
    for position, rows in enumerate(setup.shares.values()):
        share[rows] = position
    return Predictions(
        judged=judged,
        labels=heldout.labels.astype(np.int64),
        units=units.astype(np.int64),
        ids=heldout.ids,
        share=share,
        hospitals=tuple(setup.shares),
        class_names=tuple(setup.task.class_names),
        round=round_number,
    )


def write_predictions(folder: Path, found: Predictions) -> None:
    """Write `predictions.npz` whole or not at all; it holds arrays only, and no pickles."""
    judged = found.judged
    arrays: dict[str, NDArray[Any]] = {
        "labels": found.labels,
        "units": found.units,
        "ids": np.asarray(found.ids, dtype=np.str_),
        "share": found.share,
        "hospitals": np.asarray(found.hospitals, dtype=np.str_),
        "class_names": np.asarray(found.class_names, dtype=np.str_),
        "round": np.asarray(found.round, dtype=np.int64),
    }
    if isinstance(judged, Classified):
        arrays["logits"] = judged.logits
    elif isinstance(judged, Segmented):
        arrays |= {field.name: getattr(judged.overlaps, field.name) for field in fields(Overlaps)}
    else:
        raise TypeError(f"no way to keep a {type(judged).__name__}")
    temporary = folder / f"{FILE}.tmp"
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    temporary.replace(folder / FILE)


def read_predictions(folder: Path) -> Predictions:
    """Return what :func:`write_predictions` wrote.

    Raises:
        InputError: if the folder has none, or they cannot be read.
    """
    path = folder / FILE
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return _read(arrays)
    except FileNotFoundError as error:
        raise InputError(f"{folder}: has no {FILE}; run this cell again in an empty folder.") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read ({error}); run this cell again in an empty folder.") from error


def _read(arrays: dict[str, NDArray[Any]]) -> Predictions:
    labels, units = arrays["labels"], arrays["units"]
    class_names = tuple(str(name) for name in arrays["class_names"])
    if "logits" in arrays:
        judged: Judged = Classified(arrays["logits"], labels, units)
    else:
        overlaps = Overlaps(**{field.name: arrays[field.name] for field in fields(Overlaps)})
        judged = Segmented(overlaps, class_names, units)
    return Predictions(
        judged=judged,
        labels=labels,
        units=units,
        ids=arrays["ids"],
        share=arrays["share"],
        hospitals=tuple(str(name) for name in arrays["hospitals"]),
        class_names=class_names,
        round=int(arrays["round"]),
    )
