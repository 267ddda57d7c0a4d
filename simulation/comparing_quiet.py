"""When the silence of a setting's attacks counts: they were judged, could have been noticed, and none was."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from simulation.placements_rows import SIGNIFICANT

Row = dict[str, Any]

# Goals whose tests count images, so that it is known from which true rate on they notice something.
RATE: Mapping[str, str] = MappingProxyType(
    {
        "copied": "images copied",
        "visible": "images shown more clearly than guessing does",
        "identified": "images picked among decoys",
        "informed": "images picked by somebody who is shown the candidates",
    }
)
# A test that would miss an attack that gets more than this share of the images says nothing by its silence.
MOST_UNSEEN = 0.5


def quiet(attacks: Sequence[Row]) -> bool:
    """Return whether attacks were tested in a setting, all of them could have been noticed, and none was.

    Every test counts by itself, at 5 %: adjusting for their number would make a budget look the safer the more was
    tried. Nothing is shown by this: a quiet setting is one in which nothing was seen though it could have been.

    Args:
        attacks: rows of `simulation.comparing_attacks.attack_rows`, all of one setting.
    """
    return bool(tested(attacks)) and all(silent(attack) for attack in attacks if attack["targets"])


def silent(attack: Row) -> bool:
    """Return whether one attack was judged, could have been noticed, and was not."""
    return not (unjudged(attack) or noticed(attack) or blind(attack))


def tested(attacks: Sequence[Row]) -> list[Row]:
    """Return the attacks of a setting that could be held against a null."""
    return [attack for attack in attacks if attack["above_null"] is not None]


def unjudged(attack: Row) -> bool:
    """Return whether an attack could not be held against its null."""
    return attack["above_null"] is None


def noticed(attack: Row) -> bool:
    """Return whether an attack's own test, not adjusted for the others, is significant."""
    return attack["above_null"] is True or (attack["p"] is not None and attack["p"] < SIGNIFICANT)


def blind(attack: Row) -> bool:
    """Return whether a test was made that would miss an attack which gets more than half of the images."""
    if unjudged(attack) or attack["goal"] not in RATE:
        return False
    return attack["noticed_from"] is None or attack["noticed_from"] > MOST_UNSEEN
