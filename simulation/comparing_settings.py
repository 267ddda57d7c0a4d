"""One row per mechanism and budget of a study: utility, price and attacks, its seeds (and hospitals) together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from simulation.comparing_attacks import NOBODY, attack_rows, best_attack
from simulation.comparing_draws import BySeed, Measured, difference_row, estimate_row, measure, weighted_mean
from simulation.comparing_prices import price_of
from simulation.comparing_scores import ALL, MINORITY, OF, OTHERS, WITHIN, CellScores, Part, read_scores

Row = dict[str, Any]
Key = tuple[str, float | str]

FEDERATED = ("none", "local", "distributed", "central")
NO_FEDERATION = "the study has no federated run without privacy (mechanism none)"
NO_POOLED = "the study has no pooled run at this budget"


@final
@dataclass(frozen=True)
class Group:
    """The cells of one mechanism and budget: they differ in their seed, and under `alone` in their hospital."""

    mechanism: str
    budget: float | str
    cells: tuple[Row, ...]

    @property
    def key(self) -> Key:
        """What tells it from the other groups."""
        return self.mechanism, self.budget

    @property
    def seeds(self) -> list[int]:
        """Its seeds, each once."""
        return list(dict.fromkeys(int(cell["seed"]) for cell in self.cells))


@final
@dataclass(frozen=True)
class Compared:
    """A study, resampled.

    Attributes:
        root: its folder.
        groups: of its cells.
        scores: of each cell.
        utility, minority, others, within: of each group and seed, on all held-out records, of the rarest class, how
            often that is not said of others' records, and over pairs of records of one hospital.
        shares: by hospital the same on its share of them.
    """

    root: Path
    groups: Mapping[Key, Group]
    scores: Mapping[str, CellScores]
    utility: Mapping[Key, BySeed]
    minority: Mapping[Key, BySeed]
    others: Mapping[Key, BySeed]
    within: Mapping[Key, BySeed]
    shares: Mapping[str, Mapping[Key, BySeed]]

    @property
    def span(self) -> tuple[float, float]:
        """The least and the most that the leading metric can be."""
        return (-1.0, 1.0) if any(cell.metric == "mcc" for cell in self.scores.values()) else (0.0, 1.0)

    def apart(self, ours: BySeed, theirs: BySeed) -> Row:
        """Return a paired difference of the leading metric."""
        return difference_row(ours, theirs, self.span[1] - self.span[0])

    @property
    def smallest(self) -> int | None:
        """Units of the smallest hospital of the federation, over all seeds; None where data were only ever pooled."""
        known = [group for group in self.groups.values() if group.mechanism in FEDERATED]
        known = known or [group for group in self.groups.values() if group.mechanism != "pooled"]
        rows = [row for group in known for cell in group.cells for row in cell["summary"]["hospitals"]]
        return min((int(row["units"]) for row in rows), default=None)


def compared(root: Path, cells: Sequence[Row]) -> Compared:
    """Read the predictions of a study's cells and resample them.

    Raises:
        InputError: if a cell has no predictions, or they are of other records than the first cell's.
    """
    groups, scores = groups_of(cells), read_scores(root, cells)
    names = list(dict.fromkeys(name for cell in scores.values() for name in cell.sizes))
    return Compared(
        root=root,
        groups=groups,
        scores=scores,
        utility=by_group(scores, groups, ALL),
        minority=by_group(scores, groups, MINORITY),
        others=by_group(scores, groups, OTHERS),
        within=by_group(scores, groups, WITHIN),
        shares={name: by_group(scores, groups, (OF, name)) for name in names},
    )


def groups_of(cells: Sequence[Row]) -> dict[Key, Group]:
    """Return the groups of a study in the order of its cells; of one mechanism the larger budgets first."""
    found: dict[Key, list[Row]] = {}
    for cell in cells:
        number = "none" if cell["budget"] in (None, "none") else float(cell["budget"])
        found.setdefault((str(cell["mechanism"]), number), []).append(cell)
    mechanisms = list(dict.fromkeys(mechanism for mechanism, _ in found))

    def place(key: Key) -> tuple[int, float]:
        return mechanisms.index(key[0]), -amount(key[1])

    return {key: Group(*key, tuple(found[key])) for key in sorted(found, key=place)}


def amount(budget: float | str) -> float:
    """Return a budget as a number: none is no limit."""
    return float("inf") if isinstance(budget, str) else budget


def by_group(scores: Mapping[str, CellScores], groups: Mapping[Key, Group], part: Part) -> dict[Key, BySeed]:
    """Return for every group and seed what is reached on a part of the held-out records.

    Under `alone` that is the mean over hospitals, each weighted by its share of the held-out records; on a hospital's
    own share it is that of its own model.
    """
    own = {name: cell.scores[part] for name, cell in scores.items() if part in cell.scores}
    measured = measure(own, next(iter(scores.values())).units if scores else 0)
    found: dict[Key, BySeed] = {}
    for key, group in groups.items():
        seeds: dict[int, Measured] = {}
        for seed in group.seeds:
            cells = [cell for cell in group.cells if cell["seed"] == seed and cell["cell"] in measured]
            if cells:
                seeds[seed] = _of_seed(cells, scores, measured)
        found[key] = seeds
    return found


def _of_seed(cells: Sequence[Row], scores: Mapping[str, CellScores], measured: Mapping[str, Measured]) -> Measured:
    if len(cells) == 1:
        return measured[cells[0]["cell"]]
    sizes = scores[cells[0]["cell"]].sizes
    return weighted_mean([(sizes.get(cell["hospital"], 0), measured[cell["cell"]]) for cell in cells])


def setting_rows(study: Compared) -> list[Row]:
    """Return the rows of `summary["settings"]`."""
    return [_row(study, group) for group in study.groups.values()]


def _row(study: Compared, group: Group) -> Row:
    first = study.scores[group.cells[0]["cell"]]
    span = study.span
    hospitals = {
        name: {**estimate_row(of[group.key], span), **terms_of(group.cells, name)} for name, of in study.shares.items()
    }
    tried = attack_rows(study.root, group.cells)
    why: dict[str, str] = {}
    against_none, against_pooled = _against(study, group, why)
    best = best_attack(tried)
    if best is None:
        why["attack"] = "; ".join(dict.fromkeys(row["why"] for row in tried)) or NOBODY
    minority = None
    if first.minority is not None:
        minority = minority_row(study, group, *first.minority)
    worst = worst_of(hospitals)
    if worst is None:
        why["worst_hospital"] = "no hospital's share of the held-out records can be judged by itself"
    price = price_of(group.cells, study.smallest)
    if price["epsilon"] is None:
        why["epsilon"] = f"mechanism {group.mechanism} claims no epsilon here, so nothing bounds what can be found"
    return {
        "mechanism": group.mechanism,
        "budget": group.budget,
        "cells": [cell["cell"] for cell in group.cells],
        "seeds": len(group.seeds),
        "rounds": sorted({study.scores[cell["cell"]].round for cell in group.cells}),
        "metric": first.metric,
        "utility": estimate_row(study.utility[group.key], span),
        "within_hospitals": within_row(study, group, why),
        "hospitals": hospitals,
        "worst_hospital": worst,
        "minority": minority,
        **price,
        "attack": best,
        "attacks": tried,
        "against_none": against_none,
        "against_pooled": against_pooled,
        "why": why,
    }


def minority_row(study: Compared, group: Group, name: str, metric: str) -> Row:
    """Return {class, metric, estimate, low, high, n, units, specificity, against_none} of the rarest class.

    Recall is that of the class the model says (logit above 0, or the largest): "at". So it can be bought by saying the
    class more often: specificity {estimate, low, high, n, units} is how often it is not said of other records; None
    where the metric is not recall.
    """
    own, reference = study.minority[group.key], study.minority.get(("none", "none"))
    others = study.others[group.key]
    return {
        "class": name,
        "metric": metric,
        **estimate_row(own, (0.0, 1.0)),
        "at": "the class that the model says (of two: probability above one half)" if others else None,
        "specificity": estimate_row(others, (0.0, 1.0)) if others else None,
        "against_none": None if reference is None else difference_row(own, reference),
    }


def within_row(study: Compared, group: Group, why: dict[str, str]) -> Row | None:
    """Return {estimate, low, high, n, units, pairs_share, against_none} over pairs of records of one hospital.

    n, units: of the hospitals with records of more than one class. Under `alone`, as everywhere, each hospital's model
    is judged on all hospitals' records. None where the leading metric ranks no pairs.
    """
    of, reference = study.within[group.key], study.within.get(("none", "none"))
    if not of:
        why["within_hospitals"] = "the leading metric does not rank pairs of records, so hospitals are not told apart"
        return None
    share = study.scores[group.cells[0]["cell"]].pairs_share
    against = None if reference is None else study.apart(of, reference)
    return {**estimate_row(of, study.span), "pairs_share": share, "against_none": against}


def _against(study: Compared, group: Group, why: dict[str, str]) -> tuple[Row | None, Row | None]:
    """Return the differences from federated training without privacy, and from pooled data at the same budget."""
    found: list[Row | None] = []
    references: dict[str, tuple[Key, str]] = {
        "against_none": (("none", "none"), NO_FEDERATION),
        "against_pooled": (("pooled", group.budget), NO_POOLED),
    }
    for name, (reference, missing) in references.items():
        if reference in study.utility:
            found.append(study.apart(study.utility[group.key], study.utility[reference]))
        else:
            why[name] = missing
            found.append(None)
    return found[0], found[1]


def terms_of(cells: Sequence[Row], name: str) -> Row:
    """Return what a hospital's data and its price are; of several seeds, where it is promised least.

    Where data are pooled the terms are those of the one place that holds them; under `central` they are the server's.
    """
    rows = [row for cell in cells for row in _hospital_rows(cell["summary"], name)]
    if not rows:
        return dict.fromkeys(
            ("records", "sample_rate", "noise_multiplier", "noise_added", "epsilon_upper", "epsilon_opacus_rdp")
        )
    return max(rows, key=lambda row: row["epsilon_upper"] or 0.0)


def _hospital_rows(summary: Row, name: str) -> list[Row]:
    pooled = summary["experiment"]["privacy"]["mechanism"] == "pooled"
    promised = summary.get("central")
    return [
        {
            "records": None if pooled else row["records"],
            "sample_rate": row["sample_rate"],
            "noise_multiplier": (promised or row)["noise_multiplier"],
            "noise_added": row["noise_added"],
            "epsilon_upper": (promised or row)["epsilon"]["upper"] if (promised or row)["epsilon"] else None,
            "epsilon_opacus_rdp": (promised or row)["epsilon_opacus_rdp"],
        }
        for row in summary["hospitals"]
        if row["name"] == name or pooled
    ]


def worst_of(hospitals: Mapping[str, Row]) -> Row | None:
    """Return the hospital that is served worst: the lowest estimate, of equal ones the first.

    Hospitals with too few held-out units for an interval count only where no hospital has one: theirs is an anecdote.
    """
    measured = {name: row for name, row in hospitals.items() if row["low"] is not None}
    known = measured or {name: row for name, row in hospitals.items() if row["estimate"] is not None}
    if not known:
        return None
    name = min(known, key=lambda n: known[n]["estimate"])
    return {"name": name, **{key: known[name][key] for key in ("estimate", "low", "high")}}
