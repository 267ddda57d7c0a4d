"""Skewed and even deals of units, as the partitioners of Flower Datasets deal them.

Written out here since theirs take a second for a thousand hospitals, minutes for ten thousand, and seconds to import in
every process; `tests/tasks/test_many_hospitals.py` holds them against the originals.
"""

import numpy as np
from numpy.typing import NDArray

from configs.errors import InputError
from configs.sections import HospitalSettings
from configs.seeds import derive

ATTEMPTS = 11  # of a Dirichlet deal that leaves everybody `min_units`

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
    # Contiguous pieces (within a label, or of everything) are cut: the order is drawn here.
    order = np.random.default_rng(derive(seed, "deal", "order")).permutation(len(labels))
    dealer = derive(seed, "deal", "partitioner")
    if settings.partition == "dirichlet":
        owners = _by_label(labels[order], count, settings, dealer)
    else:
        even = settings.partition == "iid"
        sizes = _even_sizes(len(labels), count) if even else _skewed_sizes(len(labels), count, settings, dealer)
        owners = np.repeat(np.arange(count), sizes)
    return [np.sort(order[part]) for part in _positions(owners, count)]


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


def _even_sizes(units: int, count: int) -> Rows:
    sizes = np.full(count, units // count, dtype=np.int64)
    sizes[: units % count] += 1
    return sizes


def _skewed_sizes(units: int, count: int, settings: HospitalSettings, seed: int) -> Rows:
    # min_units for everybody, the rest in Dirichlet shares: always feasible, and skewed for a small alpha.
    rest = units - count * settings.min_units
    shares = np.random.default_rng(seed).dirichlet(np.full(count, settings.alpha))
    bounds = np.round(np.cumsum(shares) * rest).astype(np.int64)
    bounds[-1] = rest
    return np.diff(bounds, prepend=0) + settings.min_units


def _by_label(labels: NDArray[np.int64], count: int, settings: HospitalSettings, seed: int) -> Rows:
    """Return the hospital of every unit: each label's units in Dirichlet shares, drawn until all have `min_units`."""
    generator = np.random.default_rng(seed)
    alpha = np.full(count, settings.alpha)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(ATTEMPTS):
        owners = np.empty(len(labels), dtype=np.int64)
        for own in members:
            cuts = (np.cumsum(generator.dirichlet(alpha)) * len(own)).astype(np.int64)[:-1]
            owners[own] = np.searchsorted(cuts, np.arange(len(own)), side="right")
        if np.bincount(owners, minlength=count).min() >= settings.min_units:
            return owners
    raise InputError(
        f"hospitals.min_units: no {settings.partition} deal with alpha {settings.alpha} left each of "
        f"{count} hospitals {settings.min_units} units; raise hospitals.alpha, or lower hospitals.count "
        "or hospitals.min_units."
    )


def _positions(owners: Rows, count: int) -> list[Rows]:
    bounds = np.cumsum(np.bincount(owners, minlength=count))[:-1]
    return np.split(np.argsort(owners, kind="stable"), bounds)
