"""Skewed and even deals of units, by the partitioners of Flower Datasets."""

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.errors import InputError
from configs.sections import HospitalSettings
from configs.seeds import derive

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner

Rows = NDArray[np.int64]


def assign(labels: NDArray[np.int64], settings: HospitalSettings, seed: int) -> list[Rows]:
    """Deal units to `settings.count` hospitals; return for each hospital its units, as ascending positions.

    Args:
        labels: (units,) the label that each unit counts for.
        settings: partition iid (even), dirichlet (label skew) or size (size skew), count, alpha, min_units.
        seed: of all draws.

    Raises:
        InputError: there is no count, or there are not enough units for it, or no deal was found that leaves
            each hospital `min_units`.
    """
    count = _feasible_count(len(labels), settings)
    # The partitioners cut contiguous pieces (within a label, or of everything): the order is drawn here.
    order = np.random.default_rng(derive(seed, "deal", "order")).permutation(len(labels))
    partitioner = _partitioner(len(labels), count, settings, derive(seed, "deal", "partitioner"))
    try:
        parts = _positions(partitioner, labels[order], count)
    except ValueError as error:  # the Dirichlet partitioner gives up after 10 attempts
        raise InputError(
            f"hospitals.min_units: no {settings.partition} deal with alpha {settings.alpha} left each of "
            f"{count} hospitals {settings.min_units} units; raise hospitals.alpha, or lower hospitals.count "
            "or hospitals.min_units."
        ) from error
    return [np.sort(order[part]) for part in parts]


def _feasible_count(units: int, settings: HospitalSettings) -> int:
    count, least = settings.count, settings.min_units
    if count is None:
        raise InputError(f"hospitals.count: partition '{settings.partition}' needs a number; set it.")
    if count > units:
        raise InputError(f"hospitals.count: {count} hospitals cannot share {units} units; lower it to {units}.")
    if count * least > units:
        raise InputError(
            f"hospitals.min_units: {count} hospitals with {least} units each need {count * least} units, but "
            f"there are {units}; lower it or hospitals.count."
        )
    return count


def _partitioner(units: int, count: int, settings: HospitalSettings, seed: int) -> "Partitioner":
    # Imported here: it takes seconds, and natural hospitals do without.
    from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner, SizePartitioner

    if settings.partition == "iid":
        return IidPartitioner(count)
    if settings.partition == "dirichlet":
        return DirichletPartitioner(
            count,
            "label",
            alpha=settings.alpha,
            min_partition_size=settings.min_units,
            shuffle=False,
            seed=seed,
        )
    return SizePartitioner(_sizes(units, count, settings, seed))


def _sizes(units: int, count: int, settings: HospitalSettings, seed: int) -> list[int]:
    # min_units for everybody, the rest in Dirichlet shares: always feasible, and skewed for a small alpha.
    rest = units - count * settings.min_units
    shares = np.random.default_rng(seed).dirichlet(np.full(count, settings.alpha))
    bounds = np.round(np.cumsum(shares) * rest).astype(int)
    bounds[-1] = rest
    return [int(size) for size in np.diff(bounds, prepend=0) + settings.min_units]


def _positions(partitioner: "Partitioner", labels: NDArray[np.int64], count: int) -> list[Rows]:
    from datasets import Dataset

    partitioner.dataset = Dataset.from_dict({"unit": np.arange(len(labels)), "label": labels})
    with warnings.catch_warnings():  # it warns of each failed attempt; what counts is whether the last one failed
        warnings.simplefilter("ignore")
        return [np.asarray(partitioner.load_partition(k)["unit"][:], dtype=np.int64) for k in range(count)]
