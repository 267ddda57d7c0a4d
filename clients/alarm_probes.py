"""Images on which a hospital looks at a broadcast model: synthetic ones of its own, and nobody's records.

Whoever knows the probes can build a block that none of them fires, so their seed is the hospital's secret. Noise and
smooth fields read the model far from medical images; the task's phantoms look like them, for a block that fires on
medical images only.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from configs.sections import TaskSettings, TrainingSettings
from tasks.models import ModelSpec
from tasks.registry import phantom
from tasks.views import draw_views, view

FLAT, DEEP = 8, 2  # probes of each kind: pictures, volumes
FEWEST = {"ham10000": 64, "radimagenet": 64, "msd_liver": 8}  # that a phantom is written of


@final
@dataclass(frozen=True)
class Probes:
    """Images and targets as the engine takes them: uint8 (n, channels, ...), targets (n,) or (n, *spatial)."""

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def with_more(self, other: "Probes") -> "Probes":
        """Return these and others."""
        return Probes(torch.cat([self.images, other.images]), torch.cat([self.targets, other.targets]))


def make_probes(spec: ModelSpec, settings: TaskSettings, seed: int) -> Probes:
    """Return a third of noise, a third of smooth fields and a third of the task's phantoms, drawn from one seed."""
    count = FLAT if len(spec.shape) == 3 else DEEP
    rng = np.random.default_rng(seed)
    return (
        noise_probes(spec, count, rng)
        .with_more(smooth_probes(spec, count, rng))
        .with_more(phantom_probes(spec, settings, count, seed))
    )


def noise_probes(spec: ModelSpec, count: int, rng: np.random.Generator) -> Probes:
    """Return images of independent pixels."""
    images = rng.integers(0, 256, (count, *spec.shape), dtype=np.uint8)
    return Probes(torch.from_numpy(images), _targets(spec, count, rng))


def smooth_probes(spec: ModelSpec, count: int, rng: np.random.Generator) -> Probes:
    """Return random smooth fields of random brightness and contrast."""
    images = [128 + rng.uniform(-60, 60) + rng.uniform(15, 70) * _field(spec.shape, rng) for _ in range(count)]
    return Probes(torch.from_numpy(np.clip(images, 0, 255).astype(np.uint8)), _targets(spec, count, rng))


def phantom_probes(spec: ModelSpec, settings: TaskSettings, count: int, seed: int) -> Probes:
    """Return images of a phantom of the task that is nobody else's, with their own targets."""
    few = settings.model_copy(update={"phantom_images": FEWEST[settings.name]})
    records = phantom(few, seed).load().train
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(records))[:count]).astype(np.int64)
    views = draw_views(
        rng, len(chosen), TrainingSettings(flips=0.0), whole=records.images.shape[1:], size=spec.shape[1:]
    )
    targets = torch.from_numpy(records.targets(chosen))
    return Probes(
        view(torch.from_numpy(records.pixels(chosen)), views),
        targets if records.masks is None else view(targets, views),
    )


def _targets(spec: ModelSpec, count: int, rng: np.random.Generator) -> Tensor:
    """Return classes in turn, or masks of blobs."""
    classes = max(2, spec.outputs)
    if not spec.dense:
        return torch.arange(count, dtype=torch.int64) % classes
    fields = np.stack([_field((1, *spec.shape[1:]), rng)[0] for _ in range(count)])
    edges = np.linspace(-1, 1, classes + 1)[1:-1]
    return torch.from_numpy(np.digitize(fields, edges).astype(np.uint8))


def _field(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a smooth random field (channels, ...) of mean 0 and deviation 1."""
    width = rng.uniform(0.05, 0.3)
    smoothed = gaussian_filter(rng.standard_normal(shape), [0.0, *(width * side for side in shape[1:])])
    return (smoothed - smoothed.mean()) / max(float(smoothed.std()), 1e-12)
