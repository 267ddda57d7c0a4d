"""Simulated adversaries against the bounds: none passes, and where the theory says so they come close.

A release is drawn as a hospital makes it: the record's clipped gradient (norm 1) where it was sampled, plus Gaussian
noise. Candidates are orthogonal (the score of each is one coordinate of the release) or two opposite directions. The
other records are known and subtracted.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import log_ndtr

import privacy
from tests.privacy.calls import Threat, bound

Array = npt.NDArray[np.float64]


def slack(limit: float, trials: int) -> float:
    """Three standard errors of a rate, and no less than three successes' worth."""
    return 3 * math.sqrt(limit * (1 - limit) / trials) + 3 / trials


def releases(rng: np.random.Generator, s: float, q: float, t: int, candidates: int, trials: int) -> Array:
    """Projections of every step's release on every candidate, [trials, t, candidates]; the truth is number 0."""
    seen = s * rng.standard_normal((trials, t, candidates))
    seen[:, :, 0] += rng.random((trials, t)) < q
    return seen


def likelihood(x: Array, s: float, q: float, threat: Threat = "worst_case") -> Array:
    """Log likelihood ratio of a run, summed over its steps (axis 1)."""
    shape = (2 * x - 1) / (2 * s * s)
    if threat == "relaxed":
        shape = np.logaddexp(x / s**2, -x / s**2) - math.log(2) - 0.5 / s**2
    with np.errstate(divide="ignore"):
        return np.logaddexp(np.log1p(-q), math.log(q) + shape).sum(axis=1)


def matched(rng: np.random.Generator, setting: tuple[float, float, int, int], trials: int, threat: Threat) -> float:
    """Rate at which the candidate of the highest likelihood is the truth; ties are drawn."""
    s, q, t, candidates = setting
    hits, chunk = 0.0, max(1, min(trials, 2_000_000 // (t * candidates)))
    for start in range(0, trials, chunk):
        score = likelihood(releases(rng, s, q, t, candidates, min(chunk, trials - start)), s, q, threat)
        best = score == score.max(axis=1, keepdims=True)
        hits += float(np.sum(best[:, 0] / best.sum(axis=1)))
    return hits / trials


def argmax_rate(shift: float, candidates: int) -> float:
    """E[Phi(shift + Z)^(candidates - 1)]: success of the best of independent scores, by quadrature."""
    z = np.linspace(-12.0, 12.0, 48_001)
    density = np.exp(-z * z / 2 + (candidates - 1) * log_ndtr(shift + z)) / math.sqrt(2 * math.pi)
    return float(np.sum(density) * (z[1] - z[0]))


@pytest.mark.parametrize(
    ("candidates", "steps", "trials"),
    [(10, 1, 200_000), (10, 20, 40_000), (100, 1, 100_000), (100, 20, 10_000), (1000, 1, 60_000)],
)
def test_matching_orthogonal_candidates_reaches_four_fifths_of_the_bound(
    candidates: int, steps: int, trials: int
) -> None:
    """Epsilon 8 at delta 1e-5, full participation. The mean of the releases is all that counts."""
    s = privacy.noise_multiplier(epsilon=8.0, delta=1e-5, sample_rate=1.0, steps=steps)
    limit = bound(s, 1.0, steps, 1 / candidates)
    expected = argmax_rate(math.sqrt(steps) / s, candidates)
    assert 0.80 * limit <= expected < limit
    rate = matched(np.random.default_rng(candidates), (s, 1.0, steps, candidates), trials, "worst_case")
    assert rate <= limit + slack(limit, trials)
    assert rate == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / trials))
    assert rate >= 0.80 * limit


