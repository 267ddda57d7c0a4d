"""What each attack achieved, its releases taken together, beside its null."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

from simulation.scoring.exact_tests import binomial_p, clopper_pearson, holm

Summary = dict[str, Any]
Level = Literal["copied", "recognised", "informed", "quiet", "untested"]
SIGNIFICANT = 0.05
EVERYBODY = "all"


@final
@dataclass(frozen=True)
class Share:
    """A count out of a total, with its exact 95 % interval.

    Attributes:
        hits, total: the count.
        interval: of the rate (Clopper-Pearson), each image counted as an independent trial.
        p: probability of at least so many hits by chance, None where chance is not known.
    """

    hits: int
    total: int
    interval: tuple[float, float]
    p: float | None = None

    @property
    def rate(self) -> float:
        """The hits as a share of the total."""
        return self.hits / self.total


@final
@dataclass(frozen=True)
class Outcome:
    """One attack at one placement, all its releases together.

    Attributes:
        placement, attack: their names.
        rounds: attacked rounds.
        rows: the summary's rows.
        recovered: images copied (SSIM > .9), None without targets.
        null: rate at which the null recovers the same images, None where it was not measured.
        above_null: releases in which the attack recovers more than the null (exact paired test at 5 %).
        rank1: targets that come first among their decoys.
        informed: the same when the adversary is shown the candidates.
        decoys, most_decoys: the fewest and the most per target; by chance rank 1 has probability 1/(decoys + 1)
            or less, and p-values take the fewest.
        mean_ssim, null_mean_ssim: weighted by targets.
        mean_psnr, null_mean_psnr: weighted by targets, in dB.
        bound_worst_case, bound_relaxed: the highest of any release.
    """

    placement: str
    attack: str
    rounds: tuple[int, ...]
    rows: tuple[Summary, ...]
    recovered: Share | None
    null: float | None
    above_null: int
    rank1: Share | None
    informed: Share | None
    decoys: int
    most_decoys: int
    mean_ssim: float | None
    null_mean_ssim: float | None
    mean_psnr: float | None
    null_mean_psnr: float | None
    bound_worst_case: float | None
    bound_relaxed: float | None

    @property
    def chance(self) -> float:
        """Probability of rank 1 by chance, at the fewest decoys."""
        return 1 / (self.decoys + 1)


IMAGES = ("images", "candidates")


def outcomes(attacks: Sequence[Summary]) -> list[Outcome]:
    """Put the rows of each (placement, attack) about single images together, strongest first.

    Attacks that count labels or tell members apart have other figures: see :func:`others`. Rows of hospital 'all' are
    taken as they are, in place of the single hospitals' rows.
    """
    groups: dict[tuple[str, str], list[Summary]] = {}
    for row in attacks:
        if row.get("yields", "images") not in IMAGES:
            continue
        groups.setdefault((str(row["placement"]), str(row["attack"])), []).append(row)
    found = [pooled(rows) for rows in groups.values()]
    return sorted(found, key=lambda o: -(o.recovered.rate if o.recovered else -1.0))


def others(attacks: Sequence[Summary]) -> list[Summary]:
    """Return the rows of attacks that yield labels or members, in the order of placement, attack and hospital."""
    rows = [row for row in attacks if row.get("yields", "images") not in IMAGES]
    return sorted(rows, key=lambda r: (str(r["placement"]), str(r["attack"]), str(r["hospital"]), int(r["round"])))


def pooled(rows: Sequence[Summary]) -> Outcome:
    """Put the rows of one attack together; counts are added, so the weights are the numbers of targets."""
    everybody = [r for r in rows if r["hospital"] == EVERYBODY]
    kept = tuple(everybody or rows)
    ranked = [r for r in kept if r.get("ranked")]
    decoys = min((int(r["decoys"]) for r in ranked), default=0)
    chance = 1 / (decoys + 1)
    return Outcome(
        placement=str(kept[0]["placement"]),
        attack=str(kept[0]["attack"]),
        rounds=tuple(sorted({int(r["round"]) for r in kept})),
        rows=kept,
        recovered=_share(kept, "recovered", "targets", None),
        null=_mean(kept, "null_recovered"),
        above_null=sum(1 for r in kept if r.get("above_null")),
        rank1=_share(kept, "rank1", "ranked", chance),
        informed=_share(kept, "identified_informed", "ranked", chance),
        decoys=decoys,
        most_decoys=max((int(r["decoys"]) for r in ranked), default=0),
        mean_ssim=_mean(kept, "mean_ssim"),
        null_mean_ssim=_mean(kept, "null_mean_ssim"),
        mean_psnr=_mean(kept, "mean_psnr"),
        null_mean_psnr=_mean(kept, "null_mean_psnr"),
        bound_worst_case=_highest(kept, "bound_worst_case"),
        bound_relaxed=_highest(kept, "bound_relaxed"),
    )


def level(found: Sequence[Outcome]) -> Level:
    """Return the worst that the attacks achieved beyond their nulls, many attacks allowed for (Holm)."""
    tried = [o for o in found if o.recovered is not None or o.informed is not None]
    if not tried:
        return "untested"
    if any(_beats_null(o) for o in tried):
        return "copied"
    for name, shares in (("recognised", [o.rank1 for o in tried]), ("informed", [o.informed for o in tried])):
        p_values = [s.p for s in shares if s is not None and s.p is not None]
        if p_values and min(holm(p_values)) < SIGNIFICANT:
            return "recognised" if name == "recognised" else "informed"
    return "quiet"


def _beats_null(outcome: Outcome) -> bool:
    p_values = [r.get("above_null_p") for r in outcome.rows if r.get("above_null")]
    if not p_values or any(p is None for p in p_values):
        return outcome.above_null > 0
    every = [r.get("above_null_p") for r in outcome.rows]
    return min(holm([1.0 if p is None else float(p) for p in every])) < SIGNIFICANT


def _share(rows: Sequence[Summary], key: str, weight: str, chance: float | None) -> Share | None:
    counted = [r for r in rows if r.get(weight) and r.get(key) is not None]
    total = sum(int(r[weight]) for r in counted)
    if not total:
        return None
    hits = sum(round(r[key] * r[weight]) for r in counted)
    p = None if chance is None else binomial_p(hits, total, chance)
    return Share(hits, total, clopper_pearson(hits, total), p)


def _mean(rows: Sequence[Summary], key: str) -> float | None:
    known = [(float(r[key]), int(r["targets"])) for r in rows if r.get(key) is not None and r["targets"]]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None


def _highest(rows: Sequence[Summary], key: str) -> float | None:
    return max((float(r[key]) for r in rows if r.get(key) is not None), default=None)
