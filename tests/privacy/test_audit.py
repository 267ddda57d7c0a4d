"""The audit's statistics against published figures, mechanisms of known epsilon, closed forms and calibration."""

import math
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, ndtr, ndtri

import privacy
from privacy.audit import (
    Hits,
    curve_bound,
    dispersion_p_value,
    noise_p_value,
    one_run_bound,
    one_run_p_value,
)


def paper_p_value(m: int, r: int, v: int, odds: Fraction, delta: Fraction) -> Fraction:
    """Theorem 5.2 in exact fractions, odds = e^eps / (1 + e^eps)."""
    chance = [math.comb(r, k) * odds**k * (1 - odds) ** (r - k) for k in range(r + 1)]
    worst = max((sum(chance[v - i : v]) / i for i in range(1, v + 1)), default=Fraction(0))
    return min(Fraction(1), sum(chance[v:]) + 2 * m * delta * worst)


def test_the_published_example() -> None:
    # Steinke, Nasr and Jagielski 2023, appendix D: 75 of 100 guesses among 1000 canaries, delta 1e-4, 95 %.
    bound = one_run_bound(canaries=1000, guesses=100, correct=75, delta=1e-4, confidence=0.95)
    assert bound == pytest.approx(0.673, abs=5e-4)


@pytest.mark.parametrize(("m", "r", "v"), [(20, 10, 7), (20, 10, 10), (20, 20, 0), (50, 3, 3), (7, 7, 4), (5, 0, 0)])
@pytest.mark.parametrize("delta", [Fraction(0), Fraction(1, 10_000), Fraction(1, 50)])
def test_p_values_are_those_of_the_theorem(m: int, r: int, v: int, delta: Fraction) -> None:
    for odds in (Fraction(1, 2), Fraction(3, 4), Fraction(999, 1000)):
        epsilon = math.log(odds / (1 - odds))
        got = one_run_p_value(canaries=m, guesses=r, correct=v, epsilon=epsilon, delta=float(delta))
        assert got == pytest.approx(float(paper_p_value(m, r, v, odds, delta)), rel=1e-9)


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 3.0])
def test_randomised_response_is_covered_and_nearly_tight(epsilon: float) -> None:
    # Pure (epsilon, 0) and the worst mechanism of all: every answer is right with e^eps / (1 + e^eps).
    confidence, m = 0.9, 400
    outcomes = np.arange(m + 1)
    chance = stats.binom.pmf(outcomes, m, expit(epsilon))
    likely = outcomes[chance > 1e-9]
    bounds = [
        one_run_bound(canaries=m, guesses=m, correct=int(v), delta=0.0, confidence=confidence) for v in likely.tolist()
    ]
    above = float(chance[likely][np.array(bounds) > epsilon].sum())
    assert 0.03 < above <= 1 - confidence + 1e-9


def test_a_mechanism_that_sometimes_tells_all_is_covered_at_its_delta() -> None:
    # With probability delta everything leaks: (0, delta)-DP for dependent canaries. Enumerated: 6 canaries.
    m, delta = 6, 0.02
    for level in (0.02, 0.05, 0.2):
        wrong = 0.0
        for coins in product((0, 1), repeat=m):
            correct = sum(coins)  # the mechanism leaks nothing and the guess is always "in"
            p = one_run_p_value(canaries=m, guesses=m, correct=correct, epsilon=0.0, delta=delta)
            leaked = one_run_p_value(canaries=m, guesses=m, correct=m, epsilon=0.0, delta=delta)
            wrong += ((1 - delta) * (p <= level) + delta * (leaked <= level)) / 2**m
        assert wrong <= level


def test_more_right_guesses_never_lower_the_bound_and_more_delta_never_raises_it() -> None:
    bounds = [one_run_bound(canaries=500, guesses=60, correct=v, delta=1e-4, confidence=0.95) for v in range(61)]
    assert bounds[30] == 0.0
    assert all(a <= b for a, b in pairwise(bounds))
    assert bounds[60] < -math.log(math.expm1(-math.log(0.05) / 60))  # all right: (1 + e^-eps)^-60 = .05
    looser = one_run_bound(canaries=500, guesses=60, correct=55, delta=1e-3, confidence=0.95)
    assert looser < bounds[55]


def test_many_right_guesses_keep_their_precision() -> None:
    # All of a million right: (1 - e)^r = .05 with e = 1/(1 + e^eps), in closed form.
    r = 1_000_000
    wrong = -math.expm1(math.log(0.05) / r)
    bound = one_run_bound(canaries=r, guesses=r, correct=r, delta=0.0, confidence=0.95)
    assert bound == pytest.approx(math.log((1 - wrong) / wrong), rel=1e-9)


def test_rates_are_clopper_pearson_of_scipy() -> None:
    most, least = Hits(80, 100, 7, 90).rates(0.9)
    assert least == pytest.approx(stats.binomtest(80, 100).proportion_ci(0.9).low, rel=1e-9)
    assert most == pytest.approx(stats.binomtest(7, 90).proportion_ci(0.9).high, rel=1e-9)
    assert Hits(0, 5, 5, 5).rates(0.9) == (1.0, 0.0)


