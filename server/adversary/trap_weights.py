"""The trap-weights attack: a ReLU layer of random rows, tilted to the negative so that few images fire each."""

from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from configs.adversary import TrapWeightsSettings
from server.adversary.base import (
    BROADCAST,
    EVERYBODY,
    RELEASES,
    Addressee,
    Attack,
    Observation,
    PublicData,
    Reconstruction,
    Trace,
    Weights,
)
from server.adversary.nulls import noise_std
from tasks.models import ModelSpec, WideBlock
from tasks.models.build import PIXEL_MEAN, PIXEL_STD

WEIGHT, BIAS, CENTRE = "wide.units.weight", "wide.units.bias", "wide.centre"
SPREAD = 0.5  # standard deviation of the weights in front of the model
SHIFT = 0.1  # about the most that the layer adds to the image or to a logit
# Wired to the logits the layer is given the imprint's loudness, so that nothing but its rows differs: weights so
# small, and a gain so large, that its share of every per-image gradient is 1.
LOUD = 1e-12
ALIKE = 0.02  # root mean square difference, in intensities, below which two rows are said to hold one image
TELLING = 0.1  # the same between two different images, at least: with more noise rows are not compared
FALSE_ALARMS = 0.01  # expected number of empty rows, over a whole release, that pass as images
_SILENT = 1e-9  # of the strongest row: below it a noiseless row is rounding
_SEED = 20_210  # the adversary's own constant


@final
class TrapWeights(Attack):
    """Boenisch et al. 2021 (When the Curious Abandon Honesty): trap weights, read by the ratio of gradients.

    In every row a random half of the weights is negative, drawn from a half-normal distribution; the positive half
    are the same magnitudes in another order, times `scale` < 1. On intensities in [0, 1] the negative half mostly
    wins, so a row fires for few images, and a row that fired for one image holds amplitude * [x, 1]: weight gradient
    over bias gradient is the image. Nothing is laid out on public images, so rows that fire for many images (or for
    none) are common where images look alike, and they hold mixtures.

    The wiring "image" is the published one: the layer sits in front of the model with weights of ordinary size, and
    its output shifts the image by a constant. GroupNorm and centred kernels all but cancel such a shift, so the layer
    has next to no share of a gradient that is clipped as a whole. The wiring "logits" gives the same rows the
    imprint's place and loudness.
    """

    name = "trap_weights"
    needs = frozenset({RELEASES, BROADCAST})

    def __init__(self, settings: TrapWeightsSettings) -> None:
        self.settings = settings

    def plant(
        self, spec: ModelSpec, weights: Weights, public: PublicData, to: Addressee = EVERYBODY
    ) -> tuple[ModelSpec, Weights]:
        """Return the agreed model with the layer wired to the image or to the logits; public images have no say.

        Raises:
            ValueError: the model carries a block already.
        """
        if spec.block is not None:
            raise ValueError("the model to plant in already carries a wide block")
        dimension = int(np.prod(spec.shape))
        loudness = SPREAD if self.settings.wiring == "image" else LOUD / np.sqrt(dimension)
        rows = trap_rows(self.settings.rows, dimension, self.settings.scale)
        # A row that fires does so by about the root of the dimension; few of them fire at once.
        gain = SHIFT / (loudness * np.sqrt(dimension) * self.settings.rows)
        block = WideBlock(self.settings.rows, None, float(gain), PIXEL_STD, self.settings.wiring)
        planted = {f"core.{name}": value for name, value in weights.items()}
        planted[WEIGHT] = (loudness * rows).astype(np.float32)
        planted[BIAS] = np.zeros(self.settings.rows, dtype=np.float32)
        planted[CENTRE] = np.full(dimension, -PIXEL_MEAN / PIXEL_STD, dtype=np.float32)  # the rows see intensities
        return replace(spec, block=block), planted

    def reconstruct(self, trace: Trace, public: PublicData) -> Reconstruction:
        """Return the ratio of weight and bias gradients of every row that is not silent, near-equal ones once.

        Releases of rounds that were sent the same layer are added up. Without noise a row is silent below 1e-9 of the
        strongest one, with noise where noise alone reaches as far (.01 such rows expected per release). Rows whose
        images agree within .02 (and what the noise allows) are one image: without noise the middle one is shown, with
        noise their sum is read, which averages the noise away. Images are ordered by how little they stray from [0, 1]
        without noise, else by how far their bias stands above the noise.

        Raises:
            ValueError: the observations' model carries no such layer.
        """
        observation = same_layer(trace)
        shape = observation.spec.shape
        std = noise_std(observation.terms) * np.sqrt(len(observation.added))
        weight, bias = _loud_rows(observation, std)
        found = _merged(weight, bias, std)
        said = f"ratio of weight and bias gradients, {len(bias)} rows that are not silent hold {len(found.bias)} images"
        images = np.clip(found.images, 0, 1).astype(np.float32).reshape(-1, *shape)
        order = np.argsort(-found.confidence, kind="stable")
        return Reconstruction(images[order], found.confidence[order], said)


