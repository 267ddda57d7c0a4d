"""Mechanism `central`: the server limits what one hospital can change, and adds the noise.

It protects a hospital's taking part from whoever gets the models. It does not protect from the server, which is sent
every update as it is; nor, in a simulation, from hospitals, who know the seed that its noise comes from. Somebody who
leaves a hospital that stays does not take an update away but changes it: the sum moves by up to 2 S, which is the price
at half the noise.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

import privacy
from configs import Experiment, InputError, derive
from privacy import Ledger, Spend
from server.checkpoints import read_arrays, write_arrays

WHO = "the server, for every hospital"
Vector = NDArray[np.float64]


@final
@dataclass(frozen=True)
class CentralPlan:
    """The public terms of a run under `central`.

    Attributes:
        noise_multiplier: z; the noise on the sum of clipped updates is z*S per coordinate.
        sample_rate: Q, the probability of a hospital to be asked in a round; 1 where every round asks all.
        steps: rounds.
        update_bound: S, the norm that a hospital's mean update is clipped to.
        expected: Q*H, what the sum is divided by, whoever came.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int
    update_bound: float
    expected: float

    @property
    def noise_on_mean(self) -> float:
        """Standard deviation per coordinate of the noise on the mean update."""
        return self.noise_multiplier * self.update_bound / self.expected


def central_plan(experiment: Experiment, hospitals: int) -> CentralPlan:
    """Return the plan for so many hospitals: the noise at which all rounds together cost the budget.

    Guarantee: adding or removing one hospital with all its records is (epsilon, delta)-indistinguishable to whoever
    sees every model.
    Assumes: where only some hospitals are asked in a round, each is drawn by itself with probability Q, and nobody
    who sees the models knows who was (hospitals know it of themselves).
    Edge cases: a noise multiplier that is given is taken as it is.

    Raises:
        InputError: if no noise reaches the budget.
    """
    settings, rounds = experiment.privacy, experiment.training.rounds
    rate = experiment.cohort_size(hospitals) / hospitals
    noise = settings.noise_multiplier
    if noise is None:
        epsilon = settings.budget
        if epsilon is None:
            raise InputError("privacy.epsilon: mechanism 'central' needs a budget.")
        try:
            noise = privacy.noise_multiplier(epsilon=epsilon, delta=settings.delta, sample_rate=rate, steps=rounds)
        except ValueError as error:
            raise InputError(
                f"privacy.epsilon: no noise reaches epsilon {epsilon:g} at delta {settings.delta:g}; raise one of them."
            ) from error
    return CentralPlan(noise, rate, rounds, settings.update_bound, rate * hospitals)


def ledger_of(folder: Path) -> Path:
    """Return the server's own ledger in a run's folder."""
    return folder / "central.jsonl"


@final
class CentralNoise:
    """Clips updates, charges the server's ledger, adds noise: in this order, once a round."""

    def __init__(self, plan: CentralPlan, root: str, run: str, folder: Path) -> None:
        self.plan = plan
        self._root = root
        self._run = run
        self._ledger = Ledger.open(ledger_of(folder))
        self._written = folder / "central-mean.safetensors"

    def clipped(self, update: Vector) -> Vector:
        """Return a hospital's mean update (size,) scaled to a norm of at most S.

        Edge cases: what is not finite counts as no update at all: to refuse it, and count one release less, would let
        a hospital's records decide whether a round counts.
        """
        norm = float(np.linalg.norm(update))
        if not math.isfinite(norm):
            return np.zeros_like(update)
        return update * min(1.0, self.plan.update_bound / max(norm, 1e-300))

    def mean(self, server_round: int, total: Vector, released: Sequence[str], broadcast: str) -> Vector:
        """Return the noisy mean of a round's clipped updates; the round is charged before this returns.

        Guarantee: one hospital moves the sum by at most S, and the sum is divided by a constant: how many came does
        not show. Of one charge only one mean ever comes out: it is written down, and a round that is made again after a
        crash gets it back, whoever answers then. The noise is drawn for this very sum, so that no other sum (of
        other data with the same settings) meets the same noise, which their difference would cancel.

        Args:
            server_round: from 1.
            total: the sum of clipped updates (size,).
            released: the hospitals inside.
            broadcast: sha256 of the weights that the round started from.
        """
        spend = Spend(self.plan.noise_multiplier, self.plan.sample_rate, 1)
        self._ledger.charge(
            run=self._run,
            round=server_round,
            hospital=WHO,
            broadcast=broadcast,
            spend=spend,
            most_steps=self.plan.steps,
        )
        said = {"run": self._run, "round": str(server_round), "broadcast": broadcast}
        if self._written.is_file():
            arrays, before = read_arrays(self._written)
            if before == said:
                return arrays["mean"].astype(np.float64)
        content = hashlib.sha256(np.ascontiguousarray(total).tobytes()).hexdigest()
        seed = derive(self._root, "central noise", self._run, server_round, broadcast, content, *sorted(released))
        noise = np.random.default_rng(seed).standard_normal(len(total))
        mean = (total + self.plan.noise_multiplier * self.plan.update_bound * noise) / self.plan.expected
        write_arrays(self._written, {"mean": mean}, said)
        return mean