def test_curve_bound_at_full_participation_is_that_of_a_gaussian() -> None:
    hits = Hits(9000, 10_000, 2000, 10_000)
    most, least = hits.rates(0.95)
    mu = float(ndtri(least) - ndtri(most))
    noise, epsilon = curve_bound(hits, sample_rate=1.0, steps=9, delta=1e-5, confidence=0.95)
    assert noise == pytest.approx(3 / mu, rel=5e-3)
    assert noise >= 3 / mu
    expected = privacy.epsilon(noise_multiplier=noise, sample_rate=1.0, steps=9, delta=1e-5).upper
    assert epsilon == pytest.approx(expected, rel=1e-6)
    assert curve_bound(Hits(50, 100, 50, 100), sample_rate=1.0, steps=9, delta=1e-5, confidence=0.95)[1] == 0.0


@pytest.mark.parametrize(("s", "q", "steps"), [(1.0, 1.0, 1), (0.7, 0.3, 2)])
def test_curve_bound_covers_simulated_tests(s: float, q: float, steps: int) -> None:
    rng = np.random.default_rng(4)
    n, confidence, missed, found = 2000, 0.9, 0, []
    truth = privacy.epsilon(noise_multiplier=s, sample_rate=q, steps=steps, delta=1e-5).upper
    for _ in range(10):
        without = s * rng.standard_normal((steps, n))
        inside = (rng.random((steps, n)) < q) + s * rng.standard_normal((steps, n))
        score = [np.log(1 - q + q * np.exp((2 * x - 1) / (2 * s * s))).sum(axis=0) > 0 for x in (inside, without)]
        hits = Hits(int(score[0].sum()), n, int(score[1].sum()), n)
        epsilon = curve_bound(hits, sample_rate=q, steps=steps, delta=1e-5, confidence=confidence)[1]
        missed += epsilon > truth
        found.append(epsilon)
    assert missed <= 4  # more has probability 2e-3 if each misses with a tenth
    assert np.median(found) > 0.7 * truth


@pytest.mark.parametrize(("n", "q", "steps"), [(2000, 0.05, 40), (30, 0.05, 12), (500, 0.5, 300)])
def test_dispersion_is_calibrated(n: int, q: float, steps: int) -> None:
    rng = np.random.default_rng(3)
    p = [dispersion_p_value(rng.binomial(n, q, steps).tolist(), units=n, sample_rate=q) for _ in range(150)]
    assert stats.kstest(p, "uniform").pvalue > 1e-3


def test_dispersion_catches_fixed_and_dependent_batches() -> None:
    assert dispersion_p_value([20] * 5, units=200, sample_rate=0.1) < 1e-3
    assert dispersion_p_value([0, 200] * 10, units=200, sample_rate=0.5) < 1e-3
    assert dispersion_p_value([20], units=200, sample_rate=0.1) > 0.05
    assert dispersion_p_value([7, 7], units=7, sample_rate=1.0) == 1.0
    assert dispersion_p_value([7, 6], units=7, sample_rate=1.0) == 0.0


def test_noise_is_measured() -> None:
    rng = np.random.default_rng(5)
    p = [noise_p_value(3 * rng.standard_normal(500), deviation=3.0) for _ in range(300)]
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    assert noise_p_value(1.5 * rng.standard_normal(500), deviation=3.0) < 1e-12
    assert noise_p_value(np.zeros(4), deviation=3.0) == 0.0
    assert noise_p_value([3.0], deviation=3.0) == pytest.approx(2 * float(ndtr(1.0)) - 1)


BAD = [
    (lambda: one_run_bound(canaries=10, guesses=11, correct=1, delta=0.0, confidence=0.9), "guesses"),
    (lambda: one_run_bound(canaries=10, guesses=5, correct=6, delta=0.0, confidence=0.9), "correct"),
    (lambda: one_run_bound(canaries=0, guesses=0, correct=0, delta=0.0, confidence=0.9), "canaries"),
    (lambda: one_run_bound(canaries=10, guesses=5, correct=5, delta=0.0, confidence=1.0), "confidence"),
    (lambda: one_run_p_value(canaries=10, guesses=5, correct=5, epsilon=-1.0, delta=0.0), "epsilon"),
    (lambda: one_run_p_value(canaries=10, guesses=5, correct=5, epsilon=1.0, delta=math.nan), "delta"),
    (lambda: Hits(11, 10, 0, 10).rates(0.9), "inside_hits"),
    (lambda: dispersion_p_value([], units=5, sample_rate=0.5), "sizes"),
    (lambda: dispersion_p_value([6], units=5, sample_rate=0.5), "sizes"),
    (lambda: noise_p_value([math.nan], deviation=1.0), "noise"),
    (lambda: noise_p_value([1.0], deviation=0.0), "deviation"),
]


@pytest.mark.parametrize(("call", "names"), BAD, ids=[f"{i}-{b[1]}" for i, b in enumerate(BAD)])
def test_bad_arguments_are_named(call: object, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        call()  # type: ignore[operator]
