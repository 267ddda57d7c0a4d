"""Whether an adversary can sit where it is put: said before a run starts, in one sentence."""

from configs import Experiment, InputError
from configs.adversary import AdversarySettings
from server.adversary.base import BROADCAST, START, Attack, MissingCapabilityError, require
from server.adversary.placements import placement
from server.adversary.registry import attack
from simulation.scoring.similarity import WINDOW
from tasks.base import Task

MODULES = ("imprint", "data_traps")  # attacks whose module is laid out on public images


def check_adversary(experiment: Experiment, task: Task, hospitals: list[str]) -> None:
    """Refuse what the adversary cannot do, with the setting to change.

    Raises:
        InputError: for images too small to score, an attack that may not know or do enough, two attacks that both
            change the model that is sent, missing public data, or a seat that does not exist.
    """
    settings = experiment.adversary
    if min(task.shape[1:]) < WINDOW:
        raise InputError(
            f"adversary.placement: attacks are scored in windows of {WINDOW} pixels a side, and the images have "
            f"{' x '.join(map(str, task.shape[1:]))}; enlarge them, or set it to none."
        )
    chair = placement(settings.placement)
    attacks = [attack(name, settings) for name in settings.attacks]
    for one in attacks:
        try:
            require(one, settings.placement, chair.capabilities)
        except MissingCapabilityError as error:
            raise InputError(f"adversary.attacks: {error}; choose another placement or attack.") from error
    _check_planting(attacks)
    _check_public(settings)
    _check_seat(experiment, hospitals)


def _check_planting(attacks: list[Attack]) -> None:
    planting = [one.name for one in attacks if one.needs & {BROADCAST, START}]
    if len(planting) > 1:
        raise InputError(
            f"adversary.attacks: {' and '.join(planting)} each send a model of their own; name one of them per run "
            f"(fedward placements makes a run for each)."
        )


def _check_public(settings: AdversarySettings) -> None:
    needy = [name for name in settings.attacks if name in MODULES]
    if settings.public_data == "none" and needy:
        raise InputError(
            f"adversary.public_data: the {needy[0]} attack sets its bins at public quantiles and needs public data; "
            f"set it to phantom, other_hospitals or same_distribution."
        )


def _check_seat(experiment: Experiment, hospitals: list[str]) -> None:
    settings = experiment.adversary
    seated = settings.placement in ("wire", "hospital") or settings.public_data == "other_hospitals"
    if settings.seat is not None and not seated:
        raise InputError("adversary.seat: only placements wire and hospital (or public_data other_hospitals) have one.")
    if settings.seat is not None and settings.seat not in hospitals:
        raise InputError(f"adversary.seat: '{settings.seat}' is none of the hospitals: {', '.join(hospitals)}.")
    if settings.colluders and settings.placement != "hospital":
        raise InputError("adversary.colluders: only placement hospital has colluders; leave it at 0.")
    if settings.public_data == "other_hospitals" and len(hospitals) < 2:
        raise InputError("adversary.public_data: there is no other hospital whose images could be public.")
    if settings.placement != "hospital":
        return
    if experiment.privacy.mechanism == "central":
        raise InputError(
            "adversary.placement: under mechanism 'central' a hospital cannot undo the server's step, which is clipped "
            "and noised; choose another placement."
        )
    if experiment.training.server_optimizer != "average":
        raise InputError(
            "adversary.placement: a hospital can undo the server's step only where training.server_optimizer is "
            "average; set it, or choose another placement."
        )
    if len(hospitals) < settings.colluders + 2:
        raise InputError(
            f"adversary.colluders: with {len(hospitals)} hospitals and {settings.colluders} colluders nobody is left "
            f"to attack."
        )
