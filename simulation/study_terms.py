"""What a mechanism changes beside privacy, so that a study compares like with like."""

from collections.abc import Callable, Mapping

from configs import Experiment
from configs.adversary import AttackName, Placement
from configs.sections import TWINS, Mechanism
from server.adversary.placements import PLACEMENTS
from server.adversary.registry import attack

# Who would read single releases reads the sum where there is nothing else, and the other way round.
_SUMMED: Mapping[Placement, Placement] = {
    "wire": "aggregate",
    "server": "aggregate",
    "malicious_server": "malicious_aggregate",
    "worst_case": "malicious_aggregate",
    "hospital": "none",
}
_SINGLE: Mapping[Placement, Placement] = {
    "aggregate": "server",
    "malicious_aggregate": "malicious_server",
    "hospital": "none",
}


def training_under(base: Experiment, mechanism: Mechanism, units: Callable[[], Mapping[str, int]]) -> dict[str, object]:
    """Return the training settings that a mechanism changes.

    `distributed` is a secure sum. A twin (`pooled`, `alone`) has one place: nobody is drawn or waited for there, and
    its batches shrink with the share of hospitals that a round of the federation reaches, so that both see the same
    number of examples.

    Args:
        base: the experiment of the study.
        mechanism: what is run.
        units: gives the units of each hospital; asked only where a number depends on them.
    """
    training = base.training
    if mechanism == "distributed":
        return {"secure_sum": True}
    if mechanism == "central":  # the server sees every update, or could not clip it
        return {"secure_sum": False}
    if mechanism not in TWINS:
        return {}
    changed: dict[str, object] = {"secure_sum": False, "cohort": None, "stragglers": 0.0}
    changed["quorum"] = training.quorum if training.quorum <= 1 else 1.0
    reached = 1.0 - training.stragglers
    if training.cohort is not None:
        reached *= min(1.0, training.cohort / len(units()))
    if reached == 1.0:
        return changed
    if training.batch_size is None:  # every unit of a hospital that takes part: the same share of everything
        return {**changed, "batch_size": reached * sum(units().values()), "batch": "proportional"}
    return {**changed, "batch_size": reached * training.batch_size}


def adversary_under(base: Experiment, mechanism: Mechanism) -> dict[str, object]:
    """Return the adversary's settings under a mechanism: its seat there, and the attacks that can be made from it.

    Nothing leaves a hospital that trains alone, and nobody can be another hospital where there is one place only,
    where releases are summed unseen, or where the server's step cannot be undone: nobody sits there then.
    """
    settings = base.adversary
    placement: Placement = settings.placement
    if mechanism == "alone":
        placement = "none"
    elif mechanism == "pooled":
        placement = _SINGLE.get(placement, placement)
        if settings.public_data == "other_hospitals":
            placement = "none"
    elif mechanism == "central":
        placement = _SINGLE.get(placement, placement)
    elif mechanism == "distributed":
        placement = _SUMMED.get(placement, placement)
    attacks = possible(base, placement)
    if placement != "none" and settings.attacks and not attacks:
        placement = "none"
    moved = placement != settings.placement or mechanism in TWINS
    keeps_seat = not moved or (placement != "none" and settings.public_data == "other_hospitals")
    return {
        "placement": placement,
        "attacks": settings.attacks if placement == "none" else attacks,
        "seat": settings.seat if keeps_seat else None,
        "colluders": settings.colluders if placement == "hospital" else 0,
    }


def possible(base: Experiment, placement: Placement) -> tuple[AttackName, ...]:
    """Return those of the experiment's attacks that a placement can make; all of them where it stays in its seat.

    An attack that even the experiment's own placement cannot make is refused before a run, and not left out here.
    """
    settings = base.adversary
    if placement in ("none", settings.placement):
        return settings.attacks
    able = PLACEMENTS[placement].capabilities
    return tuple(name for name in settings.attacks if attack(name, settings).needs <= able)
