"""Build a model from its specification, and carry its parameters as one flat vector."""

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from configs.errors import InputError
from tasks.models.resnet9 import ResNet9
from tasks.models.spec import ModelSpec, WideBlock

# Fixed public constants: statistics of the hospitals' own images would leak outside the ledger.
PIXEL_MEAN = 0.5
PIXEL_STD = 0.25


def normalise(pixels: Tensor) -> Tensor:
    """Map uint8 pixels to the model's input, float32, with public constants."""
    return (pixels.to(torch.float32) / 255.0 - PIXEL_MEAN) / PIXEL_STD


def denormalise(inputs: Tensor) -> Tensor:
    """Map the model's input back to intensities; an image's own lie in [0, 1], an estimate may lie outside."""
    return inputs * PIXEL_STD + PIXEL_MEAN


@final
class WideModule(nn.Module):
    """The wide block of :class:`WideBlock`; its centre is a buffer that the broadcast carries."""

    centre: Tensor

    def __init__(self, block: WideBlock, dimension: int) -> None:
        super().__init__()
        self.units = nn.Linear(dimension, block.rows)
        self.block = block
        self.register_buffer("centre", torch.zeros(dimension))

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to the first logit, (n,)."""
        z = self.block.scale * (x.flatten(1) - self.centre)
        active = torch.clamp(self.units(z), min=0.0, max=self.block.ceiling)
        return self.block.gain * active.sum(dim=1)


@final
class Wired(nn.Module):
    """A model with a wide block wired to its logits as (+r, -r)."""

    def __init__(self, core: nn.Module, wide: WideModule, outputs: int) -> None:
        super().__init__()
        self.core = core
        self.wide = wide
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the core, shifted by the block."""
        sign = torch.zeros(self.outputs)
        sign[0] = 1.0
        if self.outputs > 1:
            sign[1] = -1.0
        return self.core(x) + self.wide(x)[:, None] * sign


def build(spec: ModelSpec) -> nn.Module:
    """Build the model; parameters of the agreed architecture keep their names under `core.` if a block is wired."""
    channels = spec.shape[0]
    core = ResNet9(channels, spec.outputs, spec.width)
    check_per_image(core)
    if spec.block is None:
        return core
    dimension = int(torch.Size(spec.shape).numel())
    return Wired(core, WideModule(spec.block, dimension), spec.outputs)


def check_per_image(model: nn.Module) -> None:
    """Refuse layers that mix images or work in place: their per-image gradients would be wrong.

    Raises:
        InputError: naming the layer.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.modules.batchnorm._BatchNorm, nn.SyncBatchNorm)):  # pyright: ignore[reportPrivateUsage]
            raise InputError(f"model layer '{name}' is a BatchNorm: it mixes images; use GroupNorm.")
        if getattr(layer, "inplace", False):
            raise InputError(
                f"model layer '{name}' works in place, which breaks per-image gradients; set inplace=False."
            )


def initial_weights(spec: ModelSpec, seed: int) -> dict[str, Tensor]:
    """Return freshly initialised parameters and buffers, drawn from one seed and nothing global."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {name: value.detach().clone() for name, value in build(spec).state_dict().items()}


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a model, strictly: every name and shape must fit."""
    model.load_state_dict(dict(weights), strict=True)
