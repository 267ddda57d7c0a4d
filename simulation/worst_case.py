"""The adversary of the formal bound: every noisy step, and everything in it but one record, which it has to find.

The simulation asks the hospitals' own sampling and gradients again, and takes out of each noisy step all that was drawn
except the target. What is left is the noise, and the target's clipped gradient in the steps that drew it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from clients.broadcast import broadcast_digest
from clients.gradients import GradientEngine, engine
from clients.local import OPTIMIZERS, noisy_sum
from clients.planning import Plan
from clients.sampling import Draw, draws_of_round
from configs import HOSPITALS, RunStoppedError, derive, root_of
from privacy import participant_bound
from privacy.robustness import Threat
from server.adversary.base import Candidates, Observation, PublicTerms, Trace
from server.adversary.registry import attack
from simulation.setup import Setup
from tasks.base import Records
from tasks.views import Views, draw_views, view

AGREES = 1e-9  # relative distance of a release made again; what differs less is rounding


@final
@dataclass(frozen=True)
class NoisyStep:
    """One noisy step of one hospital, with everything that was drawn taken out.

    Attributes:
        seen: the step as an observation; its release is the noise alone, its terms are of one step and a batch of one.
        step: within the round, from 0.
        drawn: what the hospital drew.
    """

    seen: Observation
    step: int
    drawn: Draw


@final
@dataclass(frozen=True)
class WorstCase:
    """What is needed to put any target before the adversary of the bound; one hospital.

    Attributes:
        setup: the run.
        records: the hospital's.
        units: positions of each unit's records.
        plan: the hospital's.
        steps: all noisy steps of the attacked rounds.
    """

    setup: Setup
    records: Records
    units: list[NDArray[np.int64]]
    plan: Plan
    steps: tuple[NoisyStep, ...]

    @staticmethod
    def of(setup: Setup, trace: Trace) -> "WorstCase":
        """Take everything drawn out of every noisy step behind a trace of one hospital.

        Raises:
            ValueError: several hospitals or rounds are added up in one observation, or hospitals got different models.
            RunStoppedError: a release is not what the hospital's own functions give again.
        """
        if any(len(seen.added) > 1 or len(seen.inside) > 1 for seen in trace.observations):
            raise ValueError(
                "the worst case needs every hospital's every round by itself: set adversary.keep to rounds"
            )
        settings = setup.experiment.adversary
        if any(attack(name, settings).personal for name in settings.attacks):
            raise ValueError(
                "the worst case needs one model for all hospitals: set adversary.imprint.per_hospital to false"
            )
        (hospital,) = trace.members
        records = next(h.records for h in setup.deal.hospitals if h.name == hospital)
        start = WorstCase(setup, records, records.unit_rows(setup.experiment.unit), setup.plans[hospital], ())
        steps = [step for seen in trace.observations for step in start._emptied(seen)]
        return replace(start, steps=tuple(steps))

    def trace(self, unit: int) -> Trace:
        """Return the steps as observations with the unit's own clipped gradient left in where it was drawn."""
        return Trace(tuple(self._with(step, unit) for step in self.steps))

    def candidates(self, unit: int, pool: Records, decoys: Sequence[int], order: Sequence[int]) -> "Lineup":
        """Return the unit and decoys as each step would have seen them, in the order given (0 is the unit).

        All candidates of a step are viewed alike: with the views that the hospital drew for the unit, or, where the
        unit was not drawn, with views drawn for the purpose. So the views say nothing.

        Raises:
            ValueError: the unit has several images; it would stand out among decoys of one.
        """
        if len(self.units[unit]) != 1:
            raise ValueError(f"unit {unit} has {len(self.units[unit])} images; a candidate has one")
        own = self.records.take(self.units[unit])
        parts = [own if place == 0 else pool.take([decoys[place - 1]]) for place in order]
        every = self.setup.experiment.training.views
        seen = tuple(self._lined_up(parts, self._views(step, unit)) for step in self.steps)
        return Lineup(seen, np.repeat(np.arange(len(parts), dtype=np.int64), every), every)

    def bound(self, prior: float, threat: Threat) -> float | None:
        """Return the bound for a record that took part in at least one of the steps; None where nothing is claimed.

        It counts all steps of the run up to the last attacked round, as what is broadcast came out of them.
        """
        plan = self.plan
        if not plan.claims or not self.steps:
            return None
        return participant_bound(
            noise_multiplier=plan.noise_multiplier,
            sample_rate=plan.sample_rate,
            steps=self.steps[-1].seen.round * self.setup.experiment.training.local_steps,
            watched=len(self.steps),
            prior=prior,
            threat=threat,
        )

    def _emptied(self, seen: Observation) -> Iterator[NoisyStep]:
        """Make one round's release again, as `clients.local` does, and yield its noisy steps without what was drawn."""
        experiment, plan = self.setup.experiment, self.plan
        training = experiment.training
        model = self._engine(seen)
        root = root_of(experiment.seed, HOSPITALS)
        run = f"{experiment.digest()[:16]}/{self.setup.fingerprint}"
        sent = broadcast_digest(seen.round, seen.spec.to_json(), seen.weights)
        before = model.read()
        here = torch.nn.Parameter(before.clone())
        kind: Any = OPTIMIZERS[training.optimizer]
        optimizer = kind([here], lr=training.learning_rate)
        whole, size = self.records.images.shape[1:], self.setup.task.shape[1:]
        total = torch.zeros(model.size, dtype=torch.float64)
        for step, drawn in enumerate(
            draws_of_round(root, plan, training, seen.round, self.units, whole=whole, size=size)
        ):
            clean = self._clean(model, drawn)
            seed = derive(root, "noise", run, plan.hospital, seen.round, step, sent)
            noise = plan.noise_std * torch.from_numpy(np.random.default_rng(seed).standard_normal(model.size))
            yield NoisyStep(self._observation(seen, model, noise), step, drawn)
            total = clean + noise
            here.grad = total / max(plan.expected_batch, 1e-12)
            if training.proximal:
                here.grad = here.grad + training.proximal * (here.detach() - before)
            optimizer.step()
            model.write(here.detach())
        again = total if training.local_steps == 1 else here.detach() - before
        found = np.concatenate([np.asarray(seen.release[name]).ravel() for name in model.names])
        if np.linalg.norm(found - again.numpy()) > AGREES * np.linalg.norm(found):
            raise RunStoppedError(
                f"the release of {plan.hospital} in round {seen.round} is not what its own sampling, gradients and "
                f"noise give again, so nobody can say what the worst case saw of it."
            )

    def _with(self, step: NoisyStep, unit: int) -> Observation:
        place = np.flatnonzero(step.drawn.units == unit)
        if len(place) == 0:
            return step.seen
        model = self._engine(step.seen)
        own = model.by_name(self._clean(model, _only(step.drawn, int(place[0]))))
        release = {name: value + own[name].numpy() for name, value in step.seen.release.items()}
        return replace(step.seen, release=release)

    def _engine(self, seen: Observation) -> GradientEngine:
        found = engine(seen.spec, self.setup.task.loss)
        found.load({name: torch.from_numpy(np.array(value)) for name, value in seen.weights.items()})
        return found

    def _clean(self, model: GradientEngine, drawn: Draw) -> torch.Tensor:
        return noisy_sum(model, self.records, drawn, replace(self.plan, added=0.0), 0)

    def _observation(self, seen: Observation, model: GradientEngine, noise: torch.Tensor) -> Observation:
        """Return a step as an observation of a batch of one, at the weights that the model has now."""
        weights = {name: value.detach().cpu().numpy().copy() for name, value in model.model.state_dict().items()}
        plan = self.plan
        terms = PublicTerms(plan.clipping_norm, plan.added, plan.sample_rate, 1, 1.0, 0.0)
        release = {name: value.numpy() for name, value in model.by_name(noise).items()}
        return Observation(seen.round, seen.hospital, seen.spec, weights, release, terms)

    def _views(self, step: NoisyStep, unit: int) -> Views:
        place = np.flatnonzero(step.drawn.units == unit)
        if len(place):
            return step.drawn.views.take(np.flatnonzero(step.drawn.groups == place[0]))
        experiment = self.setup.experiment
        seed = derive(experiment.seed, "views of candidates", self.plan.hospital, step.seen.round, step.step, unit)
        return draw_views(
            np.random.default_rng(seed),
            experiment.training.views,
            experiment.training,
            whole=self.records.images.shape[1:],
            size=self.setup.task.shape[1:],
        )

    def _lined_up(self, parts: Sequence[Records], views: Views) -> Candidates:
        every, count = len(views), len(parts)
        starts = np.tile(views.starts, (count, 1))
        all_views = Views(np.tile(views.flips, (count, 1)), starts, views.size)
        images = np.repeat(np.concatenate([part.pixels() for part in parts]), every, axis=0)
        targets = np.repeat(np.concatenate([part.targets() for part in parts]), every, axis=0)
        shown = view(torch.from_numpy(images), all_views).numpy()
        if self.records.masks is not None:
            targets = view(torch.from_numpy(targets), all_views).numpy()
        return Candidates(shown, targets)


