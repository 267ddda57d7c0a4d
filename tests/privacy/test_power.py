"""Reconstruction bounds against sorted brute force, convolutions on a grid, and the design's figures."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import brentq
from scipy.special import ndtr

import privacy
from privacy.closed_form import participations
from privacy.rdp import opacus_epsilon
from tests.privacy.calls import Threat, bound

BOTH = pytest.mark.parametrize("threat", ["worst_case", "relaxed"])
Array = npt.NDArray[np.float64]


def cells(s: float, q: float, threat: Threat, count: int) -> tuple[Array, Array, Array]:
    """Probability of every cell of x without and with the record, and the log likelihood ratio at its middle."""
    low = -(1 + 9 * s) if threat == "relaxed" else -9 * s
    edges = np.linspace(low, 1 + 9 * s, count + 1)
    x = (edges[1:] + edges[:-1]) / 2
    without = np.diff(ndtr(edges / s))
    with_record = (1 - q) * without + q * np.diff(ndtr((edges - 1) / s))
    shape = (2 * x - 1) / (2 * s * s)
    if threat == "relaxed":
        shape = -0.5 / s**2 + np.logaddexp(x / s**2, -x / s**2) - np.log(2)
    return without, with_record, np.logaddexp(np.log1p(-q), np.log(q) + shape)


def close(found: float, expected: float) -> None:
    """The bar: 1e-4 absolute or 1e-3 relative, whichever is smaller."""
    assert found == pytest.approx(expected, rel=1e-3, abs=0)
    assert found == pytest.approx(expected, rel=0, abs=1e-4)


@BOTH
@pytest.mark.parametrize(
    ("s", "q", "prior"),
    [(3.0, 0.1, 0.01), (1.0, 0.3, 0.05), (0.6, 0.18, 0.003), (0.25, 0.02, 0.03), (0.12, 0.05, 0.1), (0.05, 0.3, 0.01)],
)
def test_two_steps_are_all_pairs_of_cells_sorted(s: float, q: float, prior: float, threat: Threat) -> None:
    without, with_record, loss = cells(s, q, threat, 2001)
    order = np.argsort(-(loss[:, None] + loss[None, :]).ravel())
    level = np.cumsum(np.outer(without, without).ravel()[order])
    power = np.cumsum(np.outer(with_record, with_record).ravel()[order])
    close(bound(s, q, 2, prior, threat), float(np.interp(prior, level, power)))


def convolved(s: float, q: float, t: int, prior: float, threat: Threat) -> float:
    """Both laws of the summed log ratio on one grid, by FFT; cells are split linearly, which keeps the mean."""
    without, with_record, loss = cells(s, q, threat, 200_001)
    means = t * (without @ loss), t * (with_record @ loss)
    spread = max(math.sqrt(t * (law @ loss**2 - (law @ loss) ** 2)) for law in (without, with_record))
    count = 1 << 18
    h = (abs(means[1] - means[0]) + 24 * spread + np.ptp(loss)) / count
    first = np.floor(loss / h).astype(np.int64)
    part = loss / h - first
    tails: list[Array] = []
    start = round(float(np.min(means) / h)) - int(12 * spread / h)
    for law in (without, with_record):
        mass = np.bincount(first % count, law * (1 - part), count) + np.bincount((first + 1) % count, law * part, count)
        total = np.fft.irfft(np.fft.rfft(mass) ** t, count)
        tails.append(np.cumsum(np.roll(total, -start)[::-1]))
    return float(np.interp(prior, tails[0], tails[1]))


@BOTH
@pytest.mark.parametrize(
    ("s", "q", "t", "prior"),
    [
        (1.0, 0.073, 1368, 1e-3),
        (2.0, 0.2534, 300, 1 / 8082),
        (0.5, 0.0284, 100, 0.01),
        (4.0, 0.00943, 53000, 0.1),
        (9.9698, 0.00943, 53000, 1 / 106),
    ],
)
def test_long_runs_are_convolutions(s: float, q: float, t: int, prior: float, threat: Threat) -> None:
    close(bound(s, q, t, prior, threat), convolved(s, q, t, prior, threat))


# The design says .0097 for the last family at epsilon 1: convolution (above) and the normal limit both give .00983.
DESIGN: list[tuple[float, int, int, Threat, dict[int, float]]] = [
    (0.2534, 300, 8082, "worst_case", {1: 2.8e-4, 8: 0.0122, 20: 0.223, 32: 0.636}),
    (0.00943, 53000, 106, "worst_case", {1: 0.0166, 8: 0.180, 20: 0.742, 32: 0.968}),
    (0.2534, 300, 8082, "relaxed", {1: 1.3e-4, 8: 4.3e-4, 20: 0.0078, 32: 0.069}),
    (0.00943, 53000, 106, "relaxed", {8: 0.037, 20: 0.274, 32: 0.648}),
]


@pytest.mark.parametrize(("q", "t", "n", "threat", "expected"), DESIGN)
def test_the_settings_of_the_paper(q: float, t: int, n: int, threat: Threat, expected: dict[int, float]) -> None:
    """Noise as opacus' RDP accountant calibrates it at delta 8e-7, to the digits that were written down."""
    for budget, value in expected.items():

        def excess(s: float, budget: int = budget) -> float:
            return opacus_epsilon((privacy.Spend(s, q, t),), delta=8e-7) - budget

        s: Any = brentq(excess, 0.3, 100.0)
        digits = 0.5 * 10.0 ** (np.floor(np.log10(value)) - (2 if value > 0.1 else 1)) / value
        assert bound(s, q, t, 1 / n, threat) == pytest.approx(value, rel=max(digits, 2e-3) * 1.01)


@pytest.mark.parametrize("steps", [1, 70, 2_000, 20_000])
def test_of_a_record_that_is_in_every_step_the_weights_are_one(steps: int) -> None:
    k, weight, dropped = participations(sample_rate=1.0, steps=steps, delta=1e-9)
    assert (k.tolist(), weight.tolist(), dropped) == ([steps], [1.0], 0.0)
    relaxed = [
        privacy.reconstruction_bound(
            noise_multiplier=s * math.sqrt(steps), sample_rate=1.0, steps=steps, prior=1e-3, threat="relaxed"
        )
        for s in (0.01, 0.05, 0.2)
    ]
    worst = [
        privacy.reconstruction_bound(
            noise_multiplier=s * math.sqrt(steps), sample_rate=1.0, steps=steps, prior=1e-3, threat="worst_case"
        )
        for s in (0.01, 0.05, 0.2)
    ]
    assert all(1e-3 <= r <= w + 1e-9 <= 1 + 1e-9 for r, w in zip(relaxed, worst, strict=True))
