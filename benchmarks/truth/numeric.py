# scipy's root finders are typed too loosely to be checked strictly here.
# pyright: reportArgumentType=false
"""Epsilon of any sampled run in two ways: an integral in the complex plane, and convolutions on a grid."""

import math
from collections.abc import Callable
from typing import Any, final

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, minimize_scalar

from truth.setting import Setting

Array = npt.NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)


@final
class Loss:
    """Nodes x of a trapezoidal rule and the log likelihood ratio l(x) of one step; remove (+1) or add (-1)."""

    def __init__(self, run: Setting, sign: int) -> None:
        self.run, self.sign = run, sign

    def tilted(self, c: float, fineness: float = 1.0) -> tuple[float, Array, Array]:
        """Return (ln E e^(c L), probabilities, losses) of one step under the law tilted by e^(c L)."""
        s, q = self.run.noise_multiplier, self.run.sample_rate
        a = 1.0 + c if self.sign > 0 else -c
        step = fineness * s * min(0.02, 0.1 * s)
        low, high = min(0.0, a) - 12.0 * s, max(0.0, a) + 12.0 * s
        x = np.linspace(low, high, int((high - low) / step) + 2)
        u = (2.0 * x - 1.0) / (2.0 * s * s)
        far = u + math.log(q) + np.log1p((1.0 / q - 1.0) * np.exp(-np.maximum(u, 30.0)))
        loss = np.where(u > 30.0, far, np.log1p(q * np.expm1(np.minimum(u, 30.0))))
        exponent = a * loss - x * x / (2.0 * s * s)
        top = exponent.max()
        keep = exponent > top - 60.0
        weight = np.exp(exponent[keep] - top)
        total = weight.sum()
        moment = top + math.log(total * (x[1] - x[0]) / (s * math.sqrt(2.0 * math.pi)))
        return float(moment), weight / total, self.sign * loss[keep]

    def best(self) -> tuple[float, float]:
        """Return (c, epsilon) of the smallest Renyi bound."""

        def bound(log_c: float) -> float:
            c = math.exp(log_c)
            moment = self.run.steps * self.tilted(c)[0]
            return (moment - math.log(self.run.delta) + c * log_c - (1.0 + c) * math.log1p(c)) / c

        grid = np.linspace(-14.0, min(12.0, math.log(200.0 / self.run.noise_multiplier + 1e3)), 50)
        values = [bound(float(g)) for g in grid]
        at = int(np.argmin(values))
        ends = (float(grid[max(0, at - 1)]), float(grid[min(len(grid) - 1, at + 1)]))
        found: Any = minimize_scalar(bound, bounds=ends, method="bounded", options={"xatol": 1e-3})
        return math.exp(found.x), float(found.fun)


def inversion(loss: Loss, sharp: float = 1.0) -> float:
    """Delta = (1/2 pi i) Int M(s)^T e^(-s eps)/(s (s+1)) ds on Re s = c, by Gauss-Legendre panels until M^T decays."""
    run = loss.run
    c, ceiling = loss.best()
    moment, probability, value = loss.tilted(c, 0.5)
    mean = float(probability @ value)
    deviation = math.sqrt(run.steps * float(probability @ (value - mean) ** 2))
    reach = 14.0 * deviation + 2.0 * abs(ceiling - run.steps * mean) + (float(np.ptp(value)) if run.steps < 50 else 0.0)
    panel = 12.0 / (reach * sharp)
    offsets = 0.5 * panel * (1.0 + _NODES)
    fine = np.exp(1j * np.outer(value - mean, offsets))
    ws: list[Array] = []
    parts: list[npt.NDArray[np.complex128]] = []
    largest = 0.0
    for start in range(0, 1 << 17, 64):
        base = panel * np.arange(start, start + 64)
        coarse = np.exp(1j * np.outer(base, value - mean)) * probability
        w = (base[:, None] + offsets).ravel()
        term = (coarse @ fine).ravel() ** run.steps / ((c + 1j * w) * (c + 1.0 + 1j * w))
        ws.append(w)
        parts.append(term * np.tile(0.5 * panel * _WEIGHTS, 64))
        largest = max(largest, float(np.abs(term).max()) * min(w[-1], c + 1.0 / deviation))
        if float(np.abs(term[-1024:]).max()) * w[-1] < 1e-14 * largest:
            break
    else:
        raise ArithmeticError("the integral did not decay")
    w, part = np.concatenate(ws), np.concatenate(parts)

    def miss(e: float) -> float:
        integral = float(np.sum((part * np.exp(-1j * w * (e - run.steps * mean))).real)) / math.pi
        if integral <= 0.0:
            return -1e3
        return run.steps * moment - c * e + math.log(integral) - math.log(run.delta)

    return _between(miss, ceiling, deviation)


