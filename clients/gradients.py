"""Gradient sums: plain, or clipped per unit through Opacus' hooks, accumulated in float64.

The only file that imports opacus. The hooks fill `grad_sample` per image; clipping, summing and noise are ours, since
`PrivacyEngine` brings an accountant that hangs at the budgets of this project and noise in float32.
"""

import functools
import warnings
from collections.abc import Iterator
from typing import final

import torch
from opacus.grad_sample import GradSampleModule, register_grad_sampler
from torch import Tensor, nn
from torch.nn import functional

from configs.sections import LossName
from tasks import losses
from tasks.models import ModelSpec, build, load_weights, normalise
from tasks.models.layers import CentredConv2d

# Opacus' hooks start below the first layer: that no image asks for its own gradient is as it should be.
HOOK_NOTE = "Full backward hook is firing when gradients are computed with respect to module outputs"
warnings.filterwarnings("ignore", message=HOOK_NOTE)

# Physical batches are fixed by the model's size, never by the machine: another size would add in another order.
PER_IMAGE_FLOATS = 2**26
PLAIN_ROWS = 128


@register_grad_sampler(CentredConv2d)
def _centred_conv_gradients(
    layer: CentredConv2d, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    """Per-image gradients of a centred convolution: those of the effective weight, centred."""
    if len(backprops) == 0:
        return {layer.weight: layer.weight.new_zeros((0, *layer.weight.shape))}
    # torch's unfold honours strides, unlike opacus' own, so any memory layout is read rightly.
    patches = functional.unfold(activations[0], kernel_size=3, padding=1)
    gradient = torch.einsum("nop,nqp->noq", backprops.flatten(2), patches)
    gradient = gradient - gradient.mean(dim=2, keepdim=True)
    return {layer.weight: gradient.reshape(-1, *layer.weight.shape)}


@final
class GradientEngine:
    """A model with hooks, built once per process and architecture and reloaded with weights.

    Sums are returned as one flat float64 vector in the order of `names`.
    """

    def __init__(self, model: nn.Module, loss: LossName, device: str = "cpu") -> None:
        self.model = model.to(device)
        self.model.train()
        self.device = device
        self.loss = losses.loss(loss)
        self.hooked = GradSampleModule(self.model, batch_first=True, loss_reduction="sum")
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.names = [name for name, p in self.model.named_parameters() if p.requires_grad]
        self.shapes = {name: tuple(p.shape) for name, p in self.model.named_parameters()}
        self.size = sum(p.numel() for p in self.parameters)

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

    def plain_sum(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of the gradients of uint8 images (n, c, h, w), unclipped: float64 (size,)."""
        total = torch.zeros(self.size, dtype=torch.float64)
        self.hooked.disable_hooks()
        for start in range(0, len(images), PLAIN_ROWS):
            self._backward(images[start : start + PLAIN_ROWS], labels[start : start + PLAIN_ROWS])
            total += torch.cat([_gradient(p).double().flatten().cpu() for p in self.parameters])
        self.hooked.enable_hooks()
        self._clear()
        return total

    def clipped_sum(self, images: Tensor, labels: Tensor, groups: Tensor, clipping_norm: float) -> Tensor:
        """Return the sum over units of the unit's gradient, clipped to `clipping_norm`: float64 (size,).

        Guarantee: adding or removing one unit (all its images and views) moves the sum by at most `clipping_norm`
        in Euclidean norm, up to float64 rounding.
        Assumes: no layer mixes images, and the hooks are right for every layer (see `clients.selfcheck`).
        Edge cases: an empty batch gives zeros; a unit whose gradient is not finite contributes nothing, since
        whatever it contributed could not be bounded.

        Args:
            images: uint8 (n, c, h, w).
            labels: int64 (n,).
            groups: int64 (n,), the unit of each row, ascending.
            clipping_norm: C > 0.
        """
        total = torch.zeros(self.size, dtype=torch.float64)
        for part in _chunks(groups, max(1, PER_IMAGE_FLOATS // self.size)):
            self._backward(images[part], labels[part])
            total += self._clip(groups[part], clipping_norm)
        self._clear()
        return total

    def _backward(self, images: Tensor, labels: Tensor) -> None:
        self._clear()
        inputs = normalise(images.to(self.device)).contiguous()
        self.loss(self.hooked(inputs), labels.to(self.device)).sum().backward()

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


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _chunks(groups: Tensor, rows: int) -> Iterator[slice]:
    """Yield slices of about `rows` rows that never cut a unit."""
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