@final
@dataclass(frozen=True)
class Lineup:
    """Candidates as every step would have seen them.

    Attributes:
        steps: one entry per noisy step: the candidates' views and their targets.
        groups: int64, the candidate of each row.
        views: per image.
    """

    steps: tuple[Candidates, ...]
    groups: NDArray[np.int64]
    views: int


def worst_case_trace(setup: Setup, trace: Trace, target: str) -> Trace:
    """Return a trace of one hospital with everything taken out but one record, by its id.

    Raises:
        ValueError: the hospital has no such record; or as :meth:`WorstCase.of`.
    """
    behind = WorstCase.of(setup, trace)
    found = np.flatnonzero(behind.records.ids == target)
    if len(found) == 0:
        raise ValueError(f"{trace.hospital} has no record '{target}'")
    return behind.trace(unit_of(behind.units, int(found[0])))


def unit_of(units: Sequence[NDArray[np.int64]], position: int) -> int:
    """Return the unit that a record belongs to."""
    return next(u for u, rows in enumerate(units) if position in rows)


def _only(drawn: Draw, place: int) -> Draw:
    """Return a draw of one of its units."""
    index = np.flatnonzero(drawn.groups == place)
    return Draw(
        units=drawn.units[place : place + 1],
        rows=drawn.rows[index],
        groups=np.zeros(len(index), dtype=np.int64),
        views=drawn.views.take(index),
        per_image=drawn.per_image,
    )
