"""What a hospital agrees to before the first round: sample rate, noise, steps. Pure and public."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import privacy
from configs import Experiment
from configs.errors import InputError
from tasks.partition import Deal


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
        noise_multiplier: s; 0 without noise.
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
    steps: int
    claims: bool

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise on the sum of a step, per coordinate."""
        return self.noise_multiplier * (1.0 if self.clipping_norm is None else self.clipping_norm)


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
    return {
        name: Plan(
            hospital=name,
            units=units[name],
            records=records[name],
            sample_rate=rates[name],
            expected_batch=rates[name] * units[name],
            clipping_norm=clip,
            noise_multiplier=_noise(experiment, rates[name], steps),
            steps=steps,
            claims=settings.claims,
        )
        for name in sorted(units)
    }


def plan_deal(experiment: Experiment, parts: Deal) -> dict[str, Plan]:
    """Return the plan of every hospital of a deal."""
    units = {h.name: len(h.records.unit_rows(experiment.unit)) for h in parts.hospitals}
    return plans(experiment, units, {h.name: len(h.records) for h in parts.hospitals})


def _noise(experiment: Experiment, sample_rate: float, steps: int) -> float:
    settings = experiment.privacy
    if settings.mechanism == "noise_only":
        # Nothing is clipped: the multiplier is taken of the nominal clipping norm.
        return (settings.noise_multiplier or 0.0) * settings.clipping_norm
    if not settings.claims:
        return 0.0
    if settings.noise_multiplier is not None:
        return settings.noise_multiplier
    if settings.epsilon is None:
        raise InputError(f"privacy.epsilon: mechanism '{settings.mechanism}' needs a budget.")
    return calibrated(settings.epsilon, settings.delta, sample_rate, steps)


@functools.lru_cache(maxsize=1024)
def calibrated(epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """Return the noise multiplier for a budget; cached, since hospitals with equal rates share it.

    Rounded up to seven significant digits: the last bits of a calibration depend on how many threads its linear
    algebra had, and a hospital that restarts elsewhere must not find that its own ledger disagrees with it.
    """
    value = privacy.noise_multiplier(epsilon=epsilon, delta=delta, sample_rate=sample_rate, steps=steps)
    if not math.isfinite(value):
        raise InputError(
            f"privacy.epsilon: no noise reaches epsilon {epsilon:g} at delta {delta:g}; raise one of them."
        )
    step = 10.0 ** (math.floor(math.log10(value)) - 6)
    return float(f"{math.ceil(value / step - 1e-6) * step:.7g}")
