"""Each placement's view, built from the recorded traffic and nothing else."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from configs.adversary import AdversarySettings
from server.adversary.base import Observation, PublicTerms, Trace, View
from server.adversary.placements import placement
from server.adversary.recording import recorded
from server.adversary.terms import terms_of_sum


def load_view(folder: Path, settings: AdversarySettings) -> View:
    """Return what the placement of the settings saw of the traffic recorded in a folder.

    No view holds a seed, another seat's messages, or how many records were drawn:

    - `wire`: one hospital's exchanges;
    - `server`, `malicious_server`, `worst_case`: every hospital's exchanges;
    - `aggregate`, `malicious_aggregate`: the secure sums;
    - `hospital`: the steps of the global model, with the seat's (and its colluders') own releases taken out;
    - `release`: the first model, which was public or planted, and the model that was handed out.

    Raises:
        ValueError: the placement is not known, a file is not a recorded observation, or the placement cannot be
            built from this traffic; the text says why.
    """
    name = settings.placement
    capabilities = placement(name).capabilities
    match name:
        case "wire":
            seat = _seat(folder, settings)
            found = [o for o, _ in recorded(folder, "single", seat)]
        case "aggregate" | "malicious_aggregate":
            found = [o for o, _ in recorded(folder, "sum")]
        case "hospital":
            found = list(_others(folder, settings))
        case "release":
            found = [o for o, _ in recorded(folder, "final")]
        case _:
            found = [o for o, _ in recorded(folder, "single")]
    return View(name, capabilities, traces(found))


def traces(observations: Iterable[Observation]) -> tuple[Trace, ...]:
    """Group observations by their source, sources by name."""
    by_source: dict[str, list[Observation]] = defaultdict(list)
    for seen in observations:
        by_source[seen.hospital].append(seen)
    return tuple(Trace.of(*by_source[name]) for name in sorted(by_source))


def _hospitals(folder: Path) -> list[str]:
    """Return the hospitals that released in any recorded round, by name."""
    names = sorted({name for _, extra in recorded(folder, "step") for name in extra["terms"]})
    if not names:
        raise ValueError("no step of the global model was recorded")
    return names


def _seat(folder: Path, settings: AdversarySettings) -> str:
    """Return the hospital that is sat at: as set, or the first by name."""
    names = _hospitals(folder)
    seat = settings.seat or names[0]
    if seat not in names:
        raise ValueError(f"adversary.seat: '{seat}' is none of the hospitals: {', '.join(names)}")
    return seat


def _others(folder: Path, settings: AdversarySettings) -> Iterable[Observation]:
    """Yield the steps of the global model without the shares of the seat and its colluders."""
    seat = _seat(folder, settings)
    friends = [seat, *[name for name in _hospitals(folder) if name != seat][: settings.colluders]]
    if len(friends) == len(_hospitals(folder)):
        raise ValueError(f"adversary.colluders: nobody is left to attack beside {len(friends)} colluders")
    for step, extra in recorded(folder, "step"):
        if extra["scale"] is None:
            raise ValueError("placement 'hospital' needs training.server_optimizer: average")
        inside = [name for name in friends if name in extra["terms"]]  # of the round's cohort
        others = [name for name in sorted(extra["terms"]) if name not in friends]
        if others:
            yield _without(folder, step, extra, inside, others)


def _without(
    folder: Path, step: Observation, extra: dict[str, Any], friends: list[str], others: list[str]
) -> Observation:
    """Return the step as the sum (FedSGD) or mean (FedAvg) of the others' releases."""
    # mean step = sum_h factor_h * release_h / sum_h divisor_h, and `scale` turns the step into that numerator.
    total = {name: extra["scale"] * value for name, value in step.release.items()}
    for friend in friends:
        mine = [own for own, _ in recorded(folder, "single", friend) if own.round == step.round and not own.rounds]
        if not mine:
            raise ValueError(f"the own release of hospital '{friend}' in round {step.round} was not recorded")
        factor = extra["factors"][friend]
        total = {name: value - factor * mine[0].release[name] for name, value in total.items()}
    left = sum(extra["factors"][name] for name in others) if step.terms.local_steps > 1 else 1.0
    return replace(
        step,
        hospital="the other hospitals" if len(others) > 1 else others[0],
        release={name: np.asarray(value / left) for name, value in total.items()},
        terms=terms_of_sum([PublicTerms(**extra["terms"][name]) for name in others]),
        members=tuple(others),
    )
