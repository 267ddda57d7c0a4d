# scipy's root finders and numpy's complex arrays are typed too loosely to be checked strictly here.
# pyright: reportArgumentType=false
"""The loss of an adversary who guesses the sign along the test direction anew at every step."""

import math
from typing import final

import numpy as np
import numpy.typing as npt

from privacy.step_loss import HIGHEST, StepLoss, TiltedLoss, nodes, span, steepest_exponent

Complex = npt.NDArray[np.complex128]


@final
class SignBlind(StepLoss):
    """l(x) = ln(1 - q + q e^(-d) cosh(x/s^2)), d = 1/(2 s^2): the ratio of the symmetrised laws.

    A model of a weaker attacker (generalised likelihood ratio, one degree of freedom), not a privacy loss:
    nothing follows from it about an adversary who knows the sign.
    """

    def __init__(self, *, noise_multiplier: float, sample_rate: float) -> None:
        super().__init__(noise_multiplier)
        self._rate = sample_rate

    @property
    def edge(self) -> float:
        """Smallest loss of a step, at x = 0."""
        half = 0.5 / self._noise**2
        return -half if self._rate == 1.0 else math.log1p(self._rate * math.expm1(-half))

    @property
    def steepest(self) -> float:
        """Exponent that asks for a hundred thousand nodes."""
        return steepest_exponent(self._noise)

    def tilted(self, a: float, *, frequency: float = 0.0) -> TiltedLoss:
        """Return the tilted loss by nodes on the real line, or on an odd path where e^(i w l) decays.

        The path z + i y tanh(z/s) rises on the right and falls on the left, as l does. At its middle the
        loss is flat, and e^(i w l) is a Gaussian there of width s/sqrt(w q), which the step has to resolve.
        """
        if frequency == 0.0:
            t = _both_sides(self._noise, a, min(0.25 * self._noise, 0.2))
            return nodes(self._loss, t + 0j, np.full(len(t), t[1] - t[0] + 0j), a)
        chirp = frequency * self._rate * math.exp(-0.5 / self._noise**2)
        step = min(0.2 * self._noise, 0.2, 0.3 * self._noise / math.sqrt(chirp + 1e-300))
        t = _both_sides(self._noise, a, step)
        lift = min(1.2 * self._noise, HIGHEST)
        bend = np.tanh(t / self._noise)
        return nodes(self._loss, t + 1j * lift * bend, step * (1.0 + 1j * lift / self._noise * (1.0 - bend**2)), a)

    def _loss(self, z: Complex) -> Complex:
        w = z / self._noise
        w = np.where(w.real < 0.0, -w, w)
        # q e^-d cosh w = e^v with v below; ln(1 - q + e^v), forming no large exponential.
        v = w + np.log1p(np.exp(-2.0 * w)) - math.log(2.0) - 0.5 / self._noise**2 + math.log(self._rate)
        far = v.real > 30.0
        rest = 1.0 - self._rate
        with np.errstate(divide="ignore"):
            near = np.log(rest + np.exp(np.where(far, 0.0, v)))
        return np.where(far, v + np.log1p(rest * np.exp(-np.where(far, v, 0.0))), near)


def _both_sides(noise_multiplier: float, a: float, step: float) -> npt.NDArray[np.float64]:
    """Nodes that reach where the tilt may move the Gaussian, on either side."""
    right = span(noise_multiplier, abs(a), step)
    right = right[right > 0.5 * step]
    return np.concatenate([-right[::-1], [0.0], right])
