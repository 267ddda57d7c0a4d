"""Where the adversary may sit, and what each seat lets it see and do."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

from server.adversary.base import ATTRIBUTED, BROADCAST, CANDIDATES, FINAL, RELEASES, START


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


def _seat(name: str, description: str, *capabilities: str) -> Seat:
    return Seat(name, frozenset(capabilities), description)


PLACEMENTS: Mapping[str, Seat] = MappingProxyType(
    {
        seat.name: seat
        for seat in (
            _seat(
                "wire",
                "Somebody on the line of one hospital: it reads that hospital's messages, both ways.",
                *(RELEASES, ATTRIBUTED),
            ),
            _seat(
                "server",
                "An honest but curious server: it reads what every hospital releases and changes nothing.",
                *(RELEASES, ATTRIBUTED),
            ),
            _seat(
                "malicious_server",
                "A malicious server: it reads every hospital's release and chooses the model sent to each.",
                *(RELEASES, ATTRIBUTED, BROADCAST),
            ),
            _seat(
                "aggregate",
                "A server that gets the secure sum of the releases and no single one; it changes nothing.",
                RELEASES,
            ),
            _seat(
                "malicious_aggregate",
                "A malicious server that gets only the secure sum, and chooses the model sent to each hospital.",
                *(RELEASES, BROADCAST),
            ),
            _seat(
                "hospital",
                "A hospital (with colluders): it reads the global models and takes its own share out of their steps.",
                RELEASES,
            ),
            _seat(
                "release",
                "Whoever gets the final model; at most the first model was planted with traps.",
                *(START, FINAL),
            ),
            _seat(
                "worst_case",
                "The adversary of the formal bound: every noisy step, and everything but which candidate was used.",
                *(RELEASES, ATTRIBUTED, BROADCAST, CANDIDATES),
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
