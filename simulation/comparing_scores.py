"""A metric of one model on some held-out records, as a function of how often every held-out unit is drawn.

Every model of a study is judged on the same records, so one draw of units serves all of them: differences are paired.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from configs import InputError
from simulation.comparing_within import pairs_share, ranking_rows, within_auroc
from simulation.predictions import Predictions, read_predictions
from tasks.metrics import Classified, Segmented, weighted
from tasks.metrics.base import Rows, Weights
from tasks.metrics.classification import predictions as judged_predictions
from tasks.metrics.segmentation import FEW_SCANS, dice_name

Array = NDArray[np.float64]
Row = dict[str, Any]
# What is judged: all held-out records, those of the rarest class, those of all others (how often the rarest is not said
# of them), pairs of records of one hospital each, or (OF, name) the share of one hospital.
Part = tuple[str, str]
ALL: Part = ("all", "")
MINORITY: Part = ("minority", "")
OTHERS: Part = ("others", "")
WITHIN: Part = ("within", "")
OF = "hospital"


@final
@dataclass(frozen=True)
class Score:
    """One metric of one model on some records.

    Attributes:
        columns: int64, the units (of all held-out ones) that the metric is about.
        value: from their counts (r, columns) to the metric (r,), NaN where it is not defined.
        n, units: records, and units that they belong to.
        problem: why the metric cannot be measured; empty where it can.
        thin: why an interval would promise more than so few units carry; empty where it would not.
        trials: independent trials behind a metric that is the probability of an event; None for others.
        digest: of what was said about these records: two models with the same one are the same here.
    """

    columns: Rows
    value: Callable[[Weights], Array]
    n: int
    units: int
    problem: str
    thin: str
    trials: int | None
    digest: str


@final
@dataclass(frozen=True)
class CellScores:
    """What a study needs of one run's predictions.

    Attributes:
        scores: by what is judged.
        sizes: of each hospital's share of the held-out records.
        metric: the leading one.
        minority: name of the rarest class and the metric that it is judged by; None where there are no records.
        pairs_share: share of all pairs of records that lie within one hospital; None where the metric ranks none.
        units: all held-out units.
        ids: sha256 of the records' names in their order.
        round: after which the model stood so.
    """

    scores: Mapping[Part, Score]
    sizes: Mapping[str, int]
    metric: str
    minority: tuple[str, str] | None
    pairs_share: float | None
    units: int
    ids: str
    round: int


def cell_scores(predictions: Predictions, alone: str | None = None) -> CellScores:
    """Return the leading metric on all records and on each hospital's share, and how the rarest class fares.

    Args:
        predictions: of one run.
        alone: the one hospital that trained; of the shares only its own is judged then.
    """
    judged = predictions.judged
    everything = np.arange(len(predictions.labels))
    scores = {ALL: score(predictions, judged.primary, everything)}
    rarest = rarest_class(predictions)
    minority = None
    if rarest is not None:
        dense = isinstance(judged, Segmented)
        metric = dice_name(predictions.class_names[rarest]) if dense else "recall"
        rows = everything if dense else np.flatnonzero(predictions.labels == rarest)
        scores[MINORITY] = score(predictions, metric, rows)
        if isinstance(judged, Classified):
            scores[OTHERS] = specificity_score(predictions, judged, rarest)
        minority = predictions.class_names[rarest], "dice" if dense else "recall"
    within = None
    if isinstance(judged, Classified) and judged.primary == "auroc":
        scores[WITHIN], within = within_score(predictions, judged), pairs_share(predictions)
    for name in predictions.hospitals if alone is None else (alone,):
        scores[OF, name] = score(predictions, judged.primary, predictions.rows_of(name))
    names = "\n".join(str(name) for name in predictions.ids)
    return CellScores(
        scores=scores,
        sizes={name: len(predictions.rows_of(name)) for name in predictions.hospitals},
        metric=judged.primary,
        minority=minority,
        pairs_share=within,
        units=int(predictions.units.max(initial=-1)) + 1,
        ids=hashlib.sha256(names.encode()).hexdigest(),
        round=predictions.round,
    )


def read_scores(root: Path, cells: Sequence[Row]) -> dict[str, CellScores]:
    """Return the scores of every cell of a study, by the cell's name.

    Raises:
        InputError: if a cell has no predictions, or they are of other records than the first cell's.
    """
    found: dict[str, CellScores] = {}
    for cell in cells:
        own = cell_scores(read_predictions(root / cell["folder"]), cell["hospital"])
        first = next(iter(found.values()), own)
        if (own.ids, own.units) != (first.ids, first.units):
            raise InputError(f"{root / cell['folder']}: was judged on other records than the other cells of the study.")
        found[cell["cell"]] = own
    return found


def score(predictions: Predictions, metric: str, rows: Rows) -> Score:
    """Return one metric on these records.

    Args:
        predictions: of one run.
        metric: auroc, mcc, balanced_accuracy or recall of a classifier; a class's Dice of a segmentation.
        rows: positions of the records.
    """
    judged = predictions.judged
    columns = np.unique(predictions.units[rows])
    sample = judged.sample(metric, rows)
    if isinstance(judged, Classified):
        said, thin, units = judged.logits[rows], sample.thin, sample.units
        value, trials = sample.value, sample.trials
    elif isinstance(judged, Segmented):
        said = _dice_by_unit(judged, predictions, metric, rows, columns)
        # Two models may count different scans, where one of them sees a class that is not there: the interval draws
        # among all scans, so that both are given the same ones.
        thin = f"fewer than {FEW_SCANS} independent units" if np.sum(~np.isnan(said)) < FEW_SCANS else ""
        value, trials, units = functools.partial(weighted.mean, said), None, len(columns)
    else:
        raise TypeError(f"no way to compare a {type(judged).__name__}")
    digest = hashlib.sha256(np.ascontiguousarray(said).tobytes()).hexdigest()
    return Score(columns, value, len(rows), units, sample.problem, thin, trials, digest)


def specificity_score(predictions: Predictions, judged: Classified, rarest: int) -> Score:
    """Return how often the rarest class is not said of records that do not have it: the specificity of its recall."""
    kept = judged_predictions(judged.logits) != rarest
    one = Classified(np.where(kept, 1.0, -1.0)[:, None], np.ones(len(kept), dtype=np.int64), predictions.units)
    rows = np.flatnonzero(predictions.labels != rarest)
    columns, sample = np.unique(predictions.units[rows]), one.sample("recall", rows)
    problem = "" if np.isfinite(judged.logits[rows]).all() else "the training diverged"
    digest = hashlib.sha256(np.ascontiguousarray(judged.logits[rows]).tobytes()).hexdigest()
    return Score(
        columns, sample.value, len(rows), sample.units, sample.problem or problem, sample.thin, sample.trials, digest
    )


def within_score(predictions: Predictions, judged: Classified) -> Score:
    """Return the AUROC over pairs of records of one hospital, all hospitals together."""
    rows = ranking_rows(predictions)
    columns, unit = np.unique(predictions.units[rows], return_inverse=True)
    sample = judged.sample("auroc", rows)
    said = judged.logits[rows]
    value = functools.partial(within_auroc, judged, predictions.share, rows, unit)
    problem = "no hospital has records of two classes" if not len(rows) else sample.problem
    digest = hashlib.sha256(np.ascontiguousarray(said).tobytes()).hexdigest()
    return Score(columns, value, len(rows), sample.units, problem, sample.thin, sample.trials, digest)


def rarest_class(predictions: Predictions) -> int | None:
    """Return the class with the fewest units (of a segmentation: voxels, background aside); None without any.

    Of equally rare ones the first.
    """
    judged = predictions.judged
    if isinstance(judged, Segmented):
        sizes = {k: float(judged.overlaps.true[:, k].sum()) for k in range(1, len(predictions.class_names))}
    else:
        labels, units = predictions.labels, predictions.units
        sizes = {k: float(len(np.unique(units[labels == k]))) for k in range(len(predictions.class_names))}
    present = {k: size for k, size in sizes.items() if size > 0}
    return min(present, key=lambda k: (present[k], k)) if present else None


def _dice_by_unit(judged: Segmented, predictions: Predictions, metric: str, rows: Rows, columns: Rows) -> Array:
    """Return a class's Dice in every unit (units,); NaN where it is in neither truth nor prediction."""
    names = [dice_name(name) for name in predictions.class_names]
    k, place = names.index(metric), np.searchsorted(columns, predictions.units[rows])
    found = judged.overlaps

    def added(values: Array) -> Array:
        return np.bincount(place, weights=values[rows, k], minlength=len(columns)).astype(np.float64)

    sizes = added(found.said) + added(found.true)
    return np.divide(2 * added(found.both), sizes, out=np.full(len(columns), np.nan), where=sizes > 0)
