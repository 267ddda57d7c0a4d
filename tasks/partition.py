"""Deal records to hospitals: a pure function of records, settings and seed, the same in every process."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from configs.errors import InputError
from configs.sections import HospitalSettings
from configs.seeds import derive
from tasks.base import Records
from tasks.partitioners import assign

UNKNOWN_SITE = "unknown"

Rows = NDArray[np.int64]


@final
@dataclass(frozen=True)
class Hospital:
    """One hospital and the records it holds, ordered by unit and image name."""

    name: str
    records: Records


@final
@dataclass(frozen=True)
class Deal:
    """How records were dealt.

    Attributes:
        hospitals: those that train, sorted by name; no unit stands in two of them.
        leftover: the records that `max_records` cut away, whole units; empty without it.
        twin_of: the federation that was dealt, where something else trains in its place (`pooled`, `alone`).
    """

    hospitals: tuple[Hospital, ...]
    leftover: Records
    twin_of: tuple[Hospital, ...] = ()

    @property
    def federation(self) -> tuple[Hospital, ...]:
        """All hospitals of the federation, whoever trains."""
        return self.twin_of or self.hospitals


def deal(records: Records, settings: HospitalSettings, seed: int) -> Deal:
    """Deal the records to hospitals without cutting a unit.

    Which unit goes where depends on what the records are, not on their order. A unit counts for the label (in
    natural hospitals, the site) that most of its records have: the lowest, or first by name, of several.

    Args:
        records: what is dealt.
        settings: partition (natural, iid, dirichlet: label skew, size: size skew) and its parameters.
        seed: of all draws.

    Raises:
        InputError: the request cannot be met, e.g. more hospitals than units; it names the setting.
    """
    canonical = records.take(np.lexsort((records.ids, records.units)))
    units = canonical.unit_rows()
    if settings.partition == "natural":
        groups = _natural(canonical, units)
    else:
        parts = assign(_majority(canonical.labels, units), settings, seed)
        digits = max(2, len(str(len(parts))))
        groups = {f"hospital-{k + 1:0{digits}d}": part for k, part in enumerate(parts)}
    hospitals: list[Hospital] = []
    leftover: list[Rows] = []
    for name, members in sorted(groups.items()):
        kept, left = _cut([units[m] for m in members], settings.max_records, derive(seed, "max_records", name))
        if len(kept) < settings.min_units:
            raise InputError(_too_few(name, len(kept), len(members), settings))
        hospitals.append(Hospital(name, canonical.take(_concatenate(kept))))
        leftover.extend(left)
    return Deal(tuple(hospitals), canonical.take(_concatenate(leftover)))


def _natural(records: Records, units: list[Rows]) -> dict[str, Rows]:
    sites = np.unique(records.sites)
    if sites.tolist() == [UNKNOWN_SITE]:
        raise InputError(
            "hospitals.partition: 'natural' needs the images' sites, but the metadata have no 'dataset'; "
            "use metadata that have it, or the partition iid, dirichlet or size."
        )
    home = _majority(records.sites, units)
    groups = {str(site): np.flatnonzero(home == k) for k, site in enumerate(sites)}
    return {name: members for name, members in groups.items() if len(members)}


def _majority(values: NDArray[np.str_] | NDArray[np.int64], units: list[Rows]) -> NDArray[np.int64]:
    # Index of each unit's most frequent value among the sorted distinct values; the first of several.
    _, codes = np.unique(values, return_inverse=True)
    return np.array([np.bincount(codes[rows]).argmax() for rows in units], dtype=np.int64)


def _cut(units: list[Rows], limit: int | None, seed: int) -> tuple[list[Rows], list[Rows]]:
    # Units in random order, each kept if it still fits: at most `limit` images, and no unit cut through.
    if limit is None:
        return units, []
    kept: list[Rows] = []
    left: list[Rows] = []
    room = limit
    for k in np.random.default_rng(seed).permutation(len(units)):
        fits = len(units[k]) <= room
        (kept if fits else left).append(units[k])
        room -= len(units[k]) if fits else 0
    return kept, left


def _concatenate(parts: Sequence[Rows]) -> Rows:
    return np.sort(np.concatenate(parts)) if len(parts) else np.zeros(0, dtype=np.int64)


def _too_few(name: str, kept: int, dealt: int, settings: HospitalSettings) -> str:
    if kept < dealt:
        way_out = f"lower it or raise hospitals.max_records (now {settings.max_records})"
    elif settings.count is None:
        way_out = "lower it or choose another hospitals.partition"
    else:
        way_out = "lower it or hospitals.count"
    return f"hospitals.min_units: '{name}' has {kept} units, fewer than {settings.min_units}; {way_out}."
