"""A hospital by hand for the attack's tests: synthetic images, one-by-one autograd, clipping, noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import nn

from server.adversary.base import Observation, PublicData, PublicTerms, Weights
from tasks.models import ModelSpec, build, initial_weights, load_weights, normalise

SIDE = 16
SPEC = ModelSpec("resnet9", (3, SIDE, SIDE), 1, 4)
# s of one step over everything (q = 1) at delta 1e-5 and epsilon 8, by the analytic Gaussian mechanism.
NOISE_AT_EPSILON_8 = 0.6002


@dataclass(frozen=True)
class Gradients:
    """Per-image gradients, float64, module and rest apart."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    rest: NDArray[np.float64]  # squared norms


def images(seed: int, count: int, side: int = SIDE) -> NDArray[np.uint8]:
    """Smooth fields around a common blob, uint8 (count, 3, side, side)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    size = rng.uniform(0.05, 0.15, (count, 1, 1, 1))
    blob = np.exp(-(x**2 + y**2) / size) * rng.uniform(0.2, 0.6, (count, 1, 1, 1))
    grey = gaussian_filter(rng.standard_normal((count, 1, side, side)), (0, 0, 2, 2))
    colour = gaussian_filter(rng.standard_normal((count, 3, side, side)), (0, 0, 1, 1))
    field = 0.7 + rng.normal(0, 0.05, (count, 3, 1, 1)) - blob + 0.5 * grey + 0.1 * colour
    fine = rng.normal(0, 0.02, field.shape)
    return np.clip(255 * (field + fine), 0, 255).astype(np.uint8)


def public(seed: int = 1_000, count: int = 600, side: int = SIDE) -> PublicData:
    return PublicData(images(seed, count, side), "phantom")


def agreed(spec: ModelSpec = SPEC) -> Weights:
    return {name: value.numpy() for name, value in initial_weights(spec, 3).items()}


def model(spec: ModelSpec, weights: Weights) -> nn.Module:
    built = build(spec)
    load_weights(built, {name: torch.tensor(np.asarray(value)) for name, value in weights.items()})
    return built


def loss(logits: torch.Tensor, label: int) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(logits[:, 0], torch.full((len(logits),), float(label)))


def gradients(spec: ModelSpec, weights: Weights, batch: NDArray[np.uint8], labels: Sequence[int]) -> Gradients:
    """Differentiate one image at a time."""
    built = model(spec, weights)
    names = [name for name, _ in built.named_parameters()]
    parts: dict[str, list[NDArray[np.float64]]] = {"weight": [], "bias": []}
    rest: list[float] = []
    for image, label in zip(batch, labels, strict=True):
        found = torch.autograd.grad(loss(built(normalise(torch.tensor(image[None]))), label), list(built.parameters()))
        one = {name: value.double().numpy() for name, value in zip(names, found, strict=True)}
        parts["weight"].append(one.pop("wide.units.weight"))
        parts["bias"].append(one.pop("wide.units.bias"))
        rest.append(sum(float(np.sum(value**2)) for value in one.values()))
    return Gradients(np.array(parts["weight"]), np.array(parts["bias"]), np.array(rest))


def release(found: Gradients, *, clip: float | None, noise: float, seed: int) -> Mapping[str, NDArray[np.float64]]:
    """Clip each image's gradient to norm `clip`, add up, add noise of `noise * clip`."""
    norms = np.sqrt(np.sum(found.weight**2, axis=(1, 2)) + np.sum(found.bias**2, axis=1) + found.rest)
    factors = np.ones(len(norms)) if clip is None else np.minimum(1.0, clip / np.maximum(norms, 1e-300))
    rng = np.random.default_rng(seed)
    std = noise * (clip or 1.0)
    weight = np.einsum("n,nkd->kd", factors, found.weight)
    bias = factors @ found.bias
    return {
        "wide.units.weight": weight + std * rng.standard_normal(weight.shape),
        "wide.units.bias": bias + std * rng.standard_normal(bias.shape),
    }


def observe(
    spec: ModelSpec,
    weights: Weights,
    sent: Mapping[str, NDArray[np.float64]],
    *,
    clip: float | None = None,
    noise: float = 0.0,
    batch: float = 24,
    steps: int = 1,
    learning_rate: float = 0.0,
) -> Observation:
    terms = PublicTerms(clip, noise, 1.0, steps, batch, learning_rate)
    return Observation(1, "rosendahl", spec, weights, sent, terms)
