"""Layers that are safe for per-image gradients: no batch statistics, nothing in place."""

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional


@final
class CentredConv2d(nn.Module):
    """A 3x3 convolution without bias whose kernels are centred: each output channel's weights sum to zero.

    Input (n, channels_in, h, w), output (n, channels_out, h, w). The stored weight is not centred; the forward pass
    subtracts its mean over (channels_in, 3, 3), so its gradient is the centred gradient of the effective weight.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels_out, channels_in, 3, 3))
        nn.init.kaiming_normal_(self.weight, mode="fan_in", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with the centred kernels."""
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return functional.conv2d(x, weight, padding=1)


def normalisation(channels: int) -> nn.GroupNorm:
    """Return GroupNorm with at most 32 groups that divide the channels."""
    groups = min(32, channels)
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)
