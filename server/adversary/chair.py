"""The adversary's chair at the server: it may change the broadcast, and it records what it sees."""

from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from configs.sections import AdversarySettings
from server.adversary.base import BROADCAST, Attack, Observation, PublicData, PublicTerms, Weights, require
from server.adversary.placements import placement
from server.adversary.recording import save_observation
from server.adversary.registry import attack
from tasks.models import ModelSpec


@final
class Chair:
    """Observes the stream of messages; keeps only the attacked rounds, on disk."""

    def __init__(
        self, settings: AdversarySettings, rounds: tuple[int, ...], public: PublicData | None, folder: Path
    ) -> None:
        self._rounds = frozenset(rounds)
        self._folder = folder
        self._public = public
        self._sent: dict[int, tuple[ModelSpec, Weights]] = {}
        self._planting: Attack | None = None
        if rounds and settings.placement != "none":
            chair = placement(settings.placement)
            attacks = [attack(name, settings) for name in settings.attacks]
            for each in attacks:
                require(each, settings.placement, chair.capabilities)
            if BROADCAST in chair.capabilities:
                self._planting = next((a for a in attacks if BROADCAST in a.needs), None)

    def broadcast(self, round_number: int, spec: ModelSpec, weights: Weights) -> tuple[ModelSpec, Weights]:
        """Return what is sent in a round: the agreed model, or the planted one in an attacked round."""
        if round_number not in self._rounds:
            return spec, weights
        sent = (spec, weights)
        if self._planting is not None and self._public is not None:
            sent = self._planting.plant(spec, weights, self._public)
        self._sent = {round_number: sent}
        return sent

    def observe(
        self, round_number: int, hospital: str, terms: PublicTerms, release: dict[str, NDArray[np.float64]]
    ) -> None:
        """Record one hospital's exchange if the round is attacked."""
        if round_number not in self._sent:
            return
        spec, weights = self._sent[round_number]
        save_observation(self._folder, Observation(round_number, hospital, spec, weights, release, terms))
