"""Augmented views of pictures: flips, shifts and crops, as positions to read from, on any device."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.sections import TrainingSettings


@final
@dataclass(frozen=True)
class Views:
    """How each of v views is read from its picture.

    Attributes:
        flips: bool (v, 2), horizontal and vertical; the last and the last but one axis.
        starts: int64 (v, d), where the view begins along each spatial axis; may lie outside by a shift.
        size: spatial shape of a view.
    """

    flips: NDArray[np.bool_]
    starts: NDArray[np.int64]
    size: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.flips)

    def take(self, index: NDArray[np.int64] | slice) -> "Views":
        """Return these views, in this order."""
        return Views(self.flips[index], self.starts[index], self.size)


def draw_views(
    generator: np.random.Generator,
    count: int,
    training: TrainingSettings,
    *,
    whole: Sequence[int],
    size: Sequence[int],
) -> Views:
    """Draw views: flips with probability `flips`, a uniform place for the crop, a uniform shift in the plane.

    Args:
        generator: of all draws.
        count: number of views.
        training: flips and shift.
        whole: spatial shape of the pictures.
        size: spatial shape of a view, nowhere larger.
    """
    flips = generator.random((count, 2)) < training.flips
    room = np.array(whole, dtype=np.int64) - np.array(size, dtype=np.int64)
    starts = generator.integers(0, room + 1, size=(count, len(room)), dtype=np.int64)
    if training.shift:
        starts[:, -2:] += generator.integers(-training.shift, training.shift + 1, size=(count, 2), dtype=np.int64)
    return Views(flips, starts, tuple(int(s) for s in size))


def view(pictures: Tensor, views: Views) -> Tensor:
    """Return the views of pictures (v, ..., *spatial), one each, as (v, ..., *size) on the pictures' device.

    A view that reaches beyond its picture repeats the picture's border. Images and their masks are read alike.
    """
    spatial = pictures.shape[-len(views.size) :]
    if not views.flips.any() and not views.starts.any() and spatial == views.size:
        return pictures
    axes = len(views.size)
    places: list[Tensor] = []
    for axis in range(axes):
        place = views.starts[:, axis : axis + 1] + np.arange(views.size[axis])
        place = np.clip(place, 0, spatial[axis] - 1)
        if axis >= axes - 2:  # flips[:, 0] mirrors the last axis, flips[:, 1] the one before
            mirrored = views.flips[:, axes - 1 - axis]
            place[mirrored] = place[mirrored, ::-1]
        shape = [len(views)] + [1] * axes
        shape[1 + axis] = views.size[axis]
        places.append(torch.from_numpy(place).to(pictures.device).reshape(shape))
    lead = pictures.shape[1:-axes]
    flat = pictures.reshape(len(views), math.prod(lead), *spatial)
    every = torch.arange(len(views), device=pictures.device).reshape([-1] + [1] * axes)
    channels = [flat[:, channel][(every, *places)] for channel in range(flat.shape[1])]
    return torch.stack(channels, dim=1).reshape(*pictures.shape[:-axes], *views.size)
