# scipy's root finders and numpy's complex arrays are typed too loosely to be checked strictly here.
# pyright: reportArgumentType=false
"""What a release says about the pixels of an image to somebody who has no prior on them.

Somebody who may change the model can read x + N(0, s^2 |x|^2 I) off the release, for pixels x and noise
multiplier s. Without a prior nothing better than that reading is available, so its error is the bound.
"""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import gammaincinv, gammaln, ndtr, psi

from privacy import checks

Array = npt.NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True)
class NoPriorBound:
    """Distribution of MSE, PSNR and NCC of the best reading of ``pixels`` pixels without a prior.

    ``relative_noise`` is s/sqrt(participations); ``norm`` the Euclidean norm of the image in the unit of its
    pixels; ``peak`` the pixel range of the PSNR. Quantiles ascend: ``psnr_quantile(0.99)`` is a PSNR (in dB)
    that only one reading in a hundred exceeds. NCC is uncentred: the cosine between reading and image.
    """

    relative_noise: float
    pixels: int
    norm: float
    peak: float

    @property
    def mse_mean(self) -> float:
        """Mean of the mean squared error, (s |x|)^2, in squared pixel units."""
        return (self.relative_noise * self.norm) ** 2

    def mse_quantile(self, probability: float) -> float:
        """Quantile of the mean squared error, Gamma(N/2, 2 (s |x|)^2/N), in squared pixel units."""
        half = 0.5 * self.pixels
        return self.mse_mean * float(gammaincinv(half, checks.probability(probability, "probability"))) / half

    @property
    def psnr_mean(self) -> float:
        """Mean PSNR in dB: E ln Gamma(k, theta) = psi(k) + ln theta. inf without noise."""
        if self.mse_mean == 0.0:
            return math.inf
        half = 0.5 * self.pixels
        log_mse = float(psi(half)) + math.log(self.mse_mean / half)
        return 20.0 * math.log10(self.peak) - 10.0 * log_mse / math.log(10.0)

    def psnr_quantile(self, probability: float) -> float:
        """Quantile of the PSNR in dB; inf without noise."""
        mse = self.mse_quantile(1.0 - checks.probability(probability, "probability"))
        return math.inf if mse == 0.0 else 10.0 * math.log10(self.peak**2 / mse)

    @property
    def ncc_mean(self) -> float:
        """Mean uncentred NCC; about 1/sqrt(1 + N s^2) for many pixels."""
        s = self.relative_noise
        if s == 0.0:
            return 1.0
        chi, weight = _chi(self.pixels - 1)
        g = np.linspace(-9.0, 9.0, 361)
        normal = np.exp(-0.5 * g * g)
        along = 1.0 + s * g[:, None]
        value = along / np.sqrt(along**2 + (s * chi[None, :]) ** 2)
        return float(normal @ (value @ weight) / normal.sum())

    def ncc_quantile(self, probability: float) -> float:
        """Quantile of the uncentred NCC.

        NCC <= cos(t) where the component along x, 1 + s g, is at most cot(t) s chi, chi the length of the
        N - 1 components across.
        """
        level, s = checks.probability(probability, "probability"), self.relative_noise
        if s == 0.0:
            return 1.0
        chi, weight = _chi(self.pixels - 1)

        def excess(angle: float) -> float:
            return float(weight @ ndtr(chi / math.tan(angle) - 1.0 / s)) - level

        return math.cos(float(brentq(excess, 1e-12, math.pi - 1e-12, xtol=1e-15, rtol=1e-14, maxiter=500)))


def _chi(degrees: int) -> tuple[Array, Array]:
    """Nodes and weights for the chi distribution, by the trapezoidal rule in ln chi. Weights sum to 1."""
    centre = 0.5 * math.log(max(degrees - 0.5, 0.3))
    reach = 9.0 / math.sqrt(2.0 * degrees)
    low = -max(reach, 36.0 / degrees)  # few degrees: the density falls like chi^(degrees - 1) only
    x = centre + np.linspace(low, max(reach, 2.5 if degrees < 30 else 0.0), 4001)
    log_density = degrees * x - 0.5 * np.exp(2.0 * x) - (0.5 * degrees - 1.0) * math.log(2.0)
    weight = np.exp(log_density - float(gammaln(0.5 * degrees)))
    return np.exp(x), weight / weight.sum()


def no_prior_bound(
    *, noise_multiplier: float, pixels: int, norm: float, participations: int = 1, peak: float = 1.0
) -> NoPriorBound:
    """Distribution of the error of the best reconstruction without a prior on the data.

    *Guarantee*: an estimator without a prior has no smaller expected squared error than x + N(0, s^2 |x|^2 I)
    itself (it is minimax); k participations average to noise s/sqrt(k).
    *Assumes*: full participation in ``participations`` steps, gradients clipped exactly to the clipping norm,
    ``norm`` (in pixel units) known to the reader. A public mean is a prior: an attack that uses public data
    may beat these figures, and that is a finding.
    *Edge cases*: noise multiplier 0 gives error 0, PSNR inf, NCC 1. Raises ``ValueError`` naming a wrong
    argument; at least two pixels.
    Source: Hayes, Mahloujifar and Balle, 2023, section 4, without the prior; tests/privacy/test_no_prior.py.
    """
    noise = checks.noise(noise_multiplier)
    count = checks.whole("participations", participations)
    return NoPriorBound(
        relative_noise=noise / math.sqrt(count),
        pixels=checks.whole("pixels", pixels, low=2),
        norm=checks.finite("norm", norm, low=0.0, high=math.inf, open_low=True),
        peak=checks.finite("peak", peak, low=0.0, high=math.inf, open_low=True),
    )
