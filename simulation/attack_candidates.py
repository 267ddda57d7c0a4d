"""Score an attack that is shown candidates: how often it names the right one, beside chance and the formal bound."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs import derive
from server.adversary.base import Attack, Candidates, Trace
from server.adversary.candidates import CandidateMatching
from simulation.attack_images import bounds_of
from simulation.attacking import Case, head
from simulation.pools import deal_decoys
from simulation.scoring.exact_tests import binomial_p, clopper_pearson
from simulation.worst_case import WorstCase, unit_of

_SEED = 20_251  # order of candidates and ties; a constant of the scorer

# Scores of the truth (first) and its decoys, (m + 1,); None if the attack cannot.
Ask = Callable[[int, NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64] | None]
Scored = tuple[dict[str, Any], list[dict[str, Any]]]


def score_candidates(case: Case) -> Scored:
    """Return the row of the summary and one row per ranked target.

    Each target is ranked among itself and decoys of its own site which the adversary never saw; without knowledge of
    the target the rank is uniform. At the placement `worst_case` the adversary is handed everything but the target
    (see `simulation.worst_case`) and the labels of all candidates; elsewhere the images and no labels. The ranked
    targets were drawn in at least one attacked round, and the bound is the one given that.

    Targets of one release share its noise, and are counted as if they did not. With gradients of HAM10000 (64x64, mean
    cosine .08, 50 targets among 20) the number of hits varies 2.0, 1.7, 1.2, 1.0 times as much as a binomial at s of
    .3, .6, 1, 2: intervals over one release are too narrow by a factor of up to 1.4. Take them over runs.
    """
    if case.attack.yields == "members":
        from simulation.attack_members import score_members

        return score_members(case)
    chosen, dealt = _dealt(case)
    if case.placement == "worst_case":
        try:
            behind = WorstCase.of(case.setup, case.trace)
        except ValueError as error:
            return _row(case, [], chosen[:0], dealt.shape[1], None, str(error))
        single = np.array([len(behind.units[unit]) == 1 for unit in _units(case, behind, chosen)], dtype=np.bool_)
        chosen, dealt = chosen[single], dealt[single]
        ranks = _ranks(chosen, dealt, _worst_case(case, behind))
        why = "" if len(chosen) else "no drawn unit has a single image, or no decoys are left"
        return _row(case, ranks, chosen, dealt.shape[1], behind, why)
    ranks = _ranks(chosen, dealt, _informed(case))
    return _row(case, ranks, chosen, dealt.shape[1], None, "" if len(chosen) else "no target or no decoys")


def _dealt(case: Case) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    settings = case.setup.experiment.adversary
    seed = derive(case.setup.experiment.seed, "decoys", case.trace.hospital, case.trace.rounds[-1])
    return deal_decoys(case.pools.decoys, case.targets, ranked=settings.targets, most=settings.decoys, seed=seed)


def _informed(case: Case) -> Ask:
    """Return how the attack is asked with images alone."""

    def ask(target: int, decoys: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.float64] | None:
        images = np.concatenate([case.targets.images[target][None], case.pool[decoys]])[order]
        return case.attack.informed(case.trace, case.public, Candidates(images))

    return ask


def _worst_case(case: Case, behind: WorstCase) -> Ask:
    """Return how the attack is asked with everything known but the target: step by step, as the bound composes."""
    attack: Attack = case.attack
    if not isinstance(attack, CandidateMatching):
        raise TypeError(f"attack '{attack.name}' does not score candidates step by step")

    def ask(target: int, decoys: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.float64] | None:
        (unit,) = _units(case, behind, np.array([target]))
        lineup = behind.candidates(unit, case.pools.decoys, decoys.tolist(), order.tolist())
        total = np.zeros(len(order))
        for seen, shown in zip(behind.trace(unit).observations, lineup.steps, strict=True):
            found = attack.informed_units(Trace.of(seen), case.public, shown, lineup.groups, lineup.views)
            if found is None:
                return None
            total += found
        return total

    return ask


def _units(case: Case, behind: WorstCase, targets: NDArray[np.int64]) -> list[int]:
    position = {str(name): i for i, name in enumerate(behind.records.ids)}
    return [unit_of(behind.units, position[case.targets.ids[t]]) for t in targets]


def _ranks(chosen: NDArray[np.int64], dealt: NDArray[np.int64], ask: Ask) -> list[int] | None:
    """Return the rank of each target, 1 is best; candidates come in a drawn order, ties are broken by a fair draw."""
    rng = np.random.default_rng(_SEED)
    ranks: list[int] = []
    for target, decoys in zip(chosen.tolist(), dealt, strict=True):
        order = rng.permutation(len(decoys) + 1)
        answer = ask(target, decoys, order)
        if answer is None:
            return None
        scores = np.empty(len(order))
        scores[order] = np.nan_to_num(answer, nan=-np.inf)
        tied = int(np.count_nonzero(scores[1:] == scores[0]))
        ranks.append(1 + int(np.count_nonzero(scores[1:] > scores[0])) + int(rng.integers(0, tied + 1)))
    return ranks


def _row(
    case: Case, ranks: list[int] | None, chosen: NDArray[np.int64], decoys: int, behind: WorstCase | None, why: str
) -> Scored:
    """Return the summary's row and the targets' rows; figures are None where nothing could be ranked."""
    if ranks is None:
        why = "the attack cannot score these candidates: masks are not known, or local steps without a learning rate"
    ranked, hits, chance = len(ranks or []), sum(rank == 1 for rank in ranks or []), 1 / (decoys + 1)
    rate = hits / ranked if ranked else None
    interval = list(clopper_pearson(hits, ranked)) if ranked else None
    p = binomial_p(hits, ranked, chance) if ranked else None
    if behind is not None and ranked:
        bounds = {f"bound_{threat}": behind.bound(chance, threat) for threat in ("worst_case", "relaxed")}
    else:
        bounds = bounds_of(case, decoys) if ranked else {"bound_worst_case": None, "bound_relaxed": None}
    row = {
        **head(case),
        "ranked": ranked,
        "decoys": decoys,
        "rank1": None,
        "identified_informed": rate,
        "identified_informed_ci": interval,
        "identified_informed_p": p,
        **bounds,
        "success": rate,
        "success_ci": interval,
        "success_null": chance if ranked else None,
        "success_p": p,
        "success_name": f"identified among {decoys + 1}",
        **({"why": why} if why else {}),
    }
    start = {key: row[key] for key in ("placement", "attack", "round")}
    rows = [
        {
            **start,
            "hospital": case.targets.hospitals[target],
            "target": case.targets.ids[target],
            "rank": None,
            "informed_rank": rank,
            "decoys": decoys,
        }
        for target, rank in zip(chosen.tolist(), ranks or [], strict=False)
    ]
    return row, rows
