"""Gradient sums: plain, or clipped per unit through Opacus' hooks, accumulated in float64.

The only file that imports opacus. The hooks fill `grad_sample` per image; clipping, summing and noise are ours, since
`PrivacyEngine` brings an accountant that hangs at the budgets of this project and noise in float32.
"""

import copy
import functools
import math
import warnings
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import final

import torch
from opacus.grad_sample import GradSampleModule, register_grad_sampler
from torch import Tensor, nn

from clients.layer_gradients import of_centred, of_convolution, of_standardised
from configs.sections import LossName
from tasks import losses
from tasks.models import ModelSpec, build, load_weights, normalise
from tasks.models.layers import CentredConv2d, StandardisedConv2d

# Opacus' hooks start below the first layer: that no image asks for its own gradient is as it should be.
HOOK_NOTE = "Full backward hook is firing when gradients are computed with respect to module outputs"
warnings.filterwarnings("ignore", message=HOOK_NOTE)

# Physical batches are fixed by the model and the images' size, never by the machine: another size would add in
# another order. The limits: floats of per-image gradients, floats of layer outputs, and rows without clipping.
PER_IMAGE_FLOATS = 2**26
ACTIVATION_FLOATS = 2**28
PLAIN_ROWS = 128
AT_ONCE = 2**22  # floats that are cast at the same time


register_grad_sampler([nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d])(of_convolution)
register_grad_sampler(CentredConv2d)(of_centred)
register_grad_sampler(StandardisedConv2d)(of_standardised)


