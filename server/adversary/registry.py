"""Attacks by the names that the settings use."""

from collections.abc import Callable, Mapping
from typing import get_args

from configs.adversary import AdversarySettings, AttackName
from server.adversary.base import Attack

ATTACKS: tuple[str, ...] = get_args(AttackName)


def attack(name: str, settings: AdversarySettings) -> Attack:
    """Return a new attack by its name, with its own section of the settings.

    Raises:
        ValueError: naming the known attacks.
    """
    if name not in _MAKERS:
        raise ValueError(f"attack '{name}' is not known; choose from {', '.join(_MAKERS)}")
    return _MAKERS[name](settings)


# Each attack is imported when it is asked for: some of them load torch.
def _imprint(settings: AdversarySettings) -> Attack:
    from server.adversary.imprint import Imprint

    return Imprint(settings.imprint)


def _trap_weights(settings: AdversarySettings) -> Attack:
    from server.adversary.trap_weights import TrapWeights

    return TrapWeights(settings.trap_weights)


def _data_traps(settings: AdversarySettings) -> Attack:
    from server.adversary.data_traps import DataTraps

    return DataTraps(settings.data_traps)


def _mean_image(settings: AdversarySettings) -> Attack:
    from server.adversary.nulls import MeanImage

    return MeanImage()


_MAKERS: Mapping[str, Callable[[AdversarySettings], Attack]] = {
    "imprint": _imprint,
    "trap_weights": _trap_weights,
    "data_traps": _data_traps,
    "mean_image": _mean_image,
}
