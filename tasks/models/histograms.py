"""A linear model over fixed features of colour and texture: histograms on rings, then random Fourier features.

No trained and no pretrained weights stand below the head: everything here is a public constant. Histograms under a
square root (Hellinger's kernel) describe what dermatologists look at: which colours, how they differ from the skin at
the border, how sharp the structures are, from the middle outwards. Random Fourier features (Rahimi & Recht 2007)
make a linear head over them a kernel machine. A feature vector has norm 1, so that the gradient of an image with the
binary loss has a norm below 1 without any clipping: the clipping norm needs no look at the data.
"""

import math
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.models.memory import Remembering

VERSION = 1  # of the features; raise it with any change to them
FOURIER = 1024  # frequencies, a cosine and a sine each
BANDWIDTH = 1.2  # standard deviation of the frequencies
FREQUENCIES_SEED = 20071203  # a public constant: the features are the same in every run
FLOOR = 1e-3  # under the square root: counts of an empty bin have a bounded slope
RINGS = (0.4, 0.7, 1.0)  # radii, half a side being 1; beyond the last: the corners
SCALES = (1, 2, 4)  # pixels over which the image is averaged before its gradient is taken
# (from, to, bins) of the histograms' centres, intensities in 0..1. Opponent axes: mean, red - green, green - blue.
COLOURS = ((0.15, 0.85, 6), (-0.05, 0.45, 5), (-0.15, 0.25, 4))
DIFFERENCES = ((-0.5, 0.2, 7), (-0.25, 0.25, 5), (-0.25, 0.25, 5))  # to the border's mean colour
SLOPES = (-6.0, -0.5, 8)  # log of the gradient's length
# Weights of the three blocks, so that each tells images apart about as much as the others.
WEIGHTS = (0.4, 0.6, 0.27)

Axis = tuple[float, float, int]


def bins(axis: Axis) -> int:
    """Return the number of bins of an axis."""
    return axis[2]


def membership(values: Tensor, axis: Axis) -> Tensor:
    """Return how far each value belongs to each bin, (n, bins, ...) for (n, ...): hats that sum to 1.

    A value between two centres is shared linearly; one outside counts for the nearest end.
    """
    low, high, count = axis
    places = (values.clamp(low, high) - low) * ((count - 1) / (high - low))
    centres = torch.arange(count, dtype=values.dtype, device=values.device).reshape(1, -1, *[1] * (values.dim() - 1))
    return (1 - (places[:, None] - centres).abs()).clamp(min=0)


def rings(sides: tuple[int, int]) -> Tensor:
    """Return the weight of each pixel in each ring's mean, (4, height, width); each sums to 1.

    A ring that no pixel's centre falls into (very small images) counts nothing.
    """
    y, x = ((torch.arange(side, dtype=torch.float64) + 0.5) / side * 2 - 1 for side in sides)
    ring = torch.bucketize((y[:, None] ** 2 + x[None, :] ** 2).sqrt(), torch.tensor(RINGS, dtype=torch.float64))
    member = torch.stack([ring == k for k in range(len(RINGS) + 1)]).double()
    return (member / member.sum(dim=(1, 2), keepdim=True).clamp(min=1)).float()


@final
class Maps(nn.Module):
    """Which bins each pixel falls into: (n, 3, h, w) to (n, bins, h, w), blocks of joint histograms beside each other.

    1. colour, 6 x 5 x 4 bins of (mean, red - green, green - blue);
    2. colour less the mean colour of the two outer rings, 7 x 5 x 5 bins;
    3. for each scale and opponent axis the log of the gradient's length, 8 bins.

    Its output is counted by the gradient engine, which keeps physical batches within memory.
    """

    blocks = (
        math.prod(map(bins, COLOURS)),
        math.prod(map(bins, DIFFERENCES)),
        len(SCALES) * 3 * bins(SLOPES),
    )
    border: Tensor

    def __init__(self, sides: tuple[int, int]) -> None:
        super().__init__()
        outer = (rings(sides) > 0)[-2:].any(dim=0).float()
        self.register_buffer("border", outer / outer.sum(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the memberships; x is the normalised input."""
        pixels = x / 4 + 0.5  # tasks.models.build.denormalise: intensities in 0..1
        skin = torch.einsum("nchw,hw->nc", pixels, self.border)[:, :, None, None]
        colours = _opponent(pixels)
        parts = [_joint(colours, COLOURS), _joint(_opponent(pixels - skin), DIFFERENCES)]
        for scale in SCALES:
            slopes = _slopes(functional.avg_pool2d(colours, scale, ceil_mode=True))
            whole = functional.interpolate(slopes, size=x.shape[2:], mode="nearest")
            parts.extend(membership(whole[:, k], SLOPES) for k in range(3))
        return torch.cat(parts, dim=1)


def _opponent(pixels: Tensor) -> Tensor:
    red, green, blue = pixels.unbind(dim=1)
    return torch.stack([pixels.mean(dim=1), red - green, green - blue], dim=1)


def _joint(colours: Tensor, axes: tuple[Axis, Axis, Axis]) -> Tensor:
    first, second, third = (membership(colours[:, k], axis) for k, axis in enumerate(axes))
    pairs = first[:, :, None] * second[:, None]
    return (pairs[:, :, :, None] * third[:, None, None]).flatten(1, 3)


def _slopes(maps: Tensor) -> Tensor:
    """Return the log of the gradient's length, central differences over two pixels, edges repeated."""
    wide = functional.pad(maps, (1, 1, 1, 1), mode="replicate")
    across = wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2]
    down = wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1]
    return 0.5 * (across**2 + down**2 + 1e-6).log()


@final
class Histograms(nn.Module):
    """The features: (n, 3, h, w) to (n, 2048), each row of norm 1; nothing in it is trained or sent."""

    rings: Tensor
    weights: Tensor
    frequencies: Tensor

    def __init__(self, sides: tuple[int, int]) -> None:
        super().__init__()
        self.maps = Maps(sides)
        self.register_buffer("rings", rings(sides).flatten(1).T.contiguous(), persistent=False)
        each = torch.cat([torch.full((n,), w) for n, w in zip(Maps.blocks, WEIGHTS, strict=True)])
        self.register_buffer("weights", each.repeat_interleave(len(RINGS) + 1), persistent=False)
        drawn = np.random.Generator(np.random.PCG64(FREQUENCIES_SEED)).standard_normal((len(self.weights), FOURIER))
        self.register_buffer("frequencies", torch.from_numpy(BANDWIDTH * drawn).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, cosines before sines."""
        shares = (self.maps(x).flatten(2) @ self.rings).flatten(1)
        angles = ((shares + FLOOR).sqrt() * self.weights) @ self.frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=1) / math.sqrt(FOURIER)


@final
class HistogramsLinear(nn.Module):
    """Fixed features and a linear layer without bias: (n, 3, h, w) to (n, outputs) logits.

    The features have norm 1: an image's gradient is (its error) x (its features), of a norm below 1 with the binary
    loss and below sqrt(2) with the categorical one.
    """

    def __init__(self, sides: tuple[int, int], outputs: int) -> None:
        super().__init__()
        self.features = Remembering(Histograms(sides), f"histograms {VERSION}")
        self.head = nn.Linear(2 * FOURIER, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(self.features(x))
