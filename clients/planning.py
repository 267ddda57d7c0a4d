"""What a hospital agrees to before the first round: sample rate, noise, steps. Pure and public."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import final

from clients.calibration import Noise, calibrated, found_noise, noise_of_rates
from configs import Experiment
from configs.errors import InputError
from tasks.partition import Deal

__all__ = ["Plan", "calibrated", "noise_shares", "noise_to_tell", "plan_deal", "plans", "sample_rates"]


@final
@dataclass(frozen=True)
class Plan:
    """One hospital's public terms for a run.

    Attributes:
        hospital: its name.
        units: its number of units (images, lesions or scans); public and fixed.
        records: its number of images.
        sample_rate: q, the probability of a unit to be drawn in a step.
        expected_batch: q * units.
        clipping_norm: C, None where gradients are not clipped.
        noise_multiplier: s that its ledger is charged with: of the noise on what others see; 0 without noise.
        added: what the hospital itself adds to a sum, in clipping norms: s, or its share of it (`distributed`).
        steps: the most steps that the hospital will take in the run.
        claims: whether the mechanism claims an epsilon for it.
    """

    hospital: str
    units: int
    records: int
    sample_rate: float
    expected_batch: float
    clipping_norm: float | None
    noise_multiplier: float
    added: float
    steps: int
    claims: bool

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise that the hospital adds to the sum of a step, per coordinate."""
        return self.added * (1.0 if self.clipping_norm is None else self.clipping_norm)


def sample_rates(units: Mapping[str, int], batch_size: float | None, batch: str) -> dict[str, float]:
    """Return each hospital's sample rate: B/N for all, an equal share of B from each, or 1 without a batch size.

    Raises:
        InputError: if the batch is larger than the data.
    """
    if batch_size is None:
        return dict.fromkeys(units, 1.0)
    total = sum(units.values())
    if batch == "proportional":
        rates = dict.fromkeys(units, batch_size / total)
    else:
        rates = {name: batch_size / len(units) / n for name, n in units.items()}
    over = [name for name, q in rates.items() if q > 1 + 1e-12]
    if over:
        raise InputError(
            f"training.batch_size: {batch_size:g} asks for more units than {over[0]} has ({units[over[0]]}); "
            f"set it to at most {total if batch == 'proportional' else len(units) * min(units.values())}."
        )
    return {name: min(1.0, q) for name, q in rates.items()}


def plans(experiment: Experiment, units: Mapping[str, int], records: Mapping[str, int]) -> dict[str, Plan]:
    """Return every hospital's plan.

    A hospital plans for every round: where cohorts are drawn, who is drawn is the server's choice, and a hospital
    does not rely on it.

    Args:
        experiment: the run.
        units: units per hospital.
        records: images per hospital.
    """
    settings = experiment.privacy
    rates = sample_rates(units, experiment.training.batch_size, experiment.training.batch)
    steps = experiment.training.rounds * experiment.training.local_steps
    clip = settings.clipping_norm if settings.clips else None
    noises = _noises(experiment, set(rates.values()), steps)
    noise = {name: noises[rates[name]] for name in units}
    added = noise
    if settings.mechanism == "distributed":
        # One noise for all: each is as safe as the one that needs most. Below s / sqrt(m - t - d) a share never is.
        noise = dict.fromkeys(units, max(noise.values()))
        sharing = noise_shares(experiment, len(units))
        added = {name: s / math.sqrt(sharing) for name, s in noise.items()}
    return {
        name: Plan(
            hospital=name,
            units=units[name],
            records=records[name],
            sample_rate=rates[name],
            expected_batch=rates[name] * units[name],
            clipping_norm=clip,
            noise_multiplier=noise[name],
            added=added[name],
            steps=steps,
            claims=settings.claims,
        )
        for name in sorted(units)
    }


def noise_shares(experiment: Experiment, hospitals: int) -> int:
    """Return over how many shares `distributed` spreads the noise: cohort less colluders less tolerated dropouts.

    Guarantee: a sum that is opened holds at least so many shares that no colluder knows, since hospitals unmask no
    sum of fewer than cohort less `privacy.dropouts`.
    Assumes: at most `privacy.colluders` hospitals tell the server (or keep for themselves) what they added. Each
    hospital knows its own, so that 0 colluders protect from the server and the public, not from the others.

    Raises:
        InputError: if none is left.
    """
    settings, cohort = experiment.privacy, experiment.cohort_size(hospitals)
    sharing = cohort - settings.colluders - settings.dropouts
    if sharing < 1:
        raise InputError(
            f"privacy.colluders: with {cohort} hospitals a round, {settings.colluders} colluders and "
            f"{settings.dropouts} dropouts nobody is left whose noise protects; lower one of them."
        )
    if sharing > 1:  # a single share is all the noise there is: a release that is seen by itself has it
        _check_colluders(experiment, hospitals)
    return sharing


def _check_colluders(experiment: Experiment, hospitals: int) -> None:
    """Refuse as many colluders as could have two lists of survivors signed, and so a single release opened."""
    settings = experiment.privacy
    for taking_part in range(experiment.cohort_size(hospitals) - settings.dropouts, hospitals + 1):
        threshold = experiment.sum_threshold(hospitals, taking_part)
        allowed = 2 * threshold - taking_part - 1
        if threshold <= taking_part and settings.colluders > allowed:
            raise InputError(
                f"privacy.colluders: a secure sum of {taking_part} hospitals is opened by {threshold}; with "
                f"{settings.colluders} of them on its side the server could have two sums of one round opened, whose "
                f"difference is a single release. Set at most {allowed}, or fewer privacy.dropouts."
            )


def noise_to_tell(experiment: Experiment, planned: Iterable[Plan]) -> tuple[Noise, ...]:
    """Return the noise that a budget was calibrated to, for the other processes of a simulation; empty without one."""
    settings = experiment.privacy
    if not settings.claims or settings.budget is None:
        return ()
    rates = {plan.sample_rate for plan in planned}
    return found_noise(
        settings.budget, settings.delta, rates, experiment.training.rounds * experiment.training.local_steps
    )


def plan_deal(experiment: Experiment, parts: Deal) -> dict[str, Plan]:
    """Return the plan of every hospital that trains; one that trains alone plans as it would in its federation."""
    planning = parts.federation if experiment.privacy.mechanism == "alone" else parts.hospitals
    units = {h.name: len(h.records.unit_rows(experiment.unit)) for h in planning}
    found = plans(experiment, units, {h.name: len(h.records) for h in planning})
    return {h.name: found[h.name] for h in parts.hospitals}


def _noises(experiment: Experiment, rates: Collection[float], steps: int) -> dict[float, float]:
    """Return the noise multiplier of each of these sample rates."""
    settings = experiment.privacy
    if settings.mechanism == "noise_only":
        # Nothing is clipped: the multiplier is taken of the nominal clipping norm.
        return dict.fromkeys(rates, (settings.noise_multiplier or 0.0) * settings.clipping_norm)
    if not settings.claims:
        return dict.fromkeys(rates, 0.0)
    if settings.noise_multiplier is not None:
        return dict.fromkeys(rates, settings.noise_multiplier)
    if settings.budget is None:
        raise InputError(f"privacy.epsilon: mechanism '{settings.mechanism}' needs a budget.")
    return noise_of_rates(settings.budget, settings.delta, rates, steps)
