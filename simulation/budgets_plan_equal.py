"""Mechanisms at equal noise: what each pays where the mean gradient is as noisy as that of pooled data."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import privacy
from clients.planning import calibrated, noise_shares, sample_rates
from configs import Experiment, InputError
from configs.experiment import Budget
from configs.sections import Mechanism
from simulation.budgets_plan_terms import Setting, at, protection

EVERYBODY = "with every hospital there"


def equal_noise_rows(
    experiment: Experiment, units: Mapping[str, int], budgets: Sequence[Budget]
) -> list[dict[str, Any]]:
    """Return what `pooled`, `local`, `distributed` and `central` pay at the noise that `pooled` has at each budget.

    With m hospitals a round, t colluders, d dropouts and pooled's noise multiplier s (std s C/B on the mean gradient):
    `local` has s/sqrt(m) at each hospital, `distributed` is charged s sqrt((m-t-d)/m), and `central` z = s C m/(B S).

    Each row is JSON: budget, noise_on_mean, mechanism, noise_multiplier, epsilon_upper (of the worst-off hospital),
    protects, note. Where a mechanism cannot be, noise_multiplier and epsilon_upper are None and the note says why.
    There are no rows with several local steps a round: then no single step's noise can be equal.

    Args:
        experiment: of the study; its own mechanism and budget do not matter.
        units: of every hospital of the federation.
        budgets: epsilons; 'none' is passed over.

    Raises:
        InputError: if no noise reaches a budget.
    """
    if experiment.training.local_steps != 1:
        return []
    base = _open(experiment) if experiment.privacy.mechanism == "distributed" else experiment
    return [r for budget in budgets if budget != "none" for r in _rows(base, units, float(budget))]


def _open(experiment: Experiment) -> Experiment:
    """Return a `distributed` experiment without the secure sum that only this mechanism needs."""
    return experiment.updated(
        training={"secure_sum": False},
        privacy={"mechanism": "none", "epsilon": None, "noise_multiplier": None},
        adversary={"placement": "none", "seat": None, "colluders": 0, "rounds": None},
    )


def _rows(base: Experiment, units: Mapping[str, int], budget: float) -> list[dict[str, Any]]:
    total, steps, delta = sum(units.values()), base.training.rounds, base.privacy.delta
    pooled = at(base, Setting("pooled", budget), units).training
    (rate,) = sample_rates({"pooled": total}, pooled.batch_size, pooled.batch).values()
    s = calibrated(budget, delta, rate, steps)
    mean = s * base.privacy.clipping_norm / (rate * total)
    found: list[dict[str, Any]] = []
    mechanisms: tuple[Mechanism, ...] = ("pooled", "local", "distributed", "central")
    for mechanism in mechanisms:
        row: dict[str, Any] = {"budget": budget, "noise_on_mean": mean, "mechanism": mechanism}
        try:
            # The noise is given, the budget is what is asked; which noise does not matter to what can be.
            made = at(base, Setting(mechanism, None), units, s)
            noise, drawn = (s, rate) if mechanism == "pooled" else _charged(made, units, mean)
        except InputError as error:
            found.append({**row, "noise_multiplier": None, "epsilon_upper": None, "protects": None, "note": str(error)})
            continue
        price = privacy.epsilon(noise_multiplier=noise, sample_rate=drawn, steps=steps, delta=delta)
        found.append(
            {
                **row,
                "noise_multiplier": noise,
                "epsilon_upper": price.upper if math.isfinite(price.upper) else None,
                "protects": protection(made).protects,
                "note": _note(made, units, mechanism),
            }
        )
    return found


def _charged(experiment: Experiment, units: Mapping[str, int], mean: float) -> tuple[float, float]:
    """Return the noise that a mechanism's ledger is charged with at this noise on the mean, and the largest rate."""
    count, training, settings = len(units), experiment.training, experiment.privacy
    asked = experiment.cohort_size(count)
    if settings.mechanism == "central":
        return mean * asked / settings.update_bound, asked / count
    rates = sample_rates(units, training.batch_size, training.batch)
    batch = asked / count * math.fsum(q * units[name] for name, q in rates.items())
    each = mean * batch / (settings.clipping_norm * math.sqrt(asked))  # what a hospital adds, of the clipping norm
    if settings.mechanism == "distributed":
        each *= math.sqrt(noise_shares(experiment, count))
    return each, max(rates.values())


def _note(experiment: Experiment, units: Mapping[str, int], mechanism: str) -> str:
    """Say whose utility goes with the row."""
    if mechanism == "pooled":
        return "The mechanism whose noise the others are given."
    if mechanism == "central":
        return (
            "Utility is not pooled's: each hospital's mean update is clipped instead of each record's gradient, and "
            "the price is a whole hospital's, not a record's."
        )
    training = experiment.training
    rates = sample_rates(units, training.batch_size, training.batch).values()
    one_rate = max(rates) - min(rates) <= 1e-12 * max(rates)
    whole = experiment.cohort_size(len(units)) == len(units) and not training.stragglers
    if one_rate and whole:
        return (
            f"Utility is that of the pooled cell in law {EVERYBODY}: the same records are drawn, the same noise added."
        )
    why = "hospitals have different sample rates" if not one_rate else "not every hospital takes part in each round"
    return f"Noise is that of the pooled cell; utility is near it and not the same in law, since {why}."
