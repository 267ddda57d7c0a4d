"""WideResNet-40-4 with GroupNorm and standardised kernels (Zagoruyko & Komodakis 2016; De et al. 2022)."""

from typing import final

from torch import Tensor, nn

from tasks.models.layers import StandardisedConv2d, normalisation

GROUPS = 16  # De et al. 2022
BLOCKS = 6  # per stage: depth 40 = 3 * 6 * 2 + 4
WIDER = 4


@final
class Block(nn.Module):
    """A pre-activation residual block: norm, SiLU, convolution, twice; a 1x1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.open = nn.Sequential(normalisation(channels_in, GROUPS), nn.SiLU())
        self.body = nn.Sequential(
            StandardisedConv2d(channels_in, channels_out, 3, stride),
            normalisation(channels_out, GROUPS),
            nn.SiLU(),
            StandardisedConv2d(channels_out, channels_out, 3),
        )
        same = channels_in == channels_out and stride == 1
        self.shortcut = None if same else StandardisedConv2d(channels_in, channels_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels_in, h, w) to (n, channels_out, ceil(h / stride), ceil(w / stride))."""
        opened = self.open(x)
        return (x if self.shortcut is None else self.shortcut(opened)) + self.body(opened)


@final
class WideResNet(nn.Module):
    """WideResNet-40-4 over (n, channels, height, width) to (n, outputs) logits.

    SiLU stands where the literature has ReLU: its kinks flip with float32 rounding (see `tasks.models.unet`).
    With width 16 the stages have 64, 128 and 256 channels: 8,949,210 parameters at 3 channels and 10 outputs.
    """

    def __init__(self, channels: int, outputs: int, width: int) -> None:
        super().__init__()
        before = width
        layers: list[nn.Module] = [StandardisedConv2d(channels, width, 3)]
        for stage in range(3):
            after = WIDER * width * 2**stage
            for block in range(BLOCKS):
                layers.append(Block(before, after, stride=2 if stage > 0 and block == 0 else 1))
                before = after
        layers += [normalisation(before, GROUPS), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(before, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(self.features(x))
