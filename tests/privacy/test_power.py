"""Reconstruction bounds against a sorted brute force, design values, simulated tests and limits."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import chi2, ncx2

import privacy
from privacy.rdp import opacus_epsilon


def bound(s: float, q: float, t: int, prior: float, threat: str) -> float:
    return privacy.reconstruction_bound(
        noise_multiplier=s,
        sample_rate=q,
        steps=t,
        prior=prior,
        threat=threat,  # type: ignore[arg-type]
    )


def brute(s: float, q: float, prior: float, threat: str, cells: int = 2001) -> float:
    """Power of the best level-``prior`` test after two steps: all pairs of cells, sorted by likelihood ratio."""
    low = -(1 + 9 * s) if threat == "relaxed" else -9 * s
    edges = np.linspace(low, 1 + 9 * s, cells + 1)
    x = (edges[1:] + edges[:-1]) / 2
    without = np.diff(ndtr(edges / s))
    with_record = (1 - q) * without + q * np.diff(ndtr((edges - 1) / s))
    shape = (2 * x - 1) / (2 * s * s)
    if threat == "relaxed":
        shape = -0.5 / s**2 + np.logaddexp(x / s**2, -x / s**2) - np.log(2)
    loss = np.logaddexp(np.log1p(-q), np.log(q) + shape)
    order = np.argsort(-(loss[:, None] + loss[None, :]).ravel())
    level = np.cumsum(np.outer(without, without).ravel()[order])
    power = np.cumsum(np.outer(with_record, with_record).ravel()[order])
    return float(np.interp(prior, level, power))


@pytest.mark.parametrize("threat", ["worst_case", "relaxed"])
@pytest.mark.parametrize(
    ("s", "q", "prior"),
    [(3.0, 0.1, 0.01), (1.0, 0.3, 0.05), (0.6, 0.18, 0.003), (0.25, 0.02, 0.03), (0.12, 0.05, 0.1), (0.05, 0.3, 0.01)],
)
def test_two_steps(s: float, q: float, prior: float, threat: str) -> None:
    expected = brute(s, q, prior, threat)
    assert bound(s, q, 2, prior, threat) == pytest.approx(expected, rel=1e-3, abs=0)
    assert bound(s, q, 2, prior, threat) == pytest.approx(expected, rel=0, abs=1e-4)


DESIGN = [
    (0.2534, 300, 8082, "worst_case", {1: 2.8e-4, 8: 0.0122, 20: 0.223, 32: 0.636}),
    (0.00943, 53000, 106, "worst_case", {1: 0.0166, 8: 0.180, 20: 0.742, 32: 0.968}),
    (0.2534, 300, 8082, "relaxed", {1: 1.3e-4, 8: 4.3e-4, 20: 0.0078, 32: 0.069}),
    (0.00943, 53000, 106, "relaxed", {8: 0.037, 20: 0.274, 32: 0.648}),
]


@pytest.mark.parametrize(("q", "t", "n", "threat", "expected"), DESIGN)
def test_the_settings_of_the_paper(q: float, t: int, n: int, threat: str, expected: dict[int, float]) -> None:
    for budget, value in expected.items():

        def excess(s: float, budget: int = budget) -> float:
            return opacus_epsilon((privacy.Spend(s, q, t),), delta=8e-7) - budget

        s = float(brentq(excess, 0.3, 100.0))
        digits = 0.5 * 10.0 ** (np.floor(np.log10(value)) - (2 if value > 0.1 else 1)) / value
        assert bound(s, q, t, 1 / n, threat) == pytest.approx(value, rel=max(digits, 2e-3) * 1.01)


@pytest.mark.parametrize("threat", ["worst_case", "relaxed"])
def test_many_weak_steps_meet_the_normal_limit(threat: str) -> None:
    """At T = 53000, q = .00943, s = 9.97 the log ratio is normal; its variance is E[(P/Q - 1)^2] per step."""
    s, q, t, prior = 9.9698, 0.00943, 53000, 1 / 106
    spread = np.expm1(1 / s**2) if threat == "worst_case" else np.cosh(1 / s**2) - 1
    mu = q * np.sqrt(t * spread)
    expected = ndtr(-brentq(lambda z: ndtr(-z) - prior, 0, 10) + mu)
    assert bound(s, q, t, prior, threat) == pytest.approx(expected, rel=1e-3)


def test_one_blind_look_is_the_noncentral_chi_square() -> None:
    for s, prior in [(0.3, 0.01), (1.0, 0.2), (4.0, 1e-3)]:
        expected = ncx2.sf(chi2.isf(prior, 1), 1, 1 / s**2)
        assert bound(s, 1.0, 1, prior, "relaxed") == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("threat", ["worst_case", "relaxed"])
def test_a_simulated_adversary_does_not_pass(threat: str) -> None:
    """The likelihood-ratio test itself, its threshold set on half of a simulation, power measured on runs with."""
    s, q, t, prior, runs = 0.8, 0.1, 30, 0.05, 40_000
    rng = np.random.default_rng(5)

    def score(x: np.ndarray) -> np.ndarray:
        shape = (2 * x - 1) / (2 * s * s)
        if threat == "relaxed":
            shape = -0.5 / s**2 + np.log(np.cosh(x / s**2))
        return np.logaddexp(np.log1p(-q), np.log(q) + shape).sum(axis=1)

    null = np.sort(score(s * rng.standard_normal((runs, t))))
    with_record = score(s * rng.standard_normal((runs, t)) + (rng.random((runs, t)) < q))
    power = np.mean(with_record > null[int((1 - prior) * runs)])
    limit = bound(s, q, t, prior, threat)
    # The threshold's own error moves the level by 1.1e-3 (one s.e.), and the power by a few times that.
    assert power == pytest.approx(limit, abs=0.015)


@pytest.mark.parametrize("threat", ["worst_case", "relaxed"])
def test_regimes_meet_and_limits_hold(threat: str) -> None:
    for q, t in [(0.0284, 528), (0.001, 100)]:
        limit = 1 - (1 - q) ** t * (1 - 0.01)
        values = [bound(s, q, t, 0.01, threat) for s in (1e-5, 0.0599, 0.0601, 0.2, 0.7, 3.0)]
        assert values[0] == pytest.approx(limit, rel=1e-6)
        assert values[1] == pytest.approx(values[2], rel=1e-4)
        assert values == sorted(values, reverse=True) or np.allclose(values, np.sort(values)[::-1], rtol=1e-5)
        assert values[-1] >= 0.01


def test_bad_arguments_are_named() -> None:
    good = {"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 3, "prior": 0.1, "threat": "worst_case"}
    for name, value in [("prior", 0.0), ("steps", 1.5), ("sample_rate", 0.0), ("threat", "none")]:
        with pytest.raises(ValueError, match=name):
            privacy.reconstruction_bound(**{**good, name: value})  # type: ignore[arg-type]
