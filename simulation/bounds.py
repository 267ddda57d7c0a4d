"""What each seat can make of a hospital's releases at most: formal bounds, without any training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
from scipy.stats import binom

import privacy
from privacy.rdp import opacus_noise_multiplier

if TYPE_CHECKING:  # they import torch, which no bound needs
    from clients.planning import Plan
    from simulation.setup import Setup

# A record takes part in more steps than this quantile says with probability .001.
FEW = 0.999


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

    Args:
        setup: the experiment with its plans.
        candidates: among how many a record has to be found; None: as many as the hospital has units.
    """
    experiment = setup.experiment
    if experiment.privacy.mechanism == "noise_only":
        return [], ["noise_only bounds nothing: without clipping an image's share of the sum has no limit."]
    images = {"pixels": math.prod(setup.task.shape), "norm": typical_norm(setup)}
    local_steps, notes = experiment.training.local_steps, list[str]()
    least = experiment.training.fewest_releases(len(setup.plans))
    seen: list[Seen] = []
    for plan in setup.plans.values():
        n = candidates or plan.units
        seen.append(_seen(plan, "one release", plan.noise_multiplier, local_steps, n, images))
        seen.append(_seen(plan, "all its releases", plan.noise_multiplier, plan.steps, n, images))
        if local_steps == 1 and least > 1 and plan.claims:
            for what, noise in _sums(plan, setup.plans, least):
                seen.append(_seen(plan, what, noise, plan.steps, n, images))
    if local_steps > 1 and len(setup.plans) > 1:
        notes.append(
            f"With {local_steps} local steps a round the sum over hospitals protects no better than one hospital's own "
            f"noise: later steps start from a point that only that noise hides. No row is printed for it."
        )
    elif least == 1 and len(setup.plans) > 1:
        notes.append(
            "A round counts with a single release (training.quorum, training.cohort), so a sum may hold one hospital's "
            "noise only. No row is printed for it."
        )
    if len(setup.plans) > 1 and experiment.privacy.claims:
        seen += _pooled(setup, candidates, images)
    return [bound(one, experiment.privacy.delta) for one in seen], notes


def _seen(plan: "Plan", what: str, noise: float, steps: int, candidates: int, images: Mapping[str, Any]) -> Seen:
    return Seen(plan.hospital, what, noise, plan.sample_rate, steps, candidates, **images)


def _sums(plan: "Plan", plans: "Mapping[str, Plan]", least: int) -> list[tuple[str, float]]:
    """Noise on the sum of releases in a round of the fewest hospitals that count, and what another one leaves of it.

    The others are taken to be the quietest; the one who takes its own noise off the sum is one of them.
    """
    own = plan.noise_multiplier**2
    others = sorted(p.noise_multiplier**2 for p in plans.values() if p.hospital != plan.hospital)
    # Whoever takes off its own noise leaves the others': at worst the quietest of those that are left.
    return [
        (f"the sum of {least} or more hospitals", math.sqrt(own + math.fsum(others[: least - 1]))),
        ("that sum, by a hospital in it", math.sqrt(own + math.fsum(others[: max(0, least - 2)]))),
    ]


def _pooled(setup: "Setup", candidates: int | None, images: Mapping[str, Any]) -> list[Seen]:
    """One hospital with everybody's records: at the same budget, and at the largest noise of the federation."""
    experiment, plans = setup.experiment, list(setup.plans.values())
    units = sum(p.units for p in plans)
    rate, steps = min(1.0, sum(p.expected_batch for p in plans) / units), plans[0].steps
    loudest = max(p.noise_multiplier for p in plans)
    rows = [("all rounds, equal noise", loudest)]
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
