"""Where the adversary may sit, and what each seat lets it see and do."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

from server.adversary.base import ATTRIBUTED, BROADCAST


@final
@dataclass(frozen=True)
class Seat:
    """One placement.

    Attributes:
        name: as in the settings.
        capabilities: what an attack may count on.
        description: one sentence for reports.
    """

    name: str
    capabilities: frozenset[str]
    description: str


PLACEMENTS: Mapping[str, Seat] = MappingProxyType(
    {
        seat.name: seat
        for seat in (
            Seat(
                "server",
                frozenset({ATTRIBUTED}),
                "An honest but curious server: it reads what every hospital releases and changes nothing.",
            ),
            Seat(
                "malicious_server",
                frozenset({ATTRIBUTED, BROADCAST}),
                "A malicious server: it reads every hospital's release and chooses the model sent to each.",
            ),
        )
    }
)


def placement(name: str) -> Seat:
    """Return a placement by its name.

    Raises:
        ValueError: naming the known placements; 'none' is not one, as nobody sits there.
    """
    if name not in PLACEMENTS:
        raise ValueError(f"placement '{name}' is not known; choose from {', '.join(sorted(PLACEMENTS))}")
    return PLACEMENTS[name]
