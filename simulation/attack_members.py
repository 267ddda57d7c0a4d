"""Score membership inference: members against non-members, and the lower bound on epsilon that follows."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import nhypergeom, norm

import privacy
from configs import RunStoppedError, derive
from configs.sections import TrainingSettings
from privacy.audit import one_run_bound
from server.adversary.base import Candidates
from server.adversary.membership import MembershipInference
from simulation.attacking import Case, head
from simulation.scoring.exact_tests import clopper_pearson
from tasks.base import Records
from tasks.views import draw_views, view

LOW, HIGH = 0.01, 0.1  # false positive rates at which the true positive rate is said
SHARES = (0.05, 0.15, 0.5)  # of examples that are guessed in, and out
CONFIDENCE = 0.95
SURE = 0.9999  # a correct run is stopped less often than 1 - SURE

Scored = tuple[dict[str, Any], list[dict[str, Any]]]


def score_members(case: Case) -> Scored:
    """Return the row of the summary and one row per member.

    Each member (an image of a unit that was drawn at least once; one per unit) has a non-member of its own: another
    unit's image of the same site and class where the scorer has one, else of the same class, else the member is left
    out. Both are seen whole, unflipped.

    Raises:
        RunStoppedError: membership shows more than the ledger's epsilon allows, at 99.99 % confidence.
    """
    if not isinstance(case.attack, MembershipInference):
        raise TypeError(f"attack '{case.attack.name}' is not membership inference")
    members, others = _pairs(case)
    start = head(case)
    if len(members) < 2:
        return _nothing(start, "fewer than two members have a non-member of the same class beside them"), []
    seen = [_shown(case, records) for records in (members, others)]
    found = [case.attack.informed(case.trace, case.public, candidates) for candidates in seen]
    null = [case.attack.untrained(case.trace, candidates) for candidates in seen]
    if found[0] is None or found[1] is None or null[0] is None or null[1] is None:
        return _nothing(
            start, "the adversary's public images carry no labels, so no reference model can be trained"
        ), []
    inside, outside = (np.nan_to_num(scores, nan=-np.inf) for scores in (found[0], found[1]))
    rate, p = tpr_at(inside, outside, HIGH)
    auc, interval = auc_delong(inside, outside)
    lower = _epsilon(case, inside, outside, CONFIDENCE)
    _check_ledger(case, start, _epsilon(case, inside, outside, SURE))
    row = {
        **start,
        "ranked": len(inside),
        "decoys": len(outside),
        "rank1": None,
        "auc": auc,
        "auc_ci": list(interval),
        "null_auc": auc_delong(null[0], null[1])[0],
        "tpr_at_1": tpr_at(inside, outside, LOW)[0],
        "tpr_at_10": rate,
        "epsilon_lower": lower,
        "epsilon_ledger": _ledger(case),
        "success": rate,
        "success_ci": list(clopper_pearson(round(rate * len(inside)), len(inside))),
        "success_null": HIGH,
        "success_p": p,
        "success_name": "members found at 10 % false alarms",
    }
    return row, _rows(row, case, members, others, inside, outside)


def tpr_at(inside: NDArray[np.float64], outside: NDArray[np.float64], fpr: float) -> tuple[float, float]:
    """Return (true positive rate at a false positive rate of at most `fpr`, its exact p-value).

    The threshold is the largest score of a non-member that at most a share `fpr` of non-members exceeds; ties count
    against the attack. If members and non-members are exchangeable, the number of members above the j-th largest
    non-member is negative hypergeometric.
    """
    allowed = int(fpr * len(outside) + 1e-9)
    threshold = np.sort(outside)[::-1][min(allowed, len(outside) - 1)]
    hits = int(np.count_nonzero(inside > threshold))
    law = nhypergeom(len(inside) + len(outside), len(inside), min(allowed, len(outside) - 1) + 1)
    return hits / len(inside), float(min(1.0, law.sf(hits - 1)))


def auc_delong(
    inside: NDArray[np.float64], outside: NDArray[np.float64], level: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """Return the area under the ROC curve and its interval by DeLong, DeLong and Clarke-Pearson 1988, within [0, 1].

    Where the classes are apart the variance is 0; the interval is then one of a single value.
    """
    wins = (inside[:, None] > outside[None]) + 0.5 * (inside[:, None] == outside[None])
    auc = float(wins.mean())
    by_member, by_other = wins.mean(axis=1), wins.mean(axis=0)
    spread = float(np.sqrt(by_member.var(ddof=1) / len(inside) + by_other.var(ddof=1) / len(outside)))
    reach = float(norm.isf((1 - level) / 2)) * spread
    return auc, (max(0.0, auc - reach), min(1.0, auc + reach))


def epsilon_from_pairs(
    inside: NDArray[np.float64], outside: NDArray[np.float64], *, delta: float, confidence: float, seed: int
) -> float:
    """Return a lower bound on epsilon from the scores of pairs (member, non-member), each (n,).

    *Guarantee*: below the epsilon of the training with probability `confidence`, though all scores come from one
    model (Steinke, Nasr and Jagielski 2023, see `privacy.audit.one_run_bound`).
    *Assumes*: either of a pair could as well have been the member, independently of the other pairs. A coin keeps
    one of each pair, so each kept example is in or out by a fair coin; that the other one was then out or in is
    taken not to matter. How many are guessed is chosen on one half of the pairs and used on the other.
    *Edge cases*: 0 for fewer than 8 pairs, or where guessing is no better than chance.
    """
    if len(inside) < 8:
        return 0.0
    rng = np.random.default_rng(seed)
    coins = rng.random(len(inside)) < 0.5
    scores = np.where(coins, inside, outside)
    order = rng.permutation(len(inside))
    first, second = order[: len(order) // 2], order[len(order) // 2 :]

    def bound(part: NDArray[np.intp], shares: tuple[float, float]) -> float:
        most = part[np.argsort(-scores[part], kind="stable")]
        count_in, count_out = (int(share * len(part)) for share in shares)
        right = int(coins[most[:count_in]].sum() + (~coins[most[len(most) - count_out :]]).sum())
        guesses = count_in + count_out
        return one_run_bound(canaries=len(part), guesses=guesses, correct=right, delta=delta, confidence=confidence)

    choices = [(a, b) for a in SHARES for b in (0.0, *SHARES)]
    best = max(choices, key=lambda shares: bound(first, shares))
    return bound(second, best)


def _epsilon(case: Case, inside: NDArray[np.float64], outside: NDArray[np.float64], confidence: float) -> float:
    experiment = case.setup.experiment
    seed = derive(experiment.seed, "membership coins")
    return epsilon_from_pairs(inside, outside, delta=experiment.privacy.delta, confidence=confidence, seed=seed)


def _ledger(case: Case) -> float | None:
    """Return the largest epsilon of the hospitals behind the model; None where one claims nothing."""
    experiment = case.setup.experiment
    plans = [case.setup.plans[name] for name in case.trace.members]
    if not plans or not all(plan.claims for plan in plans):
        return None
    steps = len(case.trace.rounds) * experiment.training.local_steps
    delta = experiment.privacy.delta
    prices = {(plan.noise_multiplier, plan.sample_rate) for plan in plans}
    return max(
        privacy.epsilon(noise_multiplier=noise, sample_rate=rate, steps=steps, delta=delta).upper
        for noise, rate in prices
    )


def _check_ledger(case: Case, start: dict[str, Any], lower: float) -> None:
    claimed = _ledger(case)
    if claimed is not None and lower > claimed:
        raise RunStoppedError(
            f"attack '{start['attack']}' tells members from others as if epsilon were {lower:.3g} or more, where the "
            f"ledger says {claimed:.3g}: the noise, the ledger or the scoring is wrong, so no report is made."
        )


def _pairs(case: Case) -> tuple[Records, Records]:
    """Return members and their non-members, as many of each, one image of a unit."""
    settings, seed = case.setup.experiment.adversary, case.setup.experiment.seed
    rng = np.random.default_rng(derive(seed, "members"))
    drawn = set(case.targets.ids)
    held = [h.records for h in case.setup.deal.hospitals if h.name in case.trace.members]
    everything = Records.joined(held)
    inside = _one_per_unit(everything.take(np.flatnonzero(np.isin(everything.ids, sorted(drawn)))), rng)
    pool = _one_per_unit(case.pools.decoys, rng)
    free: dict[tuple[str, int], list[int]] = {}
    for position in range(len(pool)):
        free.setdefault((str(pool.sites[position]), int(pool.labels[position])), []).append(position)
    chosen: list[tuple[int, int]] = []
    for position in range(len(inside)):
        site, label = str(inside.sites[position]), int(inside.labels[position])
        kinds = [(site, label), *sorted(kind for kind in free if kind[1] == label and kind[0] != site)]
        kind = next((kind for kind in kinds if free.get(kind)), None)
        if kind is not None and len(chosen) < settings.targets * max(1, len(held)):
            chosen.append((position, free[kind].pop()))
    return inside.take([a for a, _ in chosen]), pool.take([b for _, b in chosen])


def _one_per_unit(records: Records, rng: np.random.Generator) -> Records:
    """Return one image of every unit, in a drawn order."""
    order = rng.permutation(len(records))
    _, first = np.unique(records.units[order], return_index=True)
    return records.take(rng.permutation(order[first]))


def _shown(case: Case, records: Records) -> Candidates:
    """Return images and their labels or masks, one view of each in the model's shape, unflipped."""
    rng = np.random.default_rng(derive(case.setup.experiment.seed, "members' crops"))
    size = case.setup.task.shape[1:]
    still = TrainingSettings(flips=0.0)
    views = draw_views(rng, len(records), still, whole=records.images.shape[1:], size=size)
    targets: NDArray[np.integer] = records.targets()
    if records.masks is not None:
        targets = view(torch.from_numpy(targets), views).numpy()
    return Candidates(view(torch.from_numpy(records.pixels()), views).numpy(), targets)


def _nothing(start: dict[str, Any], why: str) -> dict[str, Any]:
    blank = ("rank1", "auc", "auc_ci", "null_auc", "tpr_at_1", "tpr_at_10", "epsilon_lower", "epsilon_ledger")
    common = ("success", "success_ci", "success_null", "success_p")
    empty: dict[str, Any] = dict.fromkeys((*blank, *common))
    return {
        **start,
        "ranked": 0,
        "decoys": 0,
        **empty,
        "success_name": "members found at 10 % false alarms",
        "why": why,
    }


def _rows(
    row: dict[str, Any],
    case: Case,
    members: Records,
    others: Records,
    inside: NDArray[np.float64],
    outside: NDArray[np.float64],
) -> list[dict[str, Any]]:
    start = {key: row[key] for key in ("placement", "attack", "round")}
    owner = dict(zip(case.targets.ids, case.targets.hospitals, strict=True))
    return [
        {
            **start,
            "hospital": owner[str(member)],
            "target": str(member),
            "rank": None,
            "decoys": row["decoys"],
            "score": float(mine),
            "non_member": str(other),
            "non_member_score": float(theirs),
        }
        for member, other, mine, theirs in zip(members.ids, others.ids, inside, outside, strict=True)
    ]
