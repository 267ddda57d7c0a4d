"""Build a model from its specification, and carry its parameters as one flat vector."""

import copy
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from configs.errors import InputError
from tasks.models.convnet import ConvNet
from tasks.models.histograms import HistogramsLinear
from tasks.models.layers import CentredConv2d, StandardisedConv2d
from tasks.models.resnet9 import ResNet9
from tasks.models.scattering import ScatteringLinear
from tasks.models.spec import ModelSpec, WideBlock
from tasks.models.unet import UNet
from tasks.models.wide_resnet import WideResNet

# Fixed public constants: statistics of the hospitals' own images would leak outside the ledger.
PIXEL_MEAN = 0.5
PIXEL_STD = 0.25

# Layers whose per-image gradients are tested against one-by-one autograd. Opacus looks a layer up by its exact type.
TRAINABLE = frozenset(
    {
        nn.Linear,
        nn.GroupNorm,
        nn.Conv2d,
        nn.Conv3d,
        nn.ConvTranspose2d,
        nn.ConvTranspose3d,
        CentredConv2d,
        StandardisedConv2d,
    }
)


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
        """Return what is added to the first logit or to the image, (n,)."""
        z = self.block.scale * (x.flatten(1) - self.centre)
        active = torch.clamp(self.units(z), min=0.0, max=self.block.ceiling)
        return self.block.gain * active.sum(dim=1)


@final
class Wired(nn.Module):
    """A model with a wide block wired to its logits, or logit maps, as (+r, -r), or to the image that it reads."""

    def __init__(self, core: nn.Module, wide: WideModule, outputs: int) -> None:
        super().__init__()
        self.core = core
        self.wide = wide
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the core, (n, outputs, ...), shifted by the block; or those of the shifted image."""
        if self.wide.block.wiring == "image":
            return self.core(x + self.wide(x).reshape(-1, *[1] * (x.dim() - 1)))
        logits: Tensor = self.core(x)
        sign = logits.new_zeros(self.outputs)
        sign[0] = 1.0
        if self.outputs > 1:
            sign[1] = -1.0
        shift = self.wide(x)[:, None] * sign
        return logits + shift.reshape(*shift.shape, *[1] * (logits.dim() - 2))


def build(spec: ModelSpec) -> nn.Module:
    """Build the model; parameters of the agreed architecture keep their names under `core.` if a block is wired.

    Raises:
        InputError: the specification is none that can be built.
    """
    problem = spec.problem()
    if problem is not None:
        raise InputError(f"the model cannot be built: {problem}.")
    core = _core(spec)
    check_per_image(core)
    _check_runs(core, spec)
    if spec.block is None:
        return core
    dimension = int(torch.Size(spec.shape).numel())
    return Wired(core, WideModule(spec.block, dimension), spec.outputs)


def _core(spec: ModelSpec) -> nn.Module:
    channels, *sides = spec.shape
    match spec.kind:
        case "resnet9":
            return ResNet9(channels, spec.outputs, spec.width)
        case "wide_resnet":
            return WideResNet(channels, spec.outputs, spec.width)
        case "scattering":
            return ScatteringLinear((channels, sides[0], sides[1]), spec.outputs)
        case "histograms":
            return HistogramsLinear((sides[0], sides[1]), spec.outputs)
        case "convnet":
            return ConvNet((channels, sides[0], sides[1]), spec.outputs, spec.width)
        case "unet":
            return UNet(channels, spec.outputs, spec.width, len(sides))


def _check_runs(core: nn.Module, spec: ModelSpec) -> None:
    """Refuse sizes at which a normalisation has a single value to work on: a pass that computes nothing tells."""
    try:
        with torch.no_grad():
            copy.deepcopy(core).to("meta")(torch.empty((1, *spec.shape), device="meta"))
    except (ValueError, RuntimeError) as error:
        message = f"a {spec.kind} of width {spec.width} does not run on one image of shape {spec.shape}"
        raise InputError(f"the model cannot be built: {message}; use larger images or more width.") from error


def check_per_image(model: nn.Module) -> None:
    """Refuse layers that mix images, work in place, or train in a way whose per-image gradients are not tested.

    Raises:
        InputError: naming the layer.
    """
    for name, layer in model.named_modules():
        problem = _mixes_images(layer) or _is_untested(layer)
        if problem is not None:
            raise InputError(f"model layer '{name}' {problem}.")


def _mixes_images(layer: nn.Module) -> str | None:
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):  # pyright: ignore[reportPrivateUsage]
        return "is a BatchNorm: it mixes images; use GroupNorm"
    if getattr(layer, "track_running_stats", False):
        return "keeps running statistics of the images; set track_running_stats=False"
    if getattr(layer, "inplace", False):
        return "works in place, which breaks per-image gradients; set inplace=False"
    return None


def _is_untested(layer: nn.Module) -> str | None:
    trained = {name for name, value in layer.named_parameters(recurse=False) if value.requires_grad}
    if not trained:
        return None
    kind = type(layer).__name__
    if type(layer) not in TRAINABLE or not trained <= {"weight", "bias"}:
        return f"is a {kind} with parameters ({', '.join(sorted(trained))}) whose per-image gradients are not tested"
    if getattr(layer, "padding_mode", "zeros") != "zeros" or isinstance(getattr(layer, "padding", 0), str):
        return f"is a {kind} with padding other than a number of zeros: its per-image gradients are not tested"
    return None


def initial_weights(spec: ModelSpec, seed: int) -> dict[str, Tensor]:
    """Return freshly initialised parameters and buffers, drawn from one seed and nothing global."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {name: value.detach().clone() for name, value in build(spec).state_dict().items()}


def parameter_names(spec: ModelSpec) -> frozenset[str]:
    """Return the names of the trained parameters; what else a state holds are buffers."""
    with torch.device("meta"):
        return frozenset(name for name, _ in build(spec).named_parameters())


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a model, strictly: every name and shape must fit."""
    model.load_state_dict(dict(weights), strict=True)