@final
class GradientEngine:
    """A model with hooks, built once per process and architecture and reloaded with weights.

    Sums are returned as one flat float64 vector in the order of `names`.
    """

    def __init__(self, model: nn.Module, loss: LossName, device: str = "cpu") -> None:
        self._blueprint = copy.deepcopy(model).to("meta")
        self._measured: dict[tuple[int, ...], int] = {}
        self.model = model.to(device)
        self.model.train()
        self.device = device
        self.loss = losses.loss(loss)
        self.hooked = GradSampleModule(self.model, batch_first=True, loss_reduction="sum")
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.names = [name for name, p in self.model.named_parameters() if p.requires_grad]
        self.shapes = {name: tuple(p.shape) for name, p in self.model.named_parameters()}
        self.size = sum(p.numel() for p in self.parameters)

    def fits(self, weights: Mapping[str, Tensor]) -> bool:
        """Whether these are all parameters and buffers of the model, each in its shape."""
        own = {name: value.shape for name, value in self.model.state_dict().items()}
        return own == {name: value.shape for name, value in weights.items()}

    def load(self, weights: dict[str, Tensor]) -> None:
        """Load parameters and buffers by name, strictly."""
        load_weights(self.model, weights)

    def write(self, vector: Tensor) -> None:
        """Write a flat vector into the parameters, rounded to float32."""
        with torch.no_grad():
            for parameter, part in zip(self.parameters, self._split(vector), strict=True):
                parameter.copy_(part.view_as(parameter))

    def read(self) -> Tensor:
        """Return the parameters as one flat float64 vector."""
        return torch.cat([p.detach().double().flatten().cpu() for p in self.parameters])

    def by_name(self, vector: Tensor) -> dict[str, Tensor]:
        """Return a flat vector's parts under their parameters' names and shapes."""
        parts = self._split(vector)
        return {n: part.reshape(self.shapes[n]) for n, part in zip(self.names, parts, strict=True)}

    def _split(self, vector: Tensor) -> tuple[Tensor, ...]:
        return torch.split(vector, [p.numel() for p in self.parameters])

    @contextmanager
    def without_hooks(self) -> Generator[None, None, None]:
        """Make backward passes plain: no per-image gradients are computed inside."""
        self.hooked.disable_hooks()
        try:
            yield
        finally:
            self.hooked.enable_hooks()

    def plain_sum(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the gradients of uint8 images (n, c, ...), unclipped: float64 (size,)."""
        total = torch.zeros(self.size, dtype=torch.float64)
        rows = self._plain_rows(images)
        with self.without_hooks():
            for start in range(0, len(images), rows):
                self._backward(images[start : start + rows], targets[start : start + rows])
                for parameter, part in zip(self.parameters, self._split(total), strict=True):
                    if parameter.grad is not None:
                        _add(part, parameter.grad.flatten().cpu())
        self._clear()
        return total

    def clipped_sum(self, images: Tensor, targets: Tensor, groups: Tensor, clipping_norm: float) -> Tensor:
        """Return the sum over units of the unit's gradient, clipped to `clipping_norm`: float64 (size,).

        Guarantee: adding or removing one unit (all its images and views) moves the sum by at most `clipping_norm`
        in Euclidean norm, up to rounding: float64 in clipping and adding, float32 in each unit's own gradient.
        Assumes: no layer mixes images, the hooks are right for every layer (see `clients.selfcheck`), and weights at
        which a unit's gradient is not all rounding: in float32 its last bits depend on the physical batch that it
        shares, and weights made so that nothing else is left can move the sum by 2 C (docs/threat-model.md).
        Edge cases: an empty batch gives zeros; a unit whose gradient is not finite contributes nothing, since
        whatever it contributed could not be bounded; a unit of more images than fit is summed in pieces, then clipped.

        Args:
            images: uint8 (n, c, h, w) or (n, c, d, h, w).
            targets: int64 (n,), or voxel classes (n, h, w) or (n, d, h, w).
            groups: int64 (n,), the unit of each row, ascending.
            clipping_norm: C > 0.
        """
        total = torch.zeros(self.size, dtype=torch.float64)
        for part in _chunks(groups, self._hooked_rows(images)):
            if groups[part.start] == groups[part.stop - 1]:
                # A unit alone in its physical batch needs no hooks: the batch's gradient is the unit's.
                total += _clipped(self.plain_sum(images[part], targets[part]), clipping_norm)
            else:
                self._backward(images[part], targets[part])
                total += self._clip(groups[part], clipping_norm)
        self._clear()
        return total

    def _plain_rows(self, images: Tensor) -> int:
        return max(1, min(PLAIN_ROWS, ACTIVATION_FLOATS // self._activations(images)))

    def _hooked_rows(self, images: Tensor) -> int:
        return max(1, min(PER_IMAGE_FLOATS // self.size, ACTIVATION_FLOATS // self._activations(images)))

    def _activations(self, images: Tensor) -> int:
        """Return the floats of all layers' outputs for one image, found by a pass that computes nothing."""
        shape = tuple(images.shape[1:])
        if shape not in self._measured:
            counts = [1]
            layers = [layer for layer in self._blueprint.modules() if not list(layer.children())]
            hooks = [layer.register_forward_hook(lambda _, __, out: counts.append(out.numel())) for layer in layers]
            with torch.no_grad():
                self._blueprint(torch.empty((1, *shape), device="meta"))
            for hook in hooks:
                hook.remove()
            self._measured[shape] = sum(counts)
        return self._measured[shape]

    def _backward(self, images: Tensor, targets: Tensor) -> None:
        self._clear()
        inputs = normalise(images.to(self.device)).contiguous()
        self.loss(self.hooked(inputs), targets.to(self.device)).sum().backward()

    def _clip(self, groups: Tensor, clipping_norm: float) -> Tensor:
        _, unit = torch.unique_consecutive(groups, return_inverse=True)
        count = int(unit[-1]) + 1
        single = count == len(unit)
        samples: list[Tensor] = []
        squares = torch.zeros(count, dtype=torch.float64, device=self.device)
        for parameter in self.parameters:
            sample: Tensor = parameter.grad_sample.flatten(1)  # type: ignore[attr-defined]
            if not single:
                sample = sample.new_zeros(count, sample.shape[1]).index_add_(0, unit.to(sample.device), sample)
            samples.append(sample)
            squares += torch.linalg.vector_norm(sample, dim=1, dtype=torch.float64) ** 2
        norms = squares.sqrt()
        factors = torch.clamp(clipping_norm / norms.clamp(min=1e-300), max=1.0)
        if not bool(torch.isfinite(norms).all()):
            factors = torch.where(torch.isfinite(norms), factors, 0.0)
            samples = [torch.nan_to_num(s, nan=0.0, posinf=0.0, neginf=0.0) for s in samples]
        return torch.cat([factors @ sample.double() for sample in samples]).cpu()

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
            parameter.grad_sample = None  # type: ignore[attr-defined]


def _add(total: Tensor, gradient: Tensor) -> None:
    """Add a float32 vector to a float64 one, piece by piece: torch would first make a float64 copy of it all."""
    for part, piece in zip(total.split(AT_ONCE), gradient.split(AT_ONCE), strict=True):
        part.add_(piece)


def _clipped(gradient: Tensor, clipping_norm: float) -> Tensor:
    """Return a unit's gradient (size,) scaled to a norm of at most `clipping_norm`; zeros if it is not finite."""
    norm = float(torch.linalg.vector_norm(gradient))
    if not math.isfinite(norm):
        return torch.zeros_like(gradient)
    return gradient.mul_(min(1.0, clipping_norm / max(norm, 1e-300)))


def _chunks(groups: Tensor, rows: int) -> Iterator[slice]:
    """Yield slices of at most `rows` rows that never cut a unit; a larger unit comes whole and alone."""
    if len(groups) == 0:
        return
    _, counts = torch.unique_consecutive(groups, return_counts=True)
    start = end = 0
    for count in counts.tolist():
        if end > start and end - start + count > rows:
            yield slice(start, end)
            start = end
        end += count
    yield slice(start, end)


@functools.lru_cache(maxsize=4)
def engine(spec: ModelSpec, loss: LossName, device: str = "cpu") -> GradientEngine:
    """Return this process' engine for an architecture and a loss."""
    return GradientEngine(build(spec), loss, device)


def discard_engines() -> None:
    """Forget every engine: after an exception between a forward and a backward pass Opacus' hooks are out of step."""
    engine.cache_clear()
