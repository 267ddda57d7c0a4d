"""Run the attacks on the views that a run recorded, and score them. Truth joins here, and nowhere before."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from configs import RunStoppedError
from configs.adversary import AttackName, Placement
from server.adversary.base import Attack, PublicData, Trace, require
from server.adversary.public import load_public
from server.adversary.registry import attack
from server.adversary.views import load_view
from server.events import read_events
from server.settings import ServerSettings
from simulation.folder import RunFolder
from simulation.pictures import Pictures
from simulation.pools import Pools, Targets, attackable, targets_of, views_of
from simulation.scoring.exact_tests import binomial_p
from simulation.setup import Setup

# A check of a rate against its bound fails a correct run this rarely.
BY_CHANCE = 1e-6


@final
@dataclass(frozen=True)
class AttackResults:
    """The rows of `summary.json` and of `attacks.csv`."""

    summary: list[dict[str, Any]]
    targets: list[dict[str, Any]]


Scorer = Callable[["Case"], tuple[dict[str, Any], list[dict[str, Any]]]]


@final
@dataclass(frozen=True)
class Case:
    """One attack on one trace, with the truth behind it.

    Attributes:
        setup: the run.
        placement: the seat.
        attack: what is tried.
        trace: what was seen.
        public: the adversary's images.
        pools: of the run.
        pool: uint8 (p, channels, ...), views of the scorer's decoys.
        targets: the images behind the trace.
        pictures: where pictures go.
        released: for each attacked hospital inside the trace, the rounds of the trace in which it released.
    """

    setup: Setup
    placement: str
    attack: Attack
    trace: Trace
    public: PublicData
    pools: Pools
    pool: NDArray[np.uint8]
    targets: Targets
    pictures: Pictures
    released: Mapping[str, Sequence[int]]


def run_attacks(
    setup: Setup,
    folder: RunFolder,
    pools: Pools,
    names: Sequence[AttackName],
    placement: Placement | None = None,
) -> AttackResults:
    """Attack every recorded trace with every attack, and score each against its truths and nulls.

    Args:
        setup: the run.
        folder: of the run.
        pools: of the run.
        names: of the attacks.
        placement: another seat than the run's own, from which the same traffic is watched.

    Raises:
        MissingCapabilityError: an attack needs what the placement does not have.
        RunStoppedError: if an attack beats the worst-case bound by more than chance explains (p < 1e-6, exact): then
            the ledger, the noise or the scoring is wrong, and no report may be made of it.
    """
    experiment = setup.experiment
    settings = experiment.adversary.model_copy(update={"placement": placement or experiment.adversary.placement})
    server = ServerSettings.of(experiment, folder.path)
    public = load_public(server.public_data) or pools.public
    results = AttackResults([], [])
    view = load_view(server.views, settings)
    attacks = [attack(name, settings) for name in names]
    for one in attacks:
        require(one, view.placement, view.capabilities)
    pictures = Pictures(folder, experiment)
    pool = decoy_images(setup, pools)
    released = _released(folder)
    for trace in view.traces:
        hospitals = attackable(setup, trace.members)
        if not hospitals:
            continue
        came = {h: [r for r in trace.rounds if (r, h) in released] for h in hospitals}
        targets = targets_of(setup, came)
        for one in attacks:
            if one.yields == "labels" and len(hospitals) < len(trace.members):
                continue  # the counts of a sum hold everybody's labels, the truth only the attacked hospitals'
            scorer = _scorer(one)
            row, rows = scorer(Case(setup, view.placement, one, trace, public, pools, pool, targets, pictures, came))
            results.summary.append(row)
            results.targets.extend(rows)
            check_bound(row)
    return results


def _scorer(one: Attack) -> Scorer:
    """Return what scores an attack, by what it yields."""
    match one.yields:
        case "images":
            from simulation.attack_images import score_images

            return score_images
        case "candidates" | "members":
            from simulation.attack_candidates import score_candidates

            return score_candidates
        case "labels":
            from simulation.attack_labels import score_labels

            return score_labels


def _released(folder: RunFolder) -> frozenset[tuple[int, str]]:
    """Return (round, hospital) of every release that counted."""
    return frozenset(
        (int(event["round"]), str(event["hospital"]))
        for event, _ in read_events(folder.events)
        if event["event"] == "released"
    )


def head(case: Case) -> dict[str, Any]:
    """Return the part of a row that every attack has."""
    rounds = case.trace.rounds
    return {
        "placement": case.placement,
        "attack": case.attack.name,
        "yields": case.attack.yields,
        "round": rounds[-1],
        "rounds": len(rounds),
        "hospital": case.trace.hospital,
        "hospitals": len(case.trace.members),
        "targets": len(case.targets.ids),
        "public_data": case.public.description,
    }


def decoy_images(setup: Setup, pools: Pools) -> NDArray[np.uint8]:
    """Return views of the decoys made as the hospitals' are, so that truth and decoys are exchangeable."""
    return views_of(setup, pools.decoys, setup.experiment.training, "decoy flips")


def mean_of(public: PublicData) -> NDArray[np.float32]:
    """Return the public mean image, or mid-grey where there are no public data."""
    if len(public.images):
        return (public.images.astype(np.float64).mean(axis=0) / 255.0).astype(np.float32)
    return np.full(public.images.shape[1:], 0.5, dtype=np.float32)


def check_bound(row: Mapping[str, Any]) -> None:
    """Stop if a rate of identification lies beyond its worst-case bound.

    Raises:
        RunStoppedError: naming the attack and both figures.
    """
    bound = row.get("bound_worst_case")
    for key in ("rank1", "identified_informed"):
        rate = row.get(key)
        if bound is None or rate is None or not row["ranked"]:
            continue
        # Exact, and so rare by chance that not one of a study's many checks should ever stop a correct run.
        if binomial_p(round(rate * row["ranked"]), row["ranked"], bound) < BY_CHANCE:
            raise RunStoppedError(
                f"attack '{row['attack']}' on {row['hospital']} in round {row['round']} identified {rate:.3f} of its "
                f"targets where the worst-case bound allows {bound:.3f}: the noise, the ledger or the scoring is "
                f"wrong, so no report is made."
            )
