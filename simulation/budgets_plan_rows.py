"""One row of a plan: what a mechanism at a budget adds, costs and leaves to be found, for every hospital."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

import privacy
from clients.planning import noise_shares
from configs import Experiment, InputError, Study
from configs.sections import PER_RECORD
from server.central import central_plan
from simulation.budgets_plan_noise import Federation, class_noise, federation, mean_noise, more_than_needed
from simulation.budgets_plan_terms import Protection, Setting, at, protection

Vector = NDArray[np.float64]


@final
@dataclass(frozen=True)
class Terms:
    """What holds for the hospitals of one size class, or for the one place or server that adds the noise.

    Attributes:
        noise_multiplier: s that is charged; z of `central`; None without noise.
        noise_added: what one hospital adds, in clipping norms.
        epsilon: its bracket; None where nothing is claimed.
        prior: chance of picking one of its units (of `central`: of the hospitals) without any release.
        worst_case: bound on that chance with all releases; None where nothing bounds it.
    """

    noise_multiplier: float | None
    noise_added: float | None
    epsilon: privacy.Epsilon | None
    prior: float
    worst_case: float | None


@final
@dataclass(frozen=True)
class PlanRow:
    """One mechanism at one budget.

    Attributes:
        setting: which.
        protection: of whom, from whom.
        delta: of epsilon; None where nothing is claimed.
        steps: of the run that are priced.
        places: whoever adds noise: hospitals, one place for pooled data, or the server; None where the row is refused.
        terms: by class of the places.
        relaxed: the bound for the weaker attacker, of whoever can be found most easily; None where nothing bounds it.
        more: by which share a hospital may have been given more noise than it needs, at most.
        noise_on_mean: (places,) what each trains with (`alone`), or (1,): on the mean gradient (`central`: update).
        notes: what has to be known beside the figures.
        why: why the setting cannot be; empty where it can.
    """

    setting: Setting
    protection: Protection
    delta: float | None
    steps: int
    places: Federation | None
    terms: tuple[Terms, ...]
    noise_on_mean: Vector
    relaxed: float | None = None
    more: float = 0.0
    notes: tuple[str, ...] = ()
    why: str = ""

    def worst_off(self) -> Terms:
        """Return the terms of whoever is promised least."""
        return max(self.terms, key=lambda t: (t.epsilon.upper if t.epsilon else 0.0, t.worst_case or 0.0))

    def most(self) -> Terms:
        """Return the terms of whoever can be found most easily."""
        return max(self.terms, key=lambda t: t.worst_case or 0.0)


def refused(setting: Setting, why: str) -> PlanRow:
    """Return the row of a setting that cannot be."""
    return PlanRow(setting, Protection(None, "nobody"), None, 0, None, (), np.zeros(1), why=why)


def row(study: Study, setting: Setting, units: Mapping[str, int], noise: float | None = None) -> PlanRow:
    """Price one setting for these hospitals; nothing is trained.

    Args:
        study: its experiment and axes.
        setting: mechanism and budget.
        units: of every hospital of the federation.
        noise: noise multiplier that `noise_only` takes; None: the experiment's own.

    Raises:
        InputError: if the setting cannot be with these hospitals.
    """
    experiment = at(study.experiment, setting, units, noise)
    if setting.mechanism == "central":
        return _central(experiment, setting, units)
    pooled = setting.mechanism == "pooled"
    places = federation(experiment, {"pooled": sum(units.values())} if pooled else units)
    steps = experiment.training.rounds * experiment.training.local_steps
    rates = [c.sample_rate for c in places.classes]
    noise_of, added, notes = _noise(experiment, places, rates, steps)
    terms = tuple(
        _terms(experiment, s, a, c.sample_rate, steps, 1.0 / c.units)
        for s, a, c in zip(noise_of, added, places.classes, strict=True)
    )
    notes += _delta(experiment, int(places.units.max()), "the largest place")
    if not places.exact and experiment.privacy.claims:
        notes.append("Hospitals of like size are priced as the smallest of them: epsilon and bounds are upper ends.")
    clip = experiment.privacy.clipping_norm
    std = np.array([clip * (a or 0.0) for a in added])[places.members]
    batches, sizes = places.rates * places.units, places.units.astype(np.float64)
    alone = setting.mechanism == "alone"
    mean = std / np.maximum(batches, 1e-12) if alone else np.array([mean_noise(experiment, std, batches, sizes)])
    return PlanRow(
        setting,
        protection(experiment),
        experiment.privacy.delta if experiment.privacy.claims else None,
        steps,
        places,
        terms,
        mean,
        _relaxed(terms, rates, steps),
        _more(experiment, places, terms),
        tuple(notes),
    )


def _noise(
    experiment: Experiment, places: Federation, rates: list[float], steps: int
) -> tuple[list[float | None], list[float | None], list[str]]:
    """Return what is charged and what is added, by class."""
    settings, count = experiment.privacy, len(rates)
    if settings.mechanism == "noise_only":
        own: list[float | None] = [settings.noise_multiplier] * count
        return own, own, ["noise_only bounds nothing: without clipping a record's share of the sum has no limit."]
    if not settings.claims:
        return [None] * count, [None] * count, []
    if settings.mechanism == "distributed":
        # One noise for all: that of the largest rate.
        s = max(class_noise(experiment, [max(rates)], steps, exact=True))
        share = s / math.sqrt(noise_shares(experiment, len(places.names)))
        return [s] * count, [share] * count, _cohort(experiment, len(places.names))
    found = class_noise(experiment, rates, steps, exact=places.exact)
    return [*found], [*found], _cohort(experiment, len(places.names))


def _terms(
    experiment: Experiment, noise: float | None, added: float | None, rate: float, steps: int, prior: float
) -> Terms:
    """Price steps of one noise and rate; without clipping nothing is bounded, without noise what is not drawn is."""
    taken: dict[str, Any] = {"sample_rate": rate, "steps": steps}
    price = None
    if noise is not None and (experiment.privacy.claims or experiment.privacy.mechanism == "central"):
        price = privacy.epsilon(noise_multiplier=noise, **taken, delta=experiment.privacy.delta)
    if experiment.privacy.mechanism == "noise_only":
        return Terms(noise, added, None, prior, None)
    if prior == 1.0:  # the only candidate is found by whoever knows that there is no other
        return Terms(noise, added, price, prior, 1.0)
    worst = privacy.reconstruction_bound(noise_multiplier=noise or 0.0, **taken, prior=prior, threat="worst_case")
    return Terms(noise, added, price, prior, worst)


def _relaxed(terms: tuple[Terms, ...], rates: list[float], steps: int) -> float | None:
    k = max(range(len(terms)), key=lambda i: terms[i].worst_case or 0.0)
    most = terms[k]
    if most.worst_case is None or most.prior == 1.0:
        return most.worst_case
    return privacy.reconstruction_bound(
        noise_multiplier=most.noise_multiplier or 0.0,
        sample_rate=rates[k],
        steps=steps,
        prior=most.prior,
        threat="relaxed",
    )


def _more(experiment: Experiment, places: Federation, terms: tuple[Terms, ...]) -> float:
    settings = experiment.privacy
    if places.exact or settings.budget is None or settings.mechanism not in ("local", "alone"):
        return 0.0
    noise = [t.noise_multiplier or 0.0 for t in terms]
    return more_than_needed(noise, [t.epsilon.upper if t.epsilon else 0.0 for t in terms], settings.budget)


def _central(experiment: Experiment, setting: Setting, units: Mapping[str, int]) -> PlanRow:
    count = len(units)
    plan = central_plan(experiment, count)
    terms = (_terms(experiment, plan.noise_multiplier, None, plan.sample_rate, plan.steps, 1.0 / count),)
    rates = np.array([plan.sample_rate])
    server = Federation(("server",), np.array([count]), rates, (), np.zeros(1, dtype=np.int64))
    notes = ["central: the noise is on the mean of clipped updates; clipping them changes the step as well."]
    if plan.sample_rate < 1:
        notes.append("central: its price counts on nobody knowing which hospitals were asked in a round.")
    notes += _delta(experiment, count, "the federation")
    relaxed = _relaxed(terms, [plan.sample_rate], plan.steps)
    mean, delta = np.array([plan.noise_on_mean]), experiment.privacy.delta
    return PlanRow(setting, protection(experiment), delta, plan.steps, server, terms, mean, relaxed, notes=tuple(notes))


def _cohort(experiment: Experiment, hospitals: int) -> list[str]:
    if experiment.cohort_size(hospitals) == hospitals or experiment.privacy.mechanism not in PER_RECORD:
        return []
    return ["Where only some hospitals are asked in a round, each is priced as if it were always asked."]


def _delta(experiment: Experiment, count: int, who: str) -> list[str]:
    settings = experiment.privacy
    if not (settings.claims or settings.mechanism == "central") or settings.delta < 1.0 / count:
        return []
    what = "hospitals" if settings.mechanism == "central" else f"{experiment.unit}s"
    return [
        f"Warning: privacy.delta {settings.delta:g} is not below 1/{count:,} ({settings.mechanism}: {who} has "
        f"{count:,} {what}): it would allow giving one of them away whole."
    ]


def rows_of(study: Study, settings: list[Setting], units: Mapping[str, int]) -> list[PlanRow]:
    """Return the rows of all settings; one that cannot be says why.

    Raises:
        InputError: if none can be.
    """
    found: list[PlanRow] = []
    for setting in settings:
        try:
            noise = _only_noise(study, settings, units, setting)
            found.append(row(study, setting, units, noise))
        except InputError as error:
            found.append(refused(setting, str(error)))
    if all(r.why for r in found):
        raise InputError(found[0].why)
    return found


def _only_noise(study: Study, settings: list[Setting], units: Mapping[str, int], setting: Setting) -> float | None:
    """Return the noise that `noise_only` takes: its own, or the largest of `local` at one of the budgets."""
    own = study.experiment.privacy
    if setting.mechanism != "noise_only" or (own.mechanism == "noise_only" and study.axes.noise_of is None):
        return None
    numbers = [s.budget for s in settings if isinstance(s.budget, float)]
    budget = study.axes.noise_of or min(numbers, default=None)
    if budget is None:
        raise InputError(
            "study.noise_of: mechanism 'noise_only' takes the noise of a budget, and the study names none; set it."
        )
    return max(t.noise_multiplier or 0.0 for t in row(study, Setting("local", budget), units).terms)
