"""An empirical audit of a hospital's own DP-SGD: canaries by coin flips, guessed again from what it releases.

It runs `clients.local.local_update` as a hospital does. It can refute what the ledger claims; it proves nothing.
"""

from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

import privacy
from clients.gradients import GradientEngine
from clients.local import local_update
from clients.planning import Plan
from configs.sections import TrainingSettings
from configs.seeds import HOSPITALS, derive, root_of
from privacy.audit import Hits, curve_bound, dispersion_p_value, noise_p_value, one_run_bound
from simulation.canaries import WEIGHT, CanaryModel, audit_records
from tasks.base import Records

# Each test gets an equal share of the error that all together may make.
TESTS = 4
# Releases of a hospital without records, which must be noise.
SILENT = 4


@final
@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        canaries: m, each in the hospital by a fair coin.
        units: the audited hospital's number of units: canaries that are in, and ordinary records.
        steps: noisy steps that were run; `claimed` is the price of these.
        planned_steps: steps of the hospital's plan.
        sample_rate: q.
        noise_multiplier: s, as planned.
        delta: of all epsilons here.
        confidence: all tests together err with at most 1 - confidence.
        claimed: the ledger's price.
        guesses: r, fixed before the run.
        correct: how many of them were right.
        one_run_epsilon: lower bound, Steinke, Nasr and Jagielski 2023; canaries may depend on each other.
        curve_epsilon: lower bound by the trade-off curve; canaries are taken to be independent.
        dispersion: sum of squared deviations of batch sizes over its expectation; None at q = 1.
        dispersion_p: p-value of the batch sizes against Poisson sampling.
        noise_ratio: noise measured at a hospital without records, over the planned.
        noise_p: p-value against noise that is too small.
        refuted: a sentence for each test that contradicts the claim.
    """

    canaries: int
    units: int
    steps: int
    planned_steps: int
    sample_rate: float
    noise_multiplier: float
    delta: float
    confidence: float
    claimed: privacy.Epsilon
    guesses: int
    correct: int
    one_run_epsilon: float
    curve_epsilon: float
    dispersion: float | None
    dispersion_p: float
    noise_ratio: float
    noise_p: float
    refuted: tuple[str, ...]


@final
@dataclass(frozen=True)
class _Guessing:
    """How many of the most and of the least suspicious canaries are guessed to be in, and out."""

    inside: int
    outside: int


@final
@dataclass(frozen=True)
class _Observed:
    """Scores (2, m) under the claimed and under half the noise; units; batch sizes (T,); noise of silent releases."""

    scores: NDArray[np.float64]
    units: int
    sizes: list[int]
    noise: NDArray[np.float64]


def audit_plan(
    plan: Plan,
    training: TrainingSettings,
    *,
    delta: float,
    canaries: int = 4000,
    steps: int | None = None,
    confidence: float = 0.99,
    seed: int = 0,
) -> Audit:
    """Audit the mechanism of one hospital's plan.

    Args:
        plan: a plan that clips and adds noise; its rate, clip and noise are what is audited.
        training: views and flips, as configured. Every step is released by itself: the ledger's adversary sees it.
        delta: of the claim.
        canaries: m.
        steps: noisy steps to run; all of the plan's if None.
        confidence: of all tests together.
        seed: of coins, sampling and noise.

    Raises:
        ValueError: a plan that claims nothing, or a wrong argument.
    """
    if not plan.claims or plan.clipping_norm is None or plan.noise_multiplier == 0:
        raise ValueError("plan claims no epsilon, so there is nothing to audit")
    if not 100 <= canaries < 2**24:
        raise ValueError(f"canaries must be in [100, 2^24), not {canaries}")
    count = plan.steps if steps is None else min(steps, plan.steps)
    share = 1.0 - (1.0 - confidence) / TESTS
    coins = np.random.default_rng(derive(seed, "audit", "coins")).random(canaries) < 0.5
    guessing = _rehearse(plan, count, canaries, delta, share, seed)
    observed = _observe(plan, training, coins, count, root_of(seed, HOSPITALS))
    most = np.argsort(-observed.scores[1], kind="stable")
    right = coins[most[: guessing.inside]].sum() + (~coins[most[canaries - guessing.outside :]]).sum()
    guesses = guessing.inside + guessing.outside
    audit = Audit(
        canaries=canaries,
        units=observed.units,
        steps=count,
        planned_steps=plan.steps,
        sample_rate=plan.sample_rate,
        noise_multiplier=plan.noise_multiplier,
        delta=delta,
        confidence=confidence,
        claimed=privacy.epsilon(
            noise_multiplier=plan.noise_multiplier, sample_rate=plan.sample_rate, steps=count, delta=delta
        ),
        guesses=guesses,
        correct=int(right),
        one_run_epsilon=one_run_bound(
            canaries=canaries, guesses=guesses, correct=int(right), delta=delta, confidence=share
        ),
        curve_epsilon=_curve(observed.scores, coins, plan, count, delta, share),
        dispersion=_dispersion(observed.sizes, observed.units, plan.sample_rate),
        dispersion_p=dispersion_p_value(observed.sizes, units=observed.units, sample_rate=plan.sample_rate),
        noise_ratio=float(np.sqrt(np.mean(observed.noise**2))) / plan.noise_std,
        noise_p=noise_p_value(observed.noise, deviation=plan.noise_std),
        refuted=(),
    )
    return replace(audit, refuted=_refuted(audit, 1.0 - share))


def _scores(seen: NDArray[np.float64], plan: Plan) -> NDArray[np.float64]:
    """Return each canary's log likelihood ratio of one release, (2, m): at the claimed noise and at half of it.

    `seen`, (m,), are the canaries' own coordinates in clipping norms: N(1 with probability q, else 0; s^2).
    """
    noise = plan.noise_multiplier * np.array([[1.0], [0.5]])
    ratio = (2.0 * seen - 1.0) / (2.0 * noise**2)
    if plan.sample_rate == 1.0:
        return ratio
    return np.logaddexp(np.log1p(-plan.sample_rate), np.log(plan.sample_rate) + ratio)


def _rehearse(plan: Plan, steps: int, canaries: int, delta: float, confidence: float, seed: int) -> _Guessing:
    """Fix the number of guesses before the run: what serves best if the noise were half of what is claimed.

    It simulates numbers and touches neither hospital nor coins, so the one-run theorem's condition holds.
    """
    rng = np.random.default_rng(derive(seed, "audit", "rehearsal"))
    inside = rng.random(canaries) < 0.5
    score = np.zeros(canaries)
    for _ in range(steps):
        present = inside & (rng.random(canaries) < plan.sample_rate)
        score += _scores(present + 0.5 * plan.noise_multiplier * rng.standard_normal(canaries), plan)[1]
    order = np.argsort(-np.abs(score), kind="stable")
    sure = np.cumsum(1.0 / (1.0 + np.exp(-np.abs(score[order]))))
    best, guesses = -1.0, canaries
    for r in np.unique(np.geomspace(8, canaries, 30).astype(int)).tolist():
        expected = min(r, round(float(sure[r - 1])))
        bound = one_run_bound(canaries=canaries, guesses=r, correct=expected, delta=delta, confidence=confidence)
        if bound > best:
            best, guesses = bound, r
    positive = int(np.count_nonzero(score[order[:guesses]] > 0.0))
    return _Guessing(positive, guesses - positive)


def _observe(plan: Plan, training: TrainingSettings, coins: NDArray[np.bool_], steps: int, root: str) -> _Observed:
    """Run the hospital's own update for every step and read the canaries' coordinates."""
    clip = plan.clipping_norm or 1.0
    records = audit_records(coins)
    model = CanaryModel(len(coins), clip)
    engine = GradientEngine(model, "binary")
    training = training.model_copy(update={"local_steps": 1, "rounds": steps + SILENT})
    terms = replace(
        plan,
        hospital="audit",
        units=len(records),
        records=len(records),
        expected_batch=plan.sample_rate * len(records),
        steps=steps + SILENT,
    )

    def release(round_number: int, held: Records) -> NDArray[np.float64]:
        return local_update(
            engine=engine,
            weights=model.zeros(),
            records=held,
            unit_rows=held.unit_rows("image"),
            plan=terms,
            training=training,
            root=root,
            run="audit",
            round_number=round_number,
            broadcast="audit",
            size=(1, 1),
        )[WEIGHT].ravel()

    scores = np.zeros((2, len(coins)))
    sizes: list[int] = []
    for step in range(1, steps + 1):
        scores += _scores(release(step, records)[: len(coins)] / clip, plan)
        sizes.append(model.counted() // training.views)
    nobody = records.take([])
    noise = np.concatenate([release(steps + 1 + extra, nobody) for extra in range(SILENT)])
    return _Observed(scores, len(records), sizes, noise)


def _curve(
    scores: NDArray[np.float64], coins: NDArray[np.bool_], plan: Plan, steps: int, delta: float, confidence: float
) -> float:
    """Return the better of two bounds: of who believes the claim, and of who suspects half the noise."""
    each = 1.0 - 0.5 * (1.0 - confidence)
    bounds: list[float] = []
    for score in scores:
        said = score > 0.0
        hits = Hits(
            inside_hits=int(np.count_nonzero(said & coins)),
            inside=int(np.count_nonzero(coins)),
            outside_hits=int(np.count_nonzero(said & ~coins)),
            outside=int(np.count_nonzero(~coins)),
        )
        bounds.append(curve_bound(hits, sample_rate=plan.sample_rate, steps=steps, delta=delta, confidence=each)[1])
    return max(bounds)


def _dispersion(sizes: list[int], units: int, rate: float) -> float | None:
    if rate == 1.0:
        return None
    return float(np.mean((np.array(sizes) - units * rate) ** 2)) / (units * rate * (1.0 - rate))


def _refuted(audit: Audit, level: float) -> tuple[str, ...]:
    """Return a sentence for each test that contradicts the claim at its share of the error."""
    claim = f"the claimed {audit.claimed.upper:.4g} at delta {audit.delta:g}"
    found: list[str] = []
    if audit.one_run_epsilon > audit.claimed.upper:
        found.append(f"guesses in one run need epsilon above {audit.one_run_epsilon:.4g}, more than {claim}")
    if audit.curve_epsilon > audit.claimed.upper:
        found.append(f"hits on canaries need epsilon above {audit.curve_epsilon:.4g}, more than {claim}")
    if audit.dispersion_p <= level:
        found.append(f"batch sizes are not those of Poisson sampling (p = {audit.dispersion_p:.2g})")
    if audit.noise_p <= level:
        found.append(f"noise is {audit.noise_ratio:.4g} of what was planned (p = {audit.noise_p:.2g})")
    return tuple(found)
