"""Layers that are safe for per-image gradients: no batch statistics, nothing in place."""

import math
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


@final
class StandardisedConv2d(nn.Module):
    """A convolution without bias whose kernels have mean 0 and variance 1 / fan_in (Qiao et al. 2019, De et al. 2022).

    Input (n, channels_in, h, w), output (n, channels_out, ceil(h / stride), ceil(w / stride)) for an odd kernel.
    The effective weight of an output channel is (w - mean(w)) / sqrt(fan_in * var(w) + 1e-4).
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels_out, channels_in, kernel, kernel))
        self.stride = stride
        self.padding = kernel // 2
        nn.init.kaiming_normal_(self.weight, mode="fan_in", nonlinearity="relu")

    def effective(self) -> tuple[Tensor, Tensor]:
        """Return the standardised weight and the divisor of each output channel, (channels_out, 1, 1, 1)."""
        centred = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        fan_in = math.prod(self.weight.shape[1:])
        divisor = (fan_in * centred.square().mean(dim=(1, 2, 3), keepdim=True) + 1e-4).sqrt()
        return centred / divisor, divisor

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with the standardised kernels."""
        return functional.conv2d(x, self.effective()[0], stride=self.stride, padding=self.padding)


def normalisation(channels: int, most: int = 32) -> nn.GroupNorm:
    """Return GroupNorm with at most `most` groups that divide the channels."""
    groups = min(most, channels)
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)
