"""Before a hospital trains, its gradient engine is compared with one-by-one autograd on the run's own model.

Per-image gradients can be silently wrong: Opacus' convolution hooks, for one, read channels-last images as if they
were contiguous, and the model then trains on noise while the ledger looks perfect.
"""

import numpy as np
import torch
from torch import Tensor, nn

from clients.gradients import GradientEngine
from configs.errors import RunStoppedError
from tasks.models import ModelSpec, normalise

TOLERANCE = 1e-4  # float32; a wrong gradient is off by about 1


def check_clipped_sum(engine: GradientEngine, images: Tensor, targets: Tensor, clipping_norm: float) -> float:
    """Compare the engine's clipped sum with one-by-one autograd and return the relative error.

    Args:
        engine: loaded with the weights to check at.
        images: uint8 (n, c, h, w) or (n, c, d, h, w), a few.
        targets: int64 (n,), or voxel classes (n, h, w) or (n, d, h, w).
        clipping_norm: C; the check clips at the smaller of C and half of the median norm, so that both clipped and
            unclipped rows take part.

    Raises:
        RunStoppedError: if they differ by more than 1e-4 of the sum's norm.
    """
    gradients = torch.stack([_one_by_one(engine, images[i], targets[i]) for i in range(len(images))])
    norms = gradients.norm(dim=1)
    clip = min(clipping_norm, float(norms.median()) / 2) or clipping_norm
    expected = (gradients * torch.clamp(clip / norms.clamp(min=1e-300), max=1.0)[:, None]).sum(dim=0)
    got = engine.clipped_sum(images, targets, torch.arange(len(images)), clip)
    error = float((got - expected).norm() / expected.norm().clamp(min=1e-300))
    if not error <= TOLERANCE:
        raise RunStoppedError(
            f"the self-check of per-image gradients failed: the clipped sum differs from one-by-one autograd by "
            f"{error:.2g} of its norm (at most {TOLERANCE:g} allowed), so no gradient leaves this hospital."
        )
    return error


def random_examples(spec: ModelSpec, count: int) -> tuple[Tensor, Tensor]:
    """Return random images and targets that fit a model, always the same: no record of anybody is among them."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *spec.shape), dtype=np.uint8)
    classes, shape = max(2, spec.outputs), (count, *spec.shape[1:]) if spec.dense else (count,)
    targets = rng.integers(0, classes, shape).astype(np.uint8 if spec.dense else np.int64)
    return torch.from_numpy(images), torch.from_numpy(targets)


def _one_by_one(engine: GradientEngine, image: Tensor, target: Tensor) -> Tensor:
    """Return one image's gradient by plain autograd without any hook: float64 (size,)."""
    model: nn.Module = engine.model
    with engine.without_hooks():
        output = model(normalise(image[None].to(engine.device)).contiguous())
        value = engine.loss(output, target[None].to(engine.device)).sum()
        found = torch.autograd.grad(value, engine.parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([part.double().flatten().cpu() for part in found])
