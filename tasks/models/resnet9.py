"""ResNet-9 with GroupNorm, Mish and centred kernels (Ziller et al. 2024; Klause et al. 2022, ScaleNorm)."""

from typing import final

from torch import Tensor, nn

from tasks.models.layers import CentredConv2d, normalisation


def _conv(channels_in: int, channels_out: int, *, pool: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = [
        CentredConv2d(channels_in, channels_out),
        normalisation(channels_out),
        nn.Mish(),
    ]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))


@final
class Residual(nn.Module):
    """Two convolutions around a skip connection, normalised after the addition (ScaleNorm)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(channels, channels), _conv(channels, channels))
        self.scale_norm = normalisation(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return norm(x + body(x)), same shape."""
        return self.scale_norm(x + self.body(x))


@final
class ResNet9(nn.Module):
    """ResNet-9 over (n, channels, height, width) to (n, outputs) logits.

    With width 64 it has the paper's 2,439,489 parameters (3 channels, 1 output) and 2,606,437 (1 channel, 165).
    """

    def __init__(self, channels: int, outputs: int, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _conv(channels, width),
            _conv(width, 2 * width, pool=True),
            Residual(2 * width),
            _conv(2 * width, 4 * width, pool=True),
            _conv(4 * width, 4 * width, pool=True),
            Residual(4 * width),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Linear(16 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(self.features(x))
