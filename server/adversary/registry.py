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


def _inversion(settings: AdversarySettings) -> Attack:
    from server.adversary.inversion import Inversion

    return Inversion(settings.inversion)


def _label_counts(settings: AdversarySettings) -> Attack:
    from server.adversary.label_counts import LabelCounts

    return LabelCounts()


def _candidate_matching(settings: AdversarySettings) -> Attack:
    from server.adversary.candidates import CandidateMatching

    return CandidateMatching()


def _membership(settings: AdversarySettings) -> Attack:
    from server.adversary.membership import MembershipInference

    return MembershipInference(settings.membership)


_MAKERS: Mapping[str, Callable[[AdversarySettings], Attack]] = {
    "imprint": _imprint,
    "trap_weights": _trap_weights,
    "data_traps": _data_traps,
    "mean_image": _mean_image,
    "inversion": _inversion,
    "label_counts": _label_counts,
    "candidate_matching": _candidate_matching,
    "membership": _membership,
}
