"""U-Net with GroupNorm for maps and volumes (Ronneberger et al. 2015; Çiçek et al. 2016; Ziller et al. 2024)."""

from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from tasks.models.layers import normalisation

LEVELS = 5
# Groups of several channels: with a group per channel a convolution's bias would have no effect at all.
GROUPS = 8


def _double(channels_in: int, channels_out: int, dimensions: int, stride: int = 1) -> nn.Sequential:
    """Return two 3x3(x3) convolutions, the first with a stride, each followed by GroupNorm and SiLU.

    Smooth on purpose: kinks (ReLU, maximum pooling) flip with float32 rounding, and every flip moves a small image's
    gradient by a percent, which would hide a gradient that is really wrong. Mish costs six times as much.
    """
    conv = nn.Conv2d if dimensions == 2 else nn.Conv3d
    layers: list[nn.Module] = []
    for before, step in ((channels_in, stride), (channels_out, 1)):
        layers += [
            conv(before, channels_out, 3, stride=step, padding=1),
            normalisation(channels_out, GROUPS),
            nn.SiLU(),
        ]
    return nn.Sequential(*layers)


@final
class Up(nn.Module):
    """Doubles the sides of a map, crops it to the skip connection, joins both and convolves twice."""

    def __init__(self, channels: int, dimensions: int) -> None:
        super().__init__()
        transposed = nn.ConvTranspose2d if dimensions == 2 else nn.ConvTranspose3d
        self.grow = nn.Sequential(transposed(2 * channels, channels, 2, stride=2), normalisation(channels, GROUPS))
        self.body = _double(2 * channels, channels, dimensions)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map (n, 2c, *half) and (n, c, *sides) to (n, c, *sides)."""
        grown = self.grow(x)
        for axis in range(2, skip.dim()):
            grown = grown.narrow(axis, 0, skip.shape[axis])  # an odd side was rounded up on the way down
        return self.body(torch.cat([skip, grown], dim=1))


@final
class UNet(nn.Module):
    """U-Net from (n, channels, *sides) to a logit map (n, outputs, *sides); two or three sides of any length.

    With width 16, 1 channel and 3 outputs in three dimensions it has the paper's 5,648,371 parameters: five levels of
    16 to 256 channels with two convolutions each, the first of a lower level with stride 2, four transposed
    convolutions upwards.
    """

    def __init__(self, channels: int, outputs: int, width: int, dimensions: int) -> None:
        super().__init__()
        wide = [width * 2**level for level in range(LEVELS)]
        self.down = nn.ModuleList(
            _double(before, after, dimensions, stride=2 if level > 0 else 1)
            for level, (before, after) in enumerate(pairwise([channels, *wide]))
        )
        self.up = nn.ModuleList(Up(count, dimensions) for count in reversed(wide[:-1]))
        self.head = (nn.Conv2d if dimensions == 2 else nn.Conv3d)(width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logit map."""
        skips: list[Tensor] = []
        for body in self.down:
            x = body(x)
            skips.append(x)
        for up, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = up(x, skip)
        return self.head(x)