def _between(miss: Callable[[float], float], ceiling: float, step: float) -> float:
    low = ceiling
    while miss(low) <= 0.0:
        if low <= 0.0:
            return 0.0
        low, step = max(0.0, low - 0.3 * step), 1.5 * step
    return float(brentq(miss, low, ceiling * (1 + 1e-9) + 1e-12, xtol=1e-300, rtol=1e-13)) if low < ceiling else low


def convolution(loss: Loss) -> float:
    """The T-fold convolution of the tilted loss on ever finer and wider grids, until two answers agree to 1e-8.

    A million steps of rare participation leave rounding of 1e-7: there the last two answers have to agree to 2e-7.
    """
    before = found = math.inf
    for level in range(17, 24):
        before, found = found, _on_grid(loss, 1 << level, 28.0 * 1.3 ** (level - 17))
        if abs(found - before) <= 1e-8 * abs(found):
            return found
    if abs(found - before) <= 2e-7 * abs(found):
        return found
    raise ArithmeticError(f"grids do not settle: {found:.12g}")


def _on_grid(loss: Loss, count: int, deviations: float) -> float:
    """Split each node's mass over six grid points so that five moments stay, and raise the transform to the power T."""
    run = loss.run
    best, ceiling = loss.best()
    c = 0.85 * best
    moment, probability, value = loss.tilted(c, 0.1)
    mean = float(probability @ value)
    deviation = math.sqrt(run.steps * float(probability @ (value - mean) ** 2))
    length = max(deviations * deviation, 3.0 * (ceiling - run.steps * mean), 2.5 * float(np.ptp(value)))
    h = length / count
    place = value / h
    first = np.floor(place).astype(np.int64) - 2
    mass = np.zeros(count)
    for i in range(6):
        share = probability.copy()
        for j in range(6):
            if j != i:
                share *= (place - first - j) / (i - j)
        np.add.at(mass, (first + i) % count, share)
    total = np.fft.irfft(np.fft.rfft(mass) ** run.steps, count)
    centre = round(run.steps * mean / h)
    total = np.roll(total, count // 2 - centre)
    where = h * (np.arange(count) - count // 2 + centre)
    return _price(where, total, c, run.steps * moment - math.log(run.delta), ceiling)


def _price(where: Array, mass: Array, c: float, scale: float, ceiling: float) -> float:
    """Solve for epsilon below ``ceiling``; at grid points delta is a sum, with an Euler-Maclaurin term for the kink."""
    h = float(where[1] - where[0])

    def miss(i: int) -> float:
        gap = where[i:] - where[i]
        value = float(np.sum(mass[i:] * np.exp(-c * gap) * -np.expm1(-gap)))
        value += mass[i] * h / 12.0
        return scale - c * where[i] + math.log(max(value, 1e-300))

    high = int(np.searchsorted(where, ceiling)) + 8
    stride, low = max(1, len(where) // 256), high
    while miss(low) <= 0.0:
        if where[low] <= 0.0:
            return 0.0
        low = max(low - stride, 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if miss(middle) > 0.0 else (low, middle)
    points = np.arange(low - 2, low + 4)
    values = np.array([miss(int(i)) for i in points])
    line = np.polynomial.Polynomial.fit(where[points] - where[low], values, 5)
    return float(where[low] + brentq(line, -h, 2.0 * h, xtol=1e-14 * h))