def trap_rows(rows: int, dimension: int, scale: float) -> NDArray[np.float64]:
    """Return trap weights of unit spread, float64 (rows, dimension): Boenisch et al. 2021, algorithm 1.

    Args:
        rows: number of neurons.
        dimension: inputs; of an odd number one has weight 0.
        scale: factor on the positive half.
    """
    rng = np.random.default_rng(_SEED)
    half = dimension // 2
    weights = np.zeros((rows, dimension))
    for row in weights:
        place = rng.permutation(dimension)
        size = np.abs(rng.standard_normal(half))
        row[place[:half]] = -size
        row[place[half : 2 * half]] = scale * rng.permutation(size)
    return weights


def same_layer(trace: Trace) -> Observation:
    """Return the trace as one observation: the layer's releases of all rounds that were sent the last one's layer.

    Raises:
        ValueError: the last observation's model carries no layer, or its release has none.
    """
    last = trace.last
    if last.spec.block is None or WEIGHT not in last.release:
        raise ValueError("trap weights are read from a wide block, and the observed model carries none")
    same = [
        seen
        for seen in trace.observations
        if seen.spec == last.spec
        and WEIGHT in seen.release
        and all(np.array_equal(seen.weights[name], last.weights[name]) for name in (WEIGHT, BIAS, CENTRE))
    ]
    if len(same) == 1:
        return last
    release = {name: np.sum([seen.release[name] for seen in same], axis=0) for name in (WEIGHT, BIAS)}
    return replace(last, release=release, rounds=tuple(sorted(r for seen in same for r in seen.added)))


@final
@dataclass(frozen=True)
class _Found:
    """Images as read, not clipped, float64 (m, D), with their biases and confidence, (m,)."""

    images: NDArray[np.float64]
    bias: NDArray[np.float64]
    confidence: NDArray[np.float64]


def _loud_rows(observation: Observation, std: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the rows (R, D) and biases (R,) that hold more than noise of this standard deviation or rounding."""
    weight = np.asarray(observation.release[WEIGHT], dtype=np.float64)
    bias = np.asarray(observation.release[BIAS], dtype=np.float64)
    finite = np.isfinite(weight).all(axis=1) & np.isfinite(bias) & (bias != 0)
    weight, bias = weight[finite], bias[finite]
    energy = np.einsum("rd,rd->r", weight, weight) + bias**2
    if not len(energy):
        return weight, bias
    # Chi-squared tail: Laurent and Massart 2000, lemma 1.
    coordinates, tail = weight.shape[1] + 1, np.log(len(energy) / FALSE_ALARMS)
    noise = std**2 * (coordinates + 2 * np.sqrt(coordinates * tail) + 2 * tail)
    loud = energy > max(_SILENT**2 * float(energy.max()), noise)
    return weight[loud], bias[loud]


def _merged(weight: NDArray[np.float64], bias: NDArray[np.float64], std: float) -> _Found:
    """Read the rows; without noise show each image once, with noise read each image from the sum of its rows."""
    ratio = weight / bias[:, None]
    sure = _confidence(ratio, bias, std)
    squares = np.einsum("rd,rd->r", ratio, ratio)
    apart = (squares[:, None] + squares - 2 * ratio @ ratio.T) / max(ratio.shape[1], 1)
    groups = _groups(apart, (std / bias) ** 2, np.argsort(-sure, kind="stable"), ratio.shape[1])
    if std == 0:
        # The middle one: rows with that image alone agree to rounding, rows with a trace of another one stand apart.
        middle = [group[np.argmin(apart[np.ix_(group, group)].sum(axis=1))] for group in groups]
        heads = np.array(middle, dtype=np.intp)
        return _Found(ratio[heads], bias[heads], sure[heads])
    signs, counts = np.sign(bias), np.array([len(group) for group in groups])
    total = np.array([signs[group] @ weight[group] for group in groups]).reshape(len(groups), weight.shape[1])
    size = np.array([np.abs(bias[group]).sum() for group in groups])
    return _Found(total / size[:, None], size, size / (std * np.sqrt(counts)))


def _groups(
    apart: NDArray[np.float64], variance: NDArray[np.float64], order: NDArray[np.intp], dimension: int
) -> list[NDArray[np.intp]]:
    """Let each row, surest first, join the first row that it agrees with, or stand for an image of its own.

    Args:
        apart: mean squared differences of the rows' ratios, (R, R).
        variance: of the noise on every pixel of each ratio, (R,).
        order: of the rows.
        dimension: pixels D.
    """
    noise = variance[:, None] + variance
    # The mean over pixels of squared noise is known up to this much (four standard deviations), and ratios that the
    # noise leaves too uncertain to tell two images apart are never joined.
    uncertain = 4 * np.sqrt(2 / max(dimension, 1)) * noise
    agree = (apart - noise <= np.maximum(ALIKE**2, uncertain)) & (uncertain <= TELLING**2)
    groups: dict[int, list[int]] = {}
    for row in order.tolist():
        head = next((first for first in groups if agree[first, row]), row)
        groups.setdefault(head, []).append(row)
    return [np.array(group, dtype=np.intp) for group in groups.values()]


def _confidence(ratio: NDArray[np.float64], bias: NDArray[np.float64], std: float) -> NDArray[np.float64]:
    """Return how sure each row is, (R,): with noise its bias over the noise, else minus its straying from [0, 1]."""
    if std > 0:
        return np.abs(bias) / std
    return -np.sqrt(np.mean((ratio - np.clip(ratio, 0, 1)) ** 2, axis=1))