@pytest.mark.parametrize("s", [0.2, 0.6, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("candidates", [2, 10, 100, 10_000])
def test_orthogonal_candidates_stay_below_at_any_noise(s: float, candidates: int) -> None:
    assert argmax_rate(1 / s, candidates) <= bound(s, 1.0, 1, 1 / candidates)


@pytest.mark.parametrize(("s", "steps"), [(0.7, 1), (1.0, 1), (3.0, 1), (2.0, 4), (8.0, 30), (0.1, 1)])
def test_two_opposite_candidates_come_within_two_percent(s: float, steps: int) -> None:
    """Candidates at +1 and -1 are 2 apart, and either is 1 away from the record left out: the bound is met."""
    trials = 4_000_000 // steps
    rng = np.random.default_rng(steps)
    rate = float(np.mean((1.0 + s * rng.standard_normal((trials, steps))).sum(axis=1) > 0))
    limit = bound(s, 1.0, steps, 0.5)
    assert limit * 0.98 <= rate <= limit + slack(limit, trials)


SAMPLED = [
    (0.8, 0.1, 30, 10),
    (1.0, 0.3, 20, 100),
    (0.5, 0.05, 50, 10),
    (0.3, 0.01, 100, 10),
    (3.0, 0.5, 40, 50),
    (4.0, 0.073, 1368, 10),
    (0.05, 0.02, 40, 20),
    (0.6, 0.9, 3, 1000),
]


@pytest.mark.parametrize("threat", ["worst_case", "relaxed"])
@pytest.mark.parametrize("setting", SAMPLED, ids=str)
def test_matching_by_likelihood_under_sampling(setting: tuple[float, float, int, int], threat: Threat) -> None:
    """Likelihood matching is the best there is for candidates alike, blind to the sign or not."""
    s, q, t, candidates = setting
    trials = min(20_000, 8_000_000 // (t * candidates))
    rate = matched(np.random.default_rng(t), setting, trials, threat)
    limit = bound(s, q, t, 1 / candidates, threat)
    assert rate <= limit + slack(limit, trials)
    # Far from idle: three quarters of what is allowed beyond guessing is not reached everywhere, a quarter is.
    assert rate - 1 / candidates >= 0.25 * (limit - 1 / candidates) - slack(limit, trials)


@pytest.mark.parametrize(("q", "t", "candidates"), [(0.02, 40, 10), (0.3, 2, 4), (0.0041, 300, 100), (1e-3, 50, 2)])
@pytest.mark.parametrize("s", [1e-6, 1e-3, 0.02])
def test_at_tiny_noise_the_bound_is_met(s: float, q: float, t: int, candidates: int) -> None:
    """Whoever took part is known, whoever never did is guessed: 1 - (1 - q)^T (1 - 1/candidates)."""
    trials = 4_000_000 // (t * candidates)
    limit = bound(s, q, t, 1 / candidates)
    assert limit == pytest.approx(1 - (1 - q) ** t * (1 - 1 / candidates), rel=1e-6)
    rate = matched(np.random.default_rng(t), (s, q, t, candidates), trials, "worst_case")
    assert rate == pytest.approx(limit, abs=slack(limit, trials))


@pytest.mark.parametrize(("s", "q", "t"), [(0.8, 0.1, 30), (2.0, 0.5, 40), (0.3, 0.05, 20), (0.02, 0.05, 20)])
def test_two_opposite_candidates_under_sampling(s: float, q: float, t: int) -> None:
    rng = np.random.default_rng(3)
    trials = 100_000
    x = s * rng.standard_normal((trials, t)) + (rng.random((trials, t)) < q)
    evidence = likelihood(x, s, q) - likelihood(-x, s, q)
    rate = float(np.mean(evidence > 0) + 0.5 * np.mean(evidence == 0))
    limit = bound(s, q, t, 0.5)
    assert 0.5 < rate <= limit + slack(limit, trials)


def _sum(x: Array) -> Array:
    return x.sum(axis=1)


def _largest(x: Array) -> Array:
    return x.max(axis=1)


@pytest.mark.parametrize("score", [_sum, _largest])
@pytest.mark.parametrize("setting", SAMPLED[:5], ids=str)
def test_other_scores_do_not_pass_either(
    setting: tuple[float, float, int, int], score: Callable[[Array], Array]
) -> None:
    s, q, t, candidates = setting
    trials = min(10_000, 4_000_000 // (t * candidates))
    seen = releases(np.random.default_rng(4), s, q, t, candidates, trials)
    limit = bound(s, q, t, 1 / candidates)
    assert np.mean(score(seen).argmax(axis=1) == 0) <= limit + slack(limit, trials)


@pytest.mark.parametrize("threat", ["worst_case", "relaxed"])
@pytest.mark.parametrize(("s", "q", "t", "prior"), [(0.8, 0.1, 30, 0.05), (1.0, 1.0, 1, 0.05), (2.0, 0.5, 40, 0.1)])
def test_the_best_test_itself_meets_the_bound(s: float, q: float, t: int, prior: float, threat: Threat) -> None:
    """Threshold from runs without the record, power from runs with it: what a candidate set cannot exceed."""
    rng = np.random.default_rng(5)
    runs = min(400_000, 2_000_000 // t)
    null = np.sort(likelihood(s * rng.standard_normal((runs, t)), s, q, threat))
    present = np.sort(likelihood(s * rng.standard_normal((runs, t)) + (rng.random((runs, t)) < q), s, q, threat))

    def power(level: float) -> float:
        return 1.0 - float(np.searchsorted(present, null[int((1 - level) * runs)])) / runs

    limit = bound(s, q, t, prior, threat)
    # The threshold's own error moves the level by one s.e., and so the power by as much as between those levels.
    wrong = 3 * math.sqrt(prior * (1 - prior) / runs)
    assert power(prior - wrong) - slack(limit, runs) <= limit <= power(prior + wrong) + slack(limit, runs)
