# scipy's root finders and numpy's complex arrays are typed too loosely to be checked strictly here.
# pyright: reportArgumentType=false, reportReturnType=false
"""The moment generating function of a history's privacy loss, on a line of the complex plane.

delta(eps) = (1/2 pi i) Int e^(-s eps) M(s) / (s (s + 1)) ds along Re s = c > 0, M(s) = E_P[e^(s L)] the product
over steps (Zhu, Dong and Wang, 2022, theorem 5, in Laplace form). The trapezoidal rule along the line
equals the exact value plus its periodic images, which a long enough period makes negligible.
"""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt
from scipy.special import erfc

from privacy.step_loss import StepLoss, TiltedLoss

Array = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]

_MOST = 1 << 16  # frequencies in one octave
_WORK = 3e7  # frequencies times nodes in one octave: about a tenth of a second


@final
@dataclass(frozen=True, slots=True)
class Parts:
    """A history: (loss of a step, how many such steps), and the direction of adjacency.

    ``sign`` is 1 where the record is removed (tilt e^((1 + s) l)), -1 where it is added (tilt e^(-s l));
    ``effort`` multiplies the work that an octave may take.
    """

    steps: tuple[tuple[StepLoss, int], ...]
    sign: int = 1
    effort: int = 1

    def tilted(self, c: float, *, frequency: float = 0.0) -> list[tuple[TiltedLoss, int]]:
        """Tilted losses of every kind of step at exponent c, with multiplicity."""
        a = 1.0 + c if self.sign > 0 else -c
        return [(step.tilted(a, frequency=frequency), count) for step, count in self.steps]

    @property
    def edge(self) -> float:
        """Smallest total loss (remove direction): where the record never took part."""
        return sum(count * step.edge for step, count in self.steps)

    def cumulants(self, c: float) -> tuple[float, float, float]:
        """Ln M(c), and mean and variance of the total loss under the tilted law."""
        parts = self.tilted(c)
        return (
            sum(count * part.log_moment for part, count in parts),
            self.sign * sum(count * part.mean for part, count in parts),
            sum(count * part.variance for part, count in parts),
        )


def chernoff(parts: Parts, epsilon: float, c: float) -> float:
    """Upper bound on ln delta(epsilon): ln M(c) - c eps + c ln c - (1 + c) ln(1 + c)."""
    moment = sum(count * part.log_moment for part, count in parts.tilted(c))
    return moment - c * epsilon + c * math.log(c) - (1.0 + c) * math.log1p(c)


@final
class Contour:
    """M(s) on the line Re s = c, ready to price any epsilon near the tilted mean.

    The first frequencies are equidistant, spaced for the whole period. Higher ones come in octaves
    (``refine``), each with twice the spacing: fine structure of the loss lies near its bulk, because one
    participation is smooth at the width of its Gaussian. The period may shrink to the distance of the bulk
    and no further, or its edge would appear as an image. Octaves are cut out with smooth windows, so that
    what is left out blurs the loss at the scale of 28/frequency instead of ringing.
    """

    def __init__(self, parts: Parts, c: float, *, period: float, frequency: float) -> None:
        self.c = c
        self._parts = parts
        self.moment, self.mean, _ = parts.cumulants(c)
        self._spacing = 2.0 * math.pi / period
        self._top = frequency
        self._w = self._spacing * np.arange(max(16, math.ceil(frequency / self._spacing)))
        share = self._spacing / math.pi * _low_pass(self._w / frequency)
        share[0] *= 0.5
        self._value = share * self._moments(0.0, len(self._w))

    def refine(self, least_period: float) -> bool:
        """Add an octave of frequencies at twice the spacing, as long as the period allows.

        Returns False, and adds nothing, where it would take too many.
        """
        spacing = max(self._spacing, min(2.0 * self._spacing, 2.0 * math.pi / least_period))
        tilted = self._parts.tilted(self.c, frequency=2.0 * self._top)
        nodes, effort = sum(len(part.loss) for part, _ in tilted), self._parts.effort
        if 1.5 * self._top / spacing > min(min(effort, 8) * _MOST, effort * _WORK / nodes):
            return False
        top, self._top, self._spacing = self._top, 2.0 * self._top, spacing
        start = self._spacing * math.floor(0.5 * top / self._spacing)
        w = np.arange(start, self._top, self._spacing)
        share = self._spacing / math.pi * (_low_pass(w / self._top) - _low_pass(w / top))
        self._value = np.concatenate([self._value, share * self._moments(start, len(w))])
        self._w = np.concatenate([self._w, w])
        return True

    @property
    def decayed(self) -> bool:
        """Whether nothing is left in the upper half of the frequencies, so that no octave can add to it."""
        size = np.abs(self._value)
        return bool(size[self._w > 0.5 * self._top].max() < 1e-15 * size.max())

    def integral(self, epsilon: float) -> tuple[float, float]:
        """Return delta(epsilon) and E[e^(epsilon - L); L > epsilon], both divided by M(c) e^(-c epsilon).

        (1/2 pi i) Int e^(-s eps) M(s)/(s (s + 1)) ds, and the same without s: minus the slope of delta.
        """
        slope = self._value * np.exp(1j * self._w * (self.mean - epsilon)) / (self.c + 1.0 + 1j * self._w)
        value = slope / (self.c + 1j * self._w)
        return float(np.sum(value.real)), float(np.sum(slope.real))

    def log_scale(self, epsilon: float) -> float:
        """Ln of what ``integral`` was divided by."""
        return self.moment - self.c * epsilon

    def _moments(self, start: float, count: int) -> Complex:
        value = np.ones(count, dtype=np.complex128)
        means = self._parts.tilted(self.c)
        for (part, n), (real, _) in zip(self._parts.tilted(self.c, frequency=self._top), means, strict=True):
            value *= _characteristic(part, real.mean, self._parts.sign, start, self._spacing, count) ** n
        return value


def _low_pass(x: Array) -> Array:
    """1 up to 0.5, 0 from 1 on, to 1e-12, with Gaussian flanks."""
    return 0.5 * erfc((x - 0.75) * 20.0)


def _characteristic(part: TiltedLoss, mean: float, sign: int, start: float, spacing: float, count: int) -> Complex:
    """E[e^(i w (l - mean))] under the tilted law at w = start, start + spacing, ...

    The frequencies are split as block + offset, so that two thin tables of exponentials and one matrix
    product give all of them.
    """
    # Complex nodes lie where e^(i w l) decays; for the negated loss that is at their conjugates.
    loss = part.loss - mean if sign > 0 else mean - part.loss.conj()
    probability = part.probability if sign > 0 else part.probability.conj()
    if np.any(part.spread):
        w = start + spacing * np.arange(count)
        value = np.zeros(count, dtype=np.complex128)
        for p, centre, spread in zip(probability, loss, part.spread, strict=True):
            value += p * np.exp(1j * w * centre - 0.5 * (w * spread) ** 2)
        return value
    inner = max(1, math.isqrt(count))
    outer = -(-count // inner)
    fine = np.exp(1j * spacing * np.outer(loss, np.arange(inner)))
    coarse = np.exp(1j * np.outer(start + spacing * inner * np.arange(outer), loss)) * probability
    return (coarse @ fine).reshape(-1)[:count]
