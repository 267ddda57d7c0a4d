"""Data traps: a first model whose rows each keep the first image that fires them, read from the final model alone."""

from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from configs.adversary import DataTrapsSettings
from server.adversary.base import (
    EVERYBODY,
    FINAL,
    START,
    Addressee,
    Attack,
    Observation,
    PublicData,
    Reconstruction,
    Trace,
    Weights,
)
from server.adversary.fitting import LAST, content
from server.adversary.public_model import decode, encode, usable_images
from tasks.models import ModelSpec, WideBlock

WEIGHT, BIAS, CENTRE = "wide.units.weight", "wide.units.bias", "wide.centre"
LOGIT_SHIFT = 0.1  # most that the block adds to a logit, at the start and ever after: the model learns as it would
# The size of what is planted. One step of a training run moves a row by about lr/B * LOGIT_SHIFT / (CEILING * K) >>
# CEILING, also after division by the number of hospitals, so a row that moved lies outside [0, CEILING] for every image
# and stays closed. What it holds is far larger than what was planted, so float32 rounds it by 6e-8 of itself only.
CEILING = 1e-12
_COMPONENTS = 50  # of the public PCA, for the measurement: nothing is denoised
_STRAYING = 4.0  # a row holds an image only if |z|^2 is at most this times the highest of the public images
_MOVED = 10.0  # in units of the planted row: below it nothing was caught


@final
class DataTraps(Attack):
    """Feng and Tramer 2024 (Privacy Backdoors), for a federation: one broadcast, then only the final model.

    The first model carries a wide block that all agree to train (a hospital that vets would refuse it). Every row
    passes images whose measurement lies in its bin, one of K that are equally likely on public images. The first
    image to fire a row moves it by amplitude * [z, 1], far beyond what was planted: the clamp then has no gradient for
    any image, at this hospital and, once averaged, at all others. So row - planted row is a copy at the end,
    whatever the number of rounds and local epochs. A row is lost where two images fire it in one step, or two
    hospitals in one round.

    The measurement does not feel flips: an image that comes again, flipped, finds its own row closed and takes no
    second one. Without that, every local epoch would fill rows with new views of old images.

    Assumes: local SGD (or FedSGD) and server averaging. Optimisers of Adam's type divide every weight's step by its
    own size and so destroy the ratio; noise moves and closes every row at the first step, so only what that step
    caught is left. Neither is known to who holds the final model alone; rows that moved without an image's ratio are
    left out and counted in the readout.
    """

    name = "data_traps"
    needs = frozenset({START, FINAL})

    def __init__(self, settings: DataTrapsSettings) -> None:
        self.settings = settings

    def plant(
        self, spec: ModelSpec, weights: Weights, public: PublicData, to: Addressee = EVERYBODY
    ) -> tuple[ModelSpec, Weights]:
        """Return the first model with open traps wired to its logits.

        Raises:
            ValueError: the model carries a block already, or the public images have another shape.
        """
        if spec.block is not None:
            raise ValueError("the model to plant in already carries a wide block")
        even = _without_sides(usable_images(public.images, spec.shape))
        asked = spec.shape, _COMPONENTS, self.settings.rows
        rows, (model, bins) = self.settings.rows, LAST.get(content(even, *asked), even, *asked)
        slopes = CEILING / np.diff(bins.edges)
        block = WideBlock(rows=rows, ceiling=CEILING, gain=LOGIT_SHIFT / (CEILING * rows), scale=model.scale)
        planted = {f"core.{name}": value for name, value in weights.items()}
        planted[WEIGHT] = (slopes[:, None] * bins.direction).astype(np.float32)
        planted[BIAS] = (-slopes * bins.edges[:-1]).astype(np.float32)
        planted[CENTRE] = model.centre
        return replace(spec, block=block), planted

    def reconstruct(self, trace: Trace, public: PublicData) -> Reconstruction:
        """Return z = weight / bias of every row that moved as an image moves it, surest first.

        A row holds an image if |z|^2 is what an image may have, at most 4 times the highest of the public ones; noise
        and rescaled coordinates exceed that by far. Confidence is minus the distance of the unclipped image
        from [0, 1]: rows that hold several images of opposite sign stand out by it.

        Raises:
            ValueError: the observed model carries no traps.
        """
        observation = trace.last
        shape = observation.spec.shape
        scale, moved = _moved(observation)
        centre = np.asarray(observation.weights[CENTRE], dtype=np.float32)
        z = moved.weight / moved.bias[:, None]
        known = encode(usable_images(public.images, shape), centre, scale)
        kept = np.einsum("rd,rd->r", z, z) <= _STRAYING * np.einsum("nd,nd->n", known, known).max()
        z = z[kept]
        images = decode(z, centre, scale, shape)
        straying = np.sqrt(np.mean((z - encode(images, centre, scale)) ** 2, axis=1))
        order = np.argsort(straying, kind="stable")
        return Reconstruction(images[order], -straying[order], _words(moved.count, int(kept.sum())))


def _without_sides(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the mean of every image and its flips (horizontal, vertical, both), same shape.

    Directions that such images span feel no flip.
    """
    total = np.zeros(images.shape, dtype=np.uint16)
    for axes in ((), (-1,), (-2,), (-2, -1)):
        total += np.flip(images, axes)
    return ((total + 2) // 4).astype(np.uint8)


@final
@dataclass(frozen=True)
class _Moved:
    """How far rows were moved.

    Attributes:
        weight: float64 (R, D).
        bias: float64 (R,), not 0.
        count: rows that moved at all, also those whose bias did not or that are not finite.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    count: int


def _moved(observation: Observation) -> tuple[float, _Moved]:
    """Return the block's scale and the rows that moved far beyond what was planted."""
    block = observation.spec.block
    if block is None or WEIGHT not in observation.release:
        raise ValueError("data traps are read from a wide block, and the observed model carries none")
    weight = np.asarray(observation.release[WEIGHT], dtype=np.float64)
    bias = np.asarray(observation.release[BIAS], dtype=np.float64)
    planted = np.linalg.norm(np.asarray(observation.weights[WEIGHT], dtype=np.float64), axis=1)
    step = np.sqrt(np.einsum("rd,rd->r", weight, weight) + bias**2)
    moved = ~(step <= _MOVED * planted)  # what is not finite moved, too
    usable = moved & np.isfinite(step) & (bias != 0)
    return block.scale, _Moved(weight[usable], bias[usable], int(moved.sum()))


def _words(moved: int, kept: int) -> str:
    said = f"final minus first weights, ratio of weight and bias: {moved} traps moved, {kept} as an image moves them"
    if moved > 0 and kept < moved / 2:
        said += "; the others were moved by noise or by an optimiser of Adam's type, which destroys the ratio"
    return said
