"""Prices of two steps against a plain one-dimensional integral, in both directions, from tiny to large noise."""

import itertools
import math

import numpy as np
import pytest
from scipy.special import log_ndtr, ndtr

import privacy
from privacy import Spend
from privacy.closed_form import bracket
from privacy.contour import Parts
from privacy.inversion import invert
from privacy.step_loss import SubsampledGaussian

DELTA = 1e-5


def ratio(x, s: float, q: float):
    """ln(P/Q) at x; P has the record."""
    with np.errstate(divide="ignore"):
        return np.logaddexp(np.log1p(-q), np.log(q) + (2 * x - 1) / (2 * s * s))


def place(e, s: float, q: float):
    """The x at which ln(P/Q) is e, -inf where it never is so small."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        rest = np.expm1(e) + q
        log_rest = np.where(e > 30, e, np.log(np.maximum(rest, 0)))
    return s * s * (log_rest - np.log(q)) + 0.5


def removed(e, s: float, q: float):
    """delta of one step at any real e, record removed: P(x > x*) - e^e Q(x > x*)."""
    x = place(np.minimum(e, 1e8), s, q)
    # e^e Q(x > x*) by logarithms, as e may be in the thousands.
    second = np.exp(np.minimum(e + log_ndtr(-x / s), 0.0))
    return np.maximum((1 - q) * ndtr(-x / s) + q * ndtr((1 - x) / s) - second, 0.0)


def added(e, s: float, q: float):
    """delta of one step at any real e, record added: Q(x < x*) - e^e P(x < x*)."""
    x = place(-e, s, q)
    value = ndtr(x / s) - np.exp(e) * ((1 - q) * ndtr(x / s) + q * ndtr((x - 1) / s))
    return np.where(np.isneginf(x), 0.0, np.maximum(value, 0.0))


def two_steps(e: float, first: tuple[float, float], second: tuple[float, float], remove: bool = True) -> float:
    """delta(e) of two steps: the second step's delta at what the first one left, averaged over the first."""
    s, q = first
    z = np.linspace(-10, 10, 200_001)
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    if not remove:
        return float(density @ added(e + ratio(s * z, s, q), *second))
    absent = density @ removed(e - ratio(s * z, s, q), *second)
    present = density @ removed(e - ratio(1 + s * z, s, q), *second)
    return float((1 - q) * absent + q * present)


SETTINGS = list(itertools.product([0.04, 0.1, 0.3, 1.0, 5.0], [0.01, 0.3, 0.9]))


@pytest.mark.parametrize(("s", "q"), SETTINGS)
def test_two_equal_steps(s: float, q: float) -> None:
    found = privacy.epsilon(noise_multiplier=s, sample_rate=q, steps=2, delta=DELTA)
    e = found.estimate
    assert two_steps(e * (1 - 1e-4), (s, q), (s, q)) > DELTA
    assert two_steps(e * (1 + 1e-4), (s, q), (s, q)) < DELTA
    assert two_steps(found.upper, (s, q), (s, q)) <= DELTA * (1 + 1e-7)
    assert two_steps(found.lower, (s, q), (s, q)) >= DELTA * (1 - 1e-7)


@pytest.mark.parametrize(("s", "q"), SETTINGS)
def test_adding_the_record_costs_no_more_than_is_claimed(s: float, q: float) -> None:
    found = privacy.epsilon(noise_multiplier=s, sample_rate=q, steps=2, delta=DELTA)
    assert two_steps(min(found.upper, 500.0), (s, q), (s, q), remove=False) <= DELTA


@pytest.mark.parametrize(("s", "q"), [(1.0, 0.9), (5.0, 0.9), (5.0, 0.3), (2.0, 0.1)])
def test_the_inversion_prices_adding_too(s: float, q: float) -> None:
    parts = Parts(((SubsampledGaussian(noise_multiplier=s, sample_rate=q), 2),), sign=-1)
    e, _ = invert(parts, DELTA)
    assert 0 < e < -2 * math.log1p(-q)
    assert two_steps(e, (s, q), (s, q), remove=False) == pytest.approx(DELTA, rel=1e-5)


@pytest.mark.parametrize(
    ("first", "second"),
    [((1.0, 0.1), (0.5, 0.02)), ((0.2, 0.3), (3.0, 0.5)), ((0.05, 0.2), (1.0, 0.2)), ((2.0, 1.0), (0.7, 0.1))],
)
def test_two_different_steps(first: tuple[float, float], second: tuple[float, float]) -> None:
    found = privacy.compose([Spend(*first, 1), Spend(*second, 1)], delta=DELTA)
    assert two_steps(found.estimate, first, second) == pytest.approx(DELTA, rel=1e-4)
    assert found.opacus_rdp >= found.estimate


def test_tiny_noises_of_different_size_are_dominated_by_the_smallest() -> None:
    alone = privacy.epsilon(noise_multiplier=1e-4, sample_rate=0.05, steps=100, delta=DELTA)
    mixed = privacy.compose([Spend(1e-4, 0.05, 100), Spend(1.0, 0.05, 100)], delta=DELTA)
    assert mixed.estimate == pytest.approx(alone.estimate, rel=1e-5)
    doubled = privacy.compose([Spend(1e-4, 0.05, 100), Spend(1e-2, 0.05, 100)], delta=DELTA)
    # At this size the second history adds at most its own maximum.
    second = privacy.epsilon(noise_multiplier=1e-2, sample_rate=0.05, steps=100, delta=1e-9).upper
    assert alone.lower * (1 - 1e-5) <= doubled.estimate <= alone.upper + second


@pytest.mark.parametrize(("s", "q", "t"), [(0.05, 0.073, 1368), (0.04, 0.0041, 12200), (0.055, 0.2534, 300)])
def test_the_closed_forms_and_the_inversion_meet(s: float, q: float, t: int) -> None:
    lower, upper = bracket(noise_multiplier=s, sample_rate=q, steps=t, delta=DELTA)
    inverted, _ = invert(Parts(((SubsampledGaussian(noise_multiplier=s, sample_rate=q), t),)), DELTA)
    assert lower <= inverted <= upper
    assert upper <= lower * (1 + 1e-5)


def test_where_delta_covers_everything_epsilon_is_zero() -> None:
    found = privacy.epsilon(noise_multiplier=1.0, sample_rate=1e-4, steps=5, delta=1e-3)
    assert found.estimate == found.upper == 0
    s = privacy.noise_multiplier(epsilon=1.0, delta=1e-3, sample_rate=1e-4, steps=5)
    assert 0 < s <= 1e-6
