"""A linear model over fixed wavelet scattering features (Tramèr & Boneh 2021; Bruna & Mallat 2013)."""

import math
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tasks.models.memory import Remembering

VERSION = 1  # of the features; raise it with any change to them
SCALES = 2  # J: what is averaged spans 2^J pixels
ORIENTATIONS = 8  # L
PER_CHANNEL = 1 + SCALES * ORIENTATIONS + ORIENTATIONS**2 * SCALES * (SCALES - 1) // 2  # 81
GROUPS = 27  # of GroupNorm, as Tramèr & Boneh
GRID = 8  # most places per side that the linear layer sees; 32x32 images give 8x8 of their own
MARGIN = 2**SCALES
AT_ONCE = 2**20  # floats of one map over a physical batch


def gabor(sides: tuple[int, int], sigma: float, angle: float, frequency: float, slant: float) -> NDArray[np.complex128]:
    """Return a Gabor filter on a periodic grid, complex (height, width), centred on (0, 0), its envelope of sum 1.

    The envelope is a Gaussian of standard deviation sigma along the wave, sigma / slant across; the wave is
    exp(i frequency (cos(angle) y + sin(angle) x)), y and x in pixels.
    """
    reach = math.ceil(8 * sigma / slant)  # beyond it the envelope is below 1e-13
    y = np.arange(-reach, reach + 1)[:, None]
    x = np.arange(-reach, reach + 1)[None, :]
    along = np.cos(angle) * y + np.sin(angle) * x
    across = -np.sin(angle) * y + np.cos(angle) * x
    envelope = np.exp(-(along**2 + (slant * across) ** 2) / (2 * sigma**2)) * slant / (2 * math.pi * sigma**2)
    periodic = np.zeros(sides, dtype=np.complex128)
    np.add.at(periodic, (y % sides[0], x % sides[1]), envelope * np.exp(1j * frequency * along))
    return periodic


def filters(sides: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the transfer functions of the wavelets (J, L, height, width) and of the average (height, width).

    Morlet wavelets of scale j: sigma .8 * 2^j, frequency 3 pi / 4 / 2^j, slant 4 / L, angles (L/2 - 1 - l) pi / L;
    average: Gaussian of sigma .8 * 2^(J-1) (the constants of Kymatio). They are real: every filter is Hermitian.
    """
    low = np.fft.fft2(gabor(sides, 0.8 * 2 ** (SCALES - 1), 0.0, 0.0, 1.0)).real
    waves = np.empty((SCALES, ORIENTATIONS, *sides))
    slant = 4.0 / ORIENTATIONS
    for j in range(SCALES):
        for k in range(ORIENTATIONS):
            angle = (ORIENTATIONS // 2 - 1 - k) * math.pi / ORIENTATIONS
            sigma, frequency = 0.8 * 2**j, 0.75 * math.pi / 2**j
            wave = gabor(sides, sigma, angle, frequency, slant)
            envelope = gabor(sides, sigma, angle, 0.0, slant)
            # Morlet: the Gabor filter less as much of its envelope as makes it blind to a constant.
            waves[j, k] = np.fft.fft2(wave - wave.sum() / envelope.sum() * envelope).real
    return waves, low


@final
class Scattering(nn.Module):
    """Scattering of order 2, J = 2, L = 8: (n, channels, h, w) to (n, channels * 81, h // 4, w // 4), no parameters.

    The image is reflected over its border; with wavelets psi and the average phi the features are x * phi, |x * psi| *
    phi and ||x * psi_1| * psi_2| * phi for psi_2 of a larger scale, read at every fourth pixel. Convolutions are
    circular, by FFT. The filters are buffers that no state dictionary holds: they are never sent nor trained.
    """

    waves: Tensor
    low: Tensor

    def __init__(self, sides: tuple[int, int]) -> None:
        super().__init__()
        step = 2**SCALES
        self.places = (sides[0] // step, sides[1] // step)
        self.padded = (math.ceil(sides[0] / step) * step + 2 * MARGIN, math.ceil(sides[1] / step) * step + 2 * MARGIN)
        self.sides = sides
        waves, low = filters(self.padded)
        self.register_buffer("waves", torch.from_numpy(waves).float(), persistent=False)
        self.register_buffer("low", torch.from_numpy(low).float(), persistent=False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return the features; channels are ordered (channel, path): x, the 16 of order 1, the 64 of order 2."""
        if len(x) == 0:  # an FFT of nothing is an error
            return x.new_zeros((0, PER_CHANNEL * x.shape[1], *self.places))
        rows = max(1, AT_ONCE // (x.shape[1] * math.prod(self.padded)))
        return torch.cat([self._features(part) for part in x.split(rows)])

    def _features(self, x: Tensor) -> Tensor:
        down, right = (padded - side - MARGIN for padded, side in zip(self.padded, self.sides, strict=True))
        spectrum = torch.fft.fft2(functional.pad(x, (MARGIN, right, MARGIN, down), mode="reflect"))
        first: list[Tensor] = []
        second: list[Tensor] = []
        for j in range(SCALES):
            for k in range(ORIENTATIONS):
                inner = torch.fft.fft2(torch.fft.ifft2(spectrum * self.waves[j, k]).abs())
                first.append(self._average(inner))
                for larger in range(j + 1, SCALES):
                    moduli = torch.fft.ifft2(inner[:, :, None] * self.waves[larger]).abs()
                    second.extend(self._average(torch.fft.fft2(moduli)).unbind(dim=2))
        return torch.stack([self._average(spectrum), *first, *second], dim=2).flatten(1, 2)

    def _average(self, spectrum: Tensor) -> Tensor:
        """Return (..., h // 4, w // 4) averages of a map that is given by its spectrum."""
        smooth = torch.fft.ifft2(spectrum * self.low).real
        height, width = (MARGIN + 2**SCALES * places for places in self.places)
        return smooth[..., MARGIN : height : 2**SCALES, MARGIN : width : 2**SCALES]


@final
class ScatteringLinear(nn.Module):
    """Scattering, GroupNorm without parameters, and a linear layer: (n, channels, h, w) to (n, outputs) logits.

    Larger images than 32x32 are averaged to 8x8 places, so that the linear layer stays small against the noise. All
    below the linear layer is fixed, so an image's features are computed once per process.
    """

    def __init__(self, shape: tuple[int, int, int], outputs: int) -> None:
        super().__init__()
        paths = PER_CHANNEL * shape[0]
        grid = (min(GRID, shape[1] // 2**SCALES), min(GRID, shape[2] // 2**SCALES))
        trunk = nn.Sequential(
            Scattering(shape[1:]), nn.AdaptiveAvgPool2d(grid), nn.GroupNorm(GROUPS, paths, affine=False), nn.Flatten()
        )
        self.features = Remembering(trunk, f"scattering {VERSION}")
        self.head = nn.Linear(paths * math.prod(grid), outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(self.features(x))
