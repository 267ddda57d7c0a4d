"""The adversary's chair in the federation: it may change the broadcast, and it records what passes."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import final

import numpy as np

from configs.adversary import AdversarySettings
from server.adversary.base import (
    BROADCAST,
    START,
    Addressee,
    Attack,
    Observation,
    PublicData,
    PublicTerms,
    Update,
    Weights,
    require,
)
from server.adversary.placements import placement
from server.adversary.recording import recorded, save_observation
from server.adversary.registry import attack
from server.adversary.terms import of_a_cohort, terms_of_rounds, terms_of_sum, with_noise
from server.model import CORE
from tasks.models import ModelSpec

EVERY_HOSPITAL = "the sum of all hospitals"


@final
class Chair:
    """Watches the stream of messages; keeps only the attacked rounds, on disk.

    It records what passes; what a placement may know of it is decided where views are built.
    """

    def __init__(
        self, settings: AdversarySettings, rounds: tuple[int, ...], public: PublicData | None, folder: Path
    ) -> None:
        self._settings = settings
        self._rounds = frozenset(rounds)
        self._folder = folder
        self._public = public
        self._sent: dict[int, tuple[ModelSpec, Weights]] = {}
        self._base: tuple[ModelSpec, Weights] | None = None
        self._planting: Attack | None = None
        self._starting: Attack | None = None
        if rounds and settings.placement != "none":
            seat = placement(settings.placement)
            attacks = [attack(name, settings) for name in settings.attacks]
            for each in attacks:
                require(each, settings.placement, seat.capabilities)
            self._planting = next((a for a in attacks if BROADCAST in a.needs), None)
            self._starting = next((a for a in attacks if START in a.needs), None)

    def start(self, spec: ModelSpec, weights: Weights) -> tuple[ModelSpec, Weights]:
        """Return the model that the federation starts from: the agreed one, or one planted with traps."""
        if self._starting is None or self._public is None:
            return spec, weights
        return self._starting.plant(spec, weights, self._public)

    def broadcast(
        self, round_number: int, spec: ModelSpec, weights: Weights, to: Addressee
    ) -> tuple[ModelSpec, Weights]:
        """Return what one hospital is sent in a round: the agreed model, or the planted one in an attacked round."""
        if round_number not in self._rounds:
            return spec, weights
        if round_number not in self._sent:
            self._base = self._frozen(self._base) or (spec, weights)
            self._sent = {round_number: self._plant(*self._base, Addressee(count=to.count))}
        if self._base is not None and self._planting is not None and self._planting.personal:
            return self._plant(*self._base, to)
        return self._sent[round_number]

    def _frozen(self, before: tuple[ModelSpec, Weights] | None) -> tuple[ModelSpec, Weights] | None:
        """Return the agreed model of the first attacked round where it is to be sent again, also after a resume."""
        if not self._settings.frozen or self._planting is None:
            return None
        if before is None and (kept := [*recorded(self._folder, "single"), *recorded(self._folder, "sum")]):
            seen = kept[0][0]
            core = {name.removeprefix(CORE): w for name, w in seen.weights.items() if name.startswith(CORE)}
            return replace(seen.spec, block=None), core or seen.weights
        return before

    def observe(self, round_number: int, hospital: str, terms: PublicTerms, release: Update) -> None:
        """Record one hospital's exchange if the round is attacked."""
        if round_number in self._sent:
            spec, weights = self._sent[round_number]
            self._keep(Observation(round_number, hospital, spec, weights, release, terms), "single")

    def observe_sum(self, round_number: int, terms: Mapping[str, PublicTerms], release: Update) -> None:
        """Record what came out of a secure sum over hospitals: FedSGD's sum of releases, or FedAvg's weighted mean."""
        if round_number in self._sent:
            spec, weights = self._sent[round_number]
            whole = terms_of_sum(list(terms.values()))
            members = tuple(sorted(terms))
            self._keep(Observation(round_number, EVERY_HOSPITAL, spec, weights, release, whole, members), "sum")

    def after(
        self,
        round_number: int,
        before: Weights,
        now: Weights,
        terms: Mapping[str, PublicTerms],
        factors: Mapping[str, float],
        scale: float | None,
        server_noise: float = 0.0,
    ) -> None:
        """Record the global model before and after an attacked round.

        Args:
            round_number: from 1.
            before: the agreed parameters before the server's step.
            now: the same after it.
            terms: public terms of the hospitals that released.
            factors: what each release was multiplied with.
            scale: what turns the step into the sum of the multiplied releases; None where the server's optimiser
                cannot be undone.
            server_noise: deviation of noise that the server added to the sum of gradients, in their own units.
        """
        if round_number not in self._sent or not terms:  # nobody was asked: the step is the server's noise
            return
        spec, _ = self._sent[round_number]
        step = _difference(before, now)
        whole = with_noise(terms_of_sum(list(terms.values())), server_noise)
        seen = Observation(
            round_number, EVERY_HOSPITAL, replace(spec, block=None), before, step, whole, tuple(sorted(terms))
        )
        said = {name: asdict(value) for name, value in terms.items()}
        save_observation(self._folder, seen, "step", terms=said, factors=dict(factors), scale=scale)

    def finish(
        self,
        first: tuple[ModelSpec, Weights],
        last: Weights,
        terms: Mapping[str, PublicTerms],
        rounds: int,
        server_noise: float = 0.0,
        share: float = 1.0,
    ) -> None:
        """Record the first model and the one that is handed out.

        Args:
            first: the model that the federation started from.
            last: the one that is handed out.
            terms: of every hospital.
            rounds: of the run.
            server_noise: as in `after`.
            share: of the hospitals that a round asks.
        """
        if not self._rounds:
            return
        spec, before = first
        whole = with_noise(of_a_cohort(terms_of_sum(list(terms.values())), share), server_noise * share)
        everything = tuple(range(1, rounds + 1))
        step = _difference(before, last)
        seen = Observation(rounds, EVERY_HOSPITAL, spec, before, step, whole, tuple(sorted(terms)), everything)
        save_observation(self._folder, seen, "final")

    def _plant(self, spec: ModelSpec, weights: Weights, to: Addressee) -> tuple[ModelSpec, Weights]:
        if self._planting is None or self._public is None:
            return spec, weights
        return self._planting.plant(spec, weights, self._public, to)

    def _keep(self, seen: Observation, kind: str) -> None:
        """Write an observation, or add it to the running sum of its source."""
        chosen = "sum" if kind == "sum" else "single"
        if self._settings.keep == "sum":
            before = [o for o, _ in recorded(self._folder, chosen, seen.hospital) if o.rounds]
            if before and seen.round in before[0].rounds:
                return
            if before:
                release = {name: before[0].release[name] + value for name, value in seen.release.items()}
                rounds = (*before[0].rounds, seen.round)
                terms = terms_of_rounds(before[0].terms, len(before[0].rounds), seen.terms)
                members = tuple(sorted({*before[0].members, *seen.members}))
                seen = replace(
                    before[0], round=seen.round, release=release, rounds=rounds, terms=terms, members=members
                )
            else:
                seen = replace(seen, rounds=(seen.round,))
        save_observation(self._folder, seen, chosen)


def _difference(before: Weights, now: Weights) -> Update:
    return {
        name: now[name].astype(np.float64) - value.astype(np.float64) for name, value in before.items() if name in now
    }
