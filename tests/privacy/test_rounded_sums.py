"""Rounding before a sum costs nothing as long as the step is small: exact laws of sums of rounded Gaussians.

Each hospital rounds its release to multiples of a step g after adding its share of the noise, N(0, sigma^2). A sum of
m rounded releases is, but for aliasing below exp(-2 pi^2 (sigma/g)^2 (m-1)/m), what one gets by rounding the exact sum
plus m - 1 uniform draws: post-processing of the exact sum. The laws here are convolutions of cell probabilities, which
share nothing with that argument.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtr

Vector = NDArray[np.float64]
REACH = 14.0  # standard deviations


def cells(mean: float, sigma: float, step: float, half: int) -> Vector:
    """Probabilities that mean + N(0, sigma^2) rounds to k steps, k = -half..half; exact in both tails."""
    edges = (np.arange(-half, half + 2) - 0.5) * step
    low, high = (edges[:-1] - mean) / sigma, (edges[1:] - mean) / sigma
    upper = low > 0
    return np.where(upper, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))


def summed(means: Sequence[float], sigma: float, step: float) -> Vector:
    """The law of the sum of rounded releases, on multiples of the step around zero."""
    half = math.ceil((max(abs(m) for m in means) + REACH * sigma) / step) + 1
    law = np.ones(1)
    for mean in means:
        law = np.convolve(law, cells(mean, sigma, step, half))
    return law


def divergence(p: Vector, q: Vector, epsilon: float) -> float:
    return float(np.maximum(p - math.exp(epsilon) * q, 0.0).sum())


def gaussian(mu: float, epsilon: float) -> float:
    """Balle and Wang 2018, theorem 8."""
    return float(ndtr(mu / 2 - epsilon / mu) - math.exp(epsilon) * ndtr(-mu / 2 - epsilon / mu))


def aliasing(m: int, fineness: float) -> float:
    """Bound on how far a probability is from the one without aliasing: Poisson summation, |sinc| <= 1, term by term."""
    total = 0.0
    for others in itertools.product(range(-6, 7), repeat=m - 1):
        k = np.array([0, *others], dtype=np.float64)
        if k.any():
            total += math.exp(-2 * math.pi**2 * fineness**2 * float(((k - k.mean()) ** 2).sum()))
    return total / (fineness * math.sqrt(2 * math.pi * m))


def antiderivative(x: Vector, times: int) -> Vector:
    """The normal density integrated `times` times from minus infinity."""
    density, below = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi), ndtr(x)
    if times == 2:
        return x * below + density
    return 0.5 * ((x**2 + 1) * below + x * density)


def post_processed(total: float, m: int, sigma: float, step: float, half: int) -> Vector:
    """The law of round(total + N(0, m sigma^2) + m - 1 uniforms on a step): differences of antiderivatives."""
    y, wide = np.arange(-half, half + 1) * step - total, math.sqrt(m) * sigma
    signs = [(-1) ** i * math.comb(m, i) for i in range(m + 1)]
    parts = [c * antiderivative((y + (m / 2 - i) * step) / wide, m) for i, c in enumerate(signs)]
    return (wide / step) ** (m - 1) * np.sum(parts, axis=0)


@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("fineness", [0.5, 0.75, 1.0, 2.0, 5.0])
def test_the_law_is_that_of_rounding_the_sum_up_to_the_stated_aliasing(m: int, fineness: float) -> None:
    sigma, step = 1.0, 1.0 / fineness
    for shift in (0.0, 0.31, 0.5):
        means = [shift * step, *(0.17 * k for k in range(1, m))]
        law = summed(means, sigma, step)
        half = (len(law) - 1) // 2
        assert law.sum() == pytest.approx(1.0, abs=1e-12)
        apart = float(np.abs(law - post_processed(sum(means), m, sigma, step, half)).max())
        assert apart <= aliasing(m, fineness) + 1e-9  # rounding of the differences
        if fineness == 0.5 and shift == 0.31:
            assert apart > 1e-3 * aliasing(m, fineness)  # the aliasing is real, and the bound says how large


@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("fineness", [1.0, 2.0, 5.0, 10.0, 20.0])
@pytest.mark.parametrize("noise", [0.4, 1.0, 3.0])
def test_the_divergence_of_neighbours_is_never_larger_than_the_gaussians(m: int, fineness: float, noise: float) -> None:
    """One hospital's release moves by C = 1; the noise of the sum is `noise`, a share is noise / sqrt(m)."""
    sigma = noise / math.sqrt(m)
    step = sigma / fineness
    rng = np.random.default_rng(0)
    for _ in range(4):
        means = rng.uniform(-0.5, 0.5, m).tolist()
        moved = [means[0] + 1.0, *means[1:]]
        half = max(abs(v) for v in (*means, *moved))
        width = math.ceil((half + REACH * sigma) / step) + 1
        laws: list[Vector] = []
        for values in (moved, means):
            law = np.ones(1)
            for value in values:
                law = np.convolve(law, cells(value, sigma, step, width))
            laws.append(law)
        p, q = laws
        # Total variation of the aliasing: half the largest difference times the cells within reach, and the tails.
        variation = 0.5 * aliasing(m, fineness) * (2 * REACH * noise / step + 1) + 1e-40
        for epsilon in (0.0, 0.3, 1.0, 2.0, 4.0):
            allowed = gaussian(1 / noise, epsilon)
            spare = (1 + math.exp(epsilon)) * variation + 1e-10 * allowed + 1e-15
            assert divergence(p, q, epsilon) <= allowed + spare
            assert divergence(q, p, epsilon) <= allowed + spare
            if fineness >= 10 and noise >= 1 and allowed > 1e-9:
                assert spare < 1e-9 * allowed + 2e-15
                assert divergence(p, q, epsilon) > 0.97 * allowed  # and little is lost: the comparison is tight


def test_a_coarse_step_does_cost_so_that_the_condition_is_needed() -> None:
    """At a step of eight shares the other hospital's noise rounds away: the sum tells more than the exact one."""
    sigma, step = 1 / math.sqrt(2), 8 / math.sqrt(2)
    means, moved = [step / 2 - 1.0, 0.0], [step / 2, 0.0]  # where a step's edge tells most
    p, q = summed(moved, sigma, step), summed(means, sigma, step)
    short = min(len(p), len(q)) // 2
    p, q = (law[len(law) // 2 - short : len(law) // 2 + short + 1] for law in (p, q))
    assert divergence(p, q, 1.0) > 2 * gaussian(1.0, 1.0)
    # One release by itself is post-processing of its own noise at any step.
    alone = summed(moved[:1], sigma, step), summed(means[:1], sigma, step)
    short = min(len(law) for law in alone) // 2
    p, q = (law[len(law) // 2 - short : len(law) // 2 + short + 1] for law in alone)
    assert divergence(p, q, 1.0) <= gaussian(1 / sigma, 1.0) * (1 + 1e-12)
