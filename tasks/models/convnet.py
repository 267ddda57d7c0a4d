"""A strided ConvNet with GroupNorm: no pooling and no average, so that a gradient keeps where things are."""

from typing import final

from torch import Tensor, nn

from tasks.models.layers import normalisation

GROUPS = 4  # several channels share a group: with one channel each, colour and contrast would be normalised away


def _layer(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1),
        normalisation(channels_out, GROUPS),
        nn.SiLU(),
    )


@final
class ConvNet(nn.Module):
    """3x3 convolutions of stride 1, 2, 2 with w, 2w, 4w channels, flattened into a linear layer.

    (n, channels, height, width) to (n, outputs) logits. The network on which gradient inversion works (Geiping et al.
    2020 use its like): global average pooling, as in most networks, takes the places of things out of the gradient.
    SiLU stands where the literature has ReLU: its second derivative, which inversion follows, is not zero.
    """

    def __init__(self, shape: tuple[int, int, int], outputs: int, width: int) -> None:
        super().__init__()
        channels, height, width_of_image = shape
        self.features = nn.Sequential(
            _layer(channels, width, 1), _layer(width, 2 * width, 2), _layer(2 * width, 4 * width, 2), nn.Flatten()
        )
        places = -(-height // 4) * -(-width_of_image // 4)
        self.head = nn.Linear(4 * width * places, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(self.features(x))
