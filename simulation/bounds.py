"""What each seat can make of a hospital's releases at most: formal bounds, without any training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
from scipy.stats import binom

import privacy
from configs import Experiment
from configs.sections import TWINS
from privacy.rdp import opacus_noise_multiplier
from server.central import central_plan

if TYPE_CHECKING:  # it imports torch, which no bound needs
    from clients.planning import Plan
    from simulation.setup import Setup

# A record takes part in more steps than this quantile says with probability .001.
FEW = 0.999
INSIDER = "that sum, by a hospital in it"


@final
@dataclass(frozen=True)
class Seen:
    """What a seat sees of one hospital's records.

    Attributes:
        who: the hospital, dataset or twin.
        what: which releases, in words.
        noise_multiplier: noise on the sum seen / clipping norm.
        sample_rate: of a record per step.
        steps: noisy steps seen.
        candidates: among how many the adversary has to find the record.
        pixels: of an image, None where it does not matter.
        norm: Euclidean norm of a typical image, intensities in [0, 1]; None where it is not known.
    """

    who: str
    what: str
    noise_multiplier: float
    sample_rate: float
    steps: int
    candidates: int
    pixels: int | None = None
    norm: float | None = None


@final
@dataclass(frozen=True)
class BoundRow:
    """The bounds on what a seat sees; probabilities, and what the pixels look like to somebody without a prior.

    Attributes:
        seen: what is bounded.
        delta: of epsilon.
        epsilon: upper end; None where nothing is claimed.
        epsilon_opacus_rdp: what opacus' accountant would print.
        worst_case: bound on the probability of picking the record out of the candidates.
        relaxed: the same for a weaker attacker; no guarantee.
        participations: of a record, 999 of 1,000 have at most so many.
        ncc: mean uncentred correlation of the best reading without a prior, None without a pixel count.
        psnr: PSNR in dB that one such reading in a hundred exceeds, None without a norm or without noise.
    """

    seen: Seen
    delta: float
    epsilon: float | None
    epsilon_opacus_rdp: float | None
    worst_case: float
    relaxed: float
    participations: int
    ncc: float | None
    psnr: float | None

    def to_json(self) -> dict[str, Any]:
        """Return one flat row."""
        return {**asdict(self.seen), **{k: v for k, v in asdict(self).items() if k != "seen"}}


def bound(seen: Seen, delta: float) -> BoundRow:
    """Compute every bound on what is seen.

    Guarantee: `worst_case` holds against whoever sees these steps and knows everything but which candidate.
    Assumes: the noise is Gaussian on a sum of vectors clipped to C, and records are drawn independently.
    Edge cases: without noise epsilon is None and the bounds are those of a noiseless run.
    """
    terms: dict[str, Any] = {
        "noise_multiplier": seen.noise_multiplier,
        "sample_rate": seen.sample_rate,
        "steps": seen.steps,
    }
    price = privacy.epsilon(**terms, delta=delta)
    claimed = math.isfinite(price.upper)
    often = max(1, int(binom.ppf(FEW, seen.steps, seen.sample_rate)))
    ncc = psnr = None
    if seen.pixels is not None:
        reading = privacy.no_prior_bound(
            noise_multiplier=seen.noise_multiplier, pixels=seen.pixels, norm=seen.norm or 1.0, participations=often
        )
        ncc = reading.ncc_mean
        if seen.norm is not None and seen.noise_multiplier > 0:
            psnr = reading.psnr_quantile(0.99)
    # One candidate is found by whoever knows that there is no other.
    worst, relaxed = (1.0, 1.0) if seen.candidates == 1 else _probabilities(terms, 1.0 / seen.candidates)
    return BoundRow(
        seen=seen,
        delta=delta,
        epsilon=price.upper if claimed else None,
        epsilon_opacus_rdp=price.opacus_rdp if claimed else None,
        worst_case=worst,
        relaxed=relaxed,
        participations=often,
        ncc=ncc,
        psnr=psnr,
    )


def _probabilities(terms: dict[str, Any], prior: float) -> tuple[float, float]:
    return (
        privacy.reconstruction_bound(**terms, prior=prior, threat="worst_case"),
        privacy.reconstruction_bound(**terms, prior=prior, threat="relaxed"),
    )


def experiment_bounds(setup: "Setup", candidates: int | None = None) -> tuple[list[BoundRow], list[str]]:
    """Return the bounds of every hospital of an experiment and of its pooled twin, and what has none, in words.

    Under `distributed` what is seen is a sum that still holds the noise the ledgers are charged with, whatever the
    tolerated colluders and dropouts take off it, and larger sums. Under `central` what is bounded is the chance of
    picking a whole hospital out of all; and, without noise, what the server sees of each record.

    Args:
        setup: the experiment with its plans.
        candidates: among how many a record has to be found; None: as many as the hospital has units.
    """
    experiment, plans = setup.experiment, setup.plans
    mechanism = experiment.privacy.mechanism
    if mechanism == "noise_only":
        return [], ["noise_only bounds nothing: without clipping an image's share of the sum has no limit."]
    images = {"pixels": math.prod(setup.task.shape), "norm": typical_norm(setup)}
    notes: list[str] = []
    seen = _hospitals(setup) if mechanism == "central" else []
    for plan in plans.values():
        views = _shared_noise(setup, plan) if mechanism == "distributed" else _own_noise(setup, plan)
        seen += [_seen(plan, what, noise, steps, candidates or plan.units, images) for what, noise, steps in views]
    if mechanism == "central":
        notes.append("The server is sent every update without noise; the bound for whole hospitals is not against it.")
    elif mechanism not in TWINS and len(plans) > 1:
        notes += _missing_sums(experiment, fewest_in_a_sum(experiment, len(plans)))
    if experiment.training.secure_sum and mechanism != "distributed":
        notes.append("In a secure sum nobody holds one hospital's releases; those rows hold if all others collude.")
    if experiment.privacy.epsilon == "none":
        notes.append("epsilon 'none': nothing is clipped or noised, and nothing is claimed.")
    if len(plans) > 1 and experiment.privacy.claims:
        seen += _pooled(setup, candidates, images)
    return [bound(one, experiment.privacy.delta) for one in seen], notes


def fewest_in_a_sum(experiment: Experiment, hospitals: int) -> int:
    """Return of how few hospitals the sum of a round may be, of so many.

    Of a secure sum: with how few it is opened, however few advertised their keys. A server may pass on no more
    advertisements than that, so that the share of those taking part does not help.
    """
    if experiment.training.secure_sum:
        return experiment.sum_threshold(hospitals, 0)
    return experiment.training.fewest_releases(hospitals)


def _own_noise(setup: "Setup", plan: "Plan") -> list[tuple[str, float, int]]:
    """Return (what is seen, noise, steps) where each place adds all its own noise."""
    experiment = setup.experiment
    local_steps, s = experiment.training.local_steps, plan.noise_multiplier
    if experiment.privacy.mechanism in TWINS:  # nothing but models leave
        return [("the step of one round", s, local_steps), ("the steps of all rounds", s, plan.steps)]
    views = [("one release", s, local_steps), ("all its releases", s, plan.steps)]
    least = fewest_in_a_sum(experiment, len(setup.plans))
    if local_steps == 1 and least > 1 and plan.claims:
        others = sorted(p.noise_multiplier**2 for p in setup.plans.values() if p.hospital != plan.hospital)
        # The others are taken to be the quietest; whoever takes its own noise off the sum is one of them, and leaves
        # at worst the quietest of those that are left.
        for what, left in ((_sum_of(least), least - 1), (INSIDER, least - 2)):
            views.append((what, math.sqrt(s**2 + math.fsum(others[: max(0, left)])), plan.steps))
    return views


def _shared_noise(setup: "Setup", plan: "Plan") -> list[tuple[str, float, int]]:
    """Return (what is seen, noise, steps) where hospitals add shares of one noise, all alike, inside a secure sum."""
    experiment = setup.experiment
    settings, least = experiment.privacy, fewest_in_a_sum(experiment, len(setup.plans))
    lost = f"{settings.colluders} colluders and {settings.dropouts} dropouts taken off"
    views = [
        (f"one sum, {lost}", plan.noise_multiplier, 1),
        (f"all sums, {lost}", plan.noise_multiplier, plan.steps),
        (_sum_of(least), plan.added * math.sqrt(least), plan.steps),
    ]
    if least > 1:
        views.append((INSIDER, plan.added * math.sqrt(least - 1), plan.steps))
    return views


def _sum_of(least: int) -> str:
    return f"the sum of {least} or more hospitals"


def _hospitals(setup: "Setup") -> list[Seen]:
    """Return what receivers of the models see of a whole hospital under `central`."""
    count = len(setup.plans)
    plan = central_plan(setup.experiment, count)
    return [
        Seen("a whole hospital", what, plan.noise_multiplier, plan.sample_rate, steps, count)
        for what, steps in (("the model after one round", 1), ("the models of all rounds", plan.steps))
    ]


def _missing_sums(experiment: Experiment, least: int) -> list[str]:
    """Say why there is no row for the sum, where there is none."""
    local_steps = experiment.training.local_steps
    if local_steps > 1:
        return [
            f"With {local_steps} local steps a round the sum over hospitals protects no better than one hospital's own "
            f"noise: later steps start from a point that only that noise hides. No row is printed for it."
        ]
    if least == 1:
        return [
            "A round counts with a single release (training.quorum, training.cohort), so a sum may hold one hospital's "
            "noise only. No row is printed for it."
        ]
    return []


def _seen(plan: "Plan", what: str, noise: float, steps: int, candidates: int, images: Mapping[str, Any]) -> Seen:
    return Seen(plan.hospital, what, noise, plan.sample_rate, steps, candidates, **images)


def _pooled(setup: "Setup", candidates: int | None, images: Mapping[str, Any]) -> list[Seen]:
    """One hospital with everybody's records: at the same budget, and at the same noise on the mean gradient.

    It sees as many examples a step as an average cohort.
    """
    from simulation.budgets_plan_noise import noise_on_mean

    experiment, plans = setup.experiment, list(setup.plans.values())
    units, steps = sum(p.units for p in plans), plans[0].steps
    asked = experiment.cohort_size(len(plans)) / len(plans)
    batch = asked * math.fsum(p.expected_batch for p in plans)
    rate = min(1.0, batch / units)
    alike = noise_on_mean(experiment, plans) * batch / experiment.privacy.clipping_norm
    rows = [("all rounds, equal noise on the mean gradient", alike)]
    if experiment.privacy.budget is not None:
        noise = privacy.noise_multiplier(
            epsilon=experiment.privacy.budget, delta=experiment.privacy.delta, sample_rate=rate, steps=steps
        )
        rows.insert(0, ("all rounds, equal epsilon", noise))
    return [Seen("pooled twin", what, noise, rate, steps, candidates or units, **images) for what, noise in rows]


def typical_norm(setup: "Setup", most: int = 500) -> float:
    """Return the median Euclidean norm of held-out images with intensities in [0, 1]."""
    rows = np.linspace(0, len(setup.heldout) - 1, num=min(most, len(setup.heldout))).astype(np.int64)
    pixels = setup.heldout.pixels(rows).reshape(len(rows), -1).astype(np.float64) / 255.0
    mean_square = float(np.median(np.mean(pixels**2, axis=1)))
    return math.sqrt(mean_square * math.prod(setup.task.shape))


@final
@dataclass(frozen=True)
class PaperSetting:
    """One dataset as the paper trained on it: sample rate, steps, number of training images or scans, pixels."""

    name: str
    sample_rate: float
    steps: int
    records: int
    pixels: int


# Ziller et al. 2024: effective batches 3328, 2048 and 1, epochs 50, (300 steps) and 500. The number of RadImageNet's
# training images is assumed (811,707 gives the sample rate .0041).
PAPER = (
    PaperSetting("RadImageNet", 0.0041, 12200, 811_707, 224 * 224),
    PaperSetting("HAM10000", 0.2534, 300, 8082, 3 * 224 * 224),
    PaperSetting("MSD Liver", 0.00943, 53000, 106, 128 * 128 * 50),
)
PAPER_DELTA = 8e-7
PAPER_BUDGETS = (1.0, 8.0, 20.0, 32.0, 1e3, 1e6, 1e9, 1e12)


def paper_bounds(
    budgets: Sequence[float] = PAPER_BUDGETS, candidates: int | None = None
) -> list[tuple[float, BoundRow]]:
    """Return (budget as the paper printed it, bounds at the noise it trained with) for its three datasets.

    The noise is the one at which opacus' RDP accountant prints the budget, as the paper's code did; the row's
    epsilon is the exact one of that noise. Candidates: as many as there are training records, or as given.
    """
    rows: list[tuple[float, BoundRow]] = []
    for setting in PAPER:
        for budget in budgets:
            noise = opacus_noise_multiplier(
                epsilon=budget, delta=PAPER_DELTA, sample_rate=setting.sample_rate, steps=setting.steps
            )
            seen = Seen(
                setting.name,
                "all steps",
                noise,
                setting.sample_rate,
                setting.steps,
                candidates or setting.records,
                setting.pixels,
            )
            rows.append((budget, bound(seen, PAPER_DELTA)))
    return rows
