# scipy's root finders and numpy's complex arrays are typed too loosely to be checked strictly here.
# pyright: reportArgumentType=false, reportReturnType=false, reportAttributeAccessIssue=false
"""The privacy loss of one step, as nodes that make its moment generating function exact.

With u = (2x - 1)/(2 s^2) and x ~ N(0, s^2), the log likelihood ratio of a Poisson-subsampled Gaussian step is
l(x) = ln(1 - q + q e^u), and everything needed is E[e^(a l)] at real and complex a. The integrand is
analytic within a strip of half-width pi s^2 about the real line, so the trapezoidal rule converges
exponentially (Trefethen and Weideman, 2014). At a complex a, e^(i w l) would oscillate fast; half-way to the
edge of the strip it decays instead, so the nodes are moved there and their number does not grow with w.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]

# Below it the branches of a step are apart by more than 16 standard deviations (1/(2s) = 16.7), and
# the loss is an atom and a Gaussian to double precision.
APART = 0.03

_REACH = 10.5  # standard deviations of Gaussian that are integrated; exp(-10.5^2/2) = 1e-24
HIGHEST = 2.0  # imaginary part in standard deviations; it costs a factor e^(2^2/2) of precision


@final
@dataclass(frozen=True, slots=True)
class TiltedLoss:
    """One step's loss l under the law with density e^(a l)/E[e^(a l)]: a mixture of N(loss, spread^2).

    ``log_moment`` is ln E[e^(a l)] without the record. Spread is 0 at quadrature nodes, whose weights and
    places may be complex.
    """

    log_moment: float
    probability: Array | Complex
    loss: Array | Complex
    spread: Array

    @property
    def mean(self) -> float:
        """Mean of the tilted loss."""
        return float((self.probability @ self.loss).real)

    @property
    def variance(self) -> float:
        """Variance of the tilted loss."""
        return float((self.probability @ ((self.loss - self.mean) ** 2 + self.spread**2)).real)


class StepLoss(ABC):
    """Log likelihood ratio of one step at a noise multiplier; subclasses say which pair of laws."""

    def __init__(self, noise_multiplier: float) -> None:
        self._noise = noise_multiplier

    @abstractmethod
    def tilted(self, a: float, *, frequency: float = 0.0) -> TiltedLoss:
        """Return the loss tilted by e^(a l), fit to average e^(i w l) for 0 <= w <= ``frequency``."""

    @property
    @abstractmethod
    def steepest(self) -> float:
        """Largest exponent a that nodes can serve at a reasonable cost."""

    @property
    @abstractmethod
    def edge(self) -> float:
        """Smallest loss of a step; 0 where it has no smallest."""

    @property
    def width(self) -> float:
        """Standard deviation of the loss of one image's participation, 1/s: the smallest of all branches'."""
        return 1.0 / self._noise

    @property
    def gap(self) -> float:
        """Smallest distance of branches, 1/(2 s^2), where it exceeds three widths; else inf."""
        return 0.5 / self._noise**2 if self._noise < 1.0 / 6.0 else math.inf

    def blurred(self, a: float, steps: int) -> float:
        """Frequency beyond which ``steps`` steps' losses, tilted by e^(a l), have no structure; inf if unknown."""
        return math.inf


@final
class SubsampledGaussian(StepLoss):
    """Remove direction of a Poisson-subsampled Gaussian step; tilting by a < 0 serves the add direction."""

    def __init__(self, *, noise_multiplier: float, sample_rate: float) -> None:
        super().__init__(noise_multiplier)
        self._rate = sample_rate
        self._apart = sample_rate == 1.0 or noise_multiplier < APART

    @property
    def edge(self) -> float:
        """Smallest loss of a step, ln(1 - q); 0 at full participation."""
        return math.log1p(-self._rate) if self._rate < 1.0 else 0.0

    @property
    def steepest(self) -> float:
        """Exponent that asks for a hundred thousand nodes; unlimited where the loss is two branches."""
        return math.inf if self._apart else steepest_exponent(self._noise)

    def tilted(self, a: float, *, frequency: float = 0.0) -> TiltedLoss:
        """Return the tilted loss: two branches where they are apart, else trapezoidal nodes."""
        if self._apart:
            return self._branches(a)
        step, lift = min(0.5 * self._noise, 0.2), 0.0
        if frequency > 0.0:
            step, lift = min(0.25 * self._noise, 0.2), min(0.5 * math.pi * self._noise, HIGHEST)
        t = span(self._noise, a, step)
        return nodes(self._loss, t + 1j * lift, np.full(len(t), step + 0j), a)

    def _loss(self, z: Complex) -> Complex:
        u = z / self._noise - 0.5 / self._noise**2
        # Where e^u is large, ln(1 - q + q e^u) = ln q + u + ln(1 + (1/q - 1) e^-u).
        far = u.real > 30.0
        near = np.log1p(self._rate * np.expm1(np.where(far, 0.0, u)))
        return np.where(
            far,
            u + math.log(self._rate) + np.log1p((1.0 / self._rate - 1.0) * np.exp(-np.where(far, u, 0.0))),
            near,
        )

    def _branches(self, a: float) -> TiltedLoss:
        half, log_rate = 0.5 / self._noise**2, math.log(self._rate)
        log_rest = math.log1p(-self._rate) if self._rate < 1.0 else 0.0
        absent = a * log_rest if self._rate < 1.0 else -math.inf
        present = a * log_rate + half * a * (a - 1.0)
        if self._rate < 1.0 and a <= 0.0:
            # Tilted away from participation the loss saturates at ln(1 - q): the Gaussian is not there.
            present = -math.inf
        total = float(np.logaddexp(absent, present))
        return TiltedLoss(
            log_moment=total,
            probability=np.exp(np.array([absent, present]) - total),
            loss=np.array([log_rest, log_rate + half * (2.0 * a - 1.0)]),
            spread=np.array([0.0, 1.0 / self._noise]),
        )


def steepest_exponent(noise_multiplier: float) -> float:
    """Exponent at which the nodes number about a hundred thousand."""
    return 1e5 * noise_multiplier * min(0.25 * noise_multiplier, 0.2)


def span(noise_multiplier: float, a: float, step: float) -> Array:
    """Equidistant z = x/s around 0 and around a/s, where the tilt may move the Gaussian."""
    reach = a / noise_multiplier
    low, high = min(0.0, reach) - _REACH, max(0.0, reach) + _REACH
    return np.arange(math.floor(low / step), math.ceil(high / step) + 1) * step


def nodes(loss: Callable[[Complex], Complex], z: Complex, dz: Complex, a: float) -> TiltedLoss:
    """Nodes of the trapezoidal rule along a path z with increments dz, for x = s z ~ N(0, s^2)."""
    value = loss(z)
    exponent = -0.5 * z * z + a * value
    top = float(exponent.real.max())
    kept = exponent.real > top - 54.0  # e^-54 = 4e-24
    value, weight = value[kept], np.exp(exponent[kept] - top) * dz[kept]
    total = complex(weight.sum())
    log_moment = top + math.log(total.real / math.sqrt(2.0 * math.pi))
    if not np.any(z.imag):
        value, weight, total = value.real, weight.real, total.real
    return TiltedLoss(log_moment, weight / total, value, np.zeros(len(value)))
