"""Per-image gradients of convolutions: torch's own gradient formula, per image or with a group for every image.

Opacus' own unfolds the input: 27 copies of it for a 3x3x3 kernel, and wrong if the input is stored channels last.
For transposed convolutions it has only a generic one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.models.layers import CentredConv2d, StandardisedConv2d

Convolution = nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d

# Which way is fastest was measured on one core. On maps of up to so many places it is one matrix product.
FEW_PLACES = 64
# Up to so many channels * first side * second side, torch has a slow path for an image that comes alone.
SMALL_IMAGE = 20_480


@final
@dataclass(frozen=True)
class Geometry:
    """How a convolution's kernel moves; one entry per side of the map."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int

    @staticmethod
    def of(layer: Convolution) -> "Geometry":
        """Return a layer's geometry; its padding must be numbers, of zeros."""
        padding = tuple(int(p) for p in layer.padding)
        return Geometry(
            layer.stride, padding, layer.dilation, layer.transposed, tuple(layer.output_padding), layer.groups
        )

    @staticmethod
    def plain(stride: int, padding: int) -> "Geometry":
        """Return the geometry of a plain 2-D convolution."""
        return Geometry((stride,) * 2, (padding,) * 2, (1, 1), False, (0, 0), 1)


def of_convolution(layer: Convolution, activations: Sequence[Tensor], backprops: Tensor) -> dict[Tensor, Tensor]:
    """Return the gradients of weight and bias, (n, *shape) each; any stride, padding with zeros, dilation, groups.

    Args:
        layer: the layer.
        activations: its input (n, channels_in, *sides) as the only entry.
        backprops: the gradient of its output (n, channels_out, *sides).
    """
    found: dict[Tensor, Tensor] = {}
    if layer.weight.requires_grad:
        found[layer.weight] = _weights(activations[0], backprops, layer.weight.detach(), Geometry.of(layer))
    if layer.bias is not None and layer.bias.requires_grad:
        found[layer.bias] = backprops.flatten(2).sum(dim=2)
    return found


def of_centred(layer: CentredConv2d, activations: Sequence[Tensor], backprops: Tensor) -> dict[Tensor, Tensor]:
    """Return the gradients of a centred convolution's weight: those of the effective weight, centred."""
    gradient = _weights(activations[0], backprops, layer.weight.detach(), Geometry.plain(1, 1))
    return {layer.weight: gradient - gradient.mean(dim=(2, 3, 4), keepdim=True)}


def of_standardised(
    layer: StandardisedConv2d, activations: Sequence[Tensor], backprops: Tensor
) -> dict[Tensor, Tensor]:
    """Return the gradients of a standardised convolution's weight.

    For every output channel, with effective weight e = (w - mean(w)) / d, d = sqrt(sum((w - mean(w))^2) + eps), and its
    gradient g, the chain rule gives (g - mean(g) - e sum(g e)) / d.
    """
    geometry = Geometry.plain(layer.stride, layer.padding)
    effective, divisor = (part.detach() for part in layer.effective())
    gradient = _weights(activations[0], backprops, effective, geometry)
    along = (gradient * effective).sum(dim=(2, 3, 4), keepdim=True)
    return {layer.weight: (gradient - gradient.mean(dim=(2, 3, 4), keepdim=True) - effective * along) / divisor}


def _weights(inputs: Tensor, backprops: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Return the gradient of a convolution's weight for every image, (n, *weight.shape)."""
    count, sides = len(inputs), inputs.shape[2:]
    if count == 0:
        return weight.new_zeros((0, *weight.shape))
    flat = len(sides) == 2 and not geometry.transposed and geometry.groups == 1
    if flat and math.prod(backprops.shape[2:]) <= FEW_PLACES:
        return _by_patches(inputs, backprops, weight, geometry)
    if inputs.shape[1] * math.prod(sides[:2]) <= SMALL_IMAGE:
        # The batch as one image whose channels form a group per image: each group has a weight of its own.
        together = _torchs(
            inputs.reshape(1, -1, *sides),
            backprops.reshape(1, -1, *backprops.shape[2:]),
            weight.repeat(count, *[1] * (weight.dim() - 1)),
            geometry,
            geometry.groups * count,
        )
        return together.reshape(count, *weight.shape)
    each = [_torchs(inputs[i : i + 1], backprops[i : i + 1], weight, geometry, geometry.groups) for i in range(count)]
    return torch.stack(each)


def _by_patches(inputs: Tensor, backprops: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    kernel = (weight.shape[2], weight.shape[3])
    # torch's unfold honours strides, unlike opacus' own, so any memory layout is read rightly.
    patches = functional.unfold(inputs, kernel, geometry.dilation, geometry.padding, geometry.stride)
    return torch.einsum("nop,nqp->noq", backprops.flatten(2), patches).reshape(-1, *weight.shape)


def _torchs(inputs: Tensor, backprops: Tensor, weight: Tensor, geometry: Geometry, groups: int) -> Tensor:
    return torch.ops.aten.convolution_backward(
        backprops,
        inputs,
        weight,
        None,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        geometry.transposed,
        geometry.output_padding,
        groups,
        [False, True, False],
    )[1]
