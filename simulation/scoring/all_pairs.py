"""SSIM of every image with every other: what scoring of many against many asks for."""

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import final

import numpy as np
from numpy.typing import NDArray

from simulation.scoring.similarity import C1, C2, WINDOW, Images, check_sides, intensities, local_moments

_SIDE = 256  # images of a block: its matrices stay in the second cache
_MOST = 1024  # images whose windows are held at once
_WORKERS = min(8, os.cpu_count() or 1)  # blocks are computed apart, so their number changes no bit

Block = NDArray[np.float32]


def all_pairs_ssim(first: Images, second: Images) -> NDArray[np.float64]:
    """Return the structural similarity of every pair, (n, m): what :func:`similarity.ssim` gives for each, in float32.

    Within one window SSIM is (2 mu nu + c1)(2 cov + c2) / ((mu^2 + nu^2 + c1)(var + var' + c2)), and each of the two
    factors above and the whole below is an inner product of something that belongs to the one image with something
    that belongs to the other: three matrix products per window give it for all pairs. Pixels are centred in their own
    window before they meet, so that single precision loses nothing: the error is below 1e-4 (about 1e-6 is usual).

    Args:
        first: (n, channels, height, width) or (n, channels, depth, height, width), uint8 or floats in [0, 1].
        second: (m, ...), the same shape of image.

    Raises:
        ValueError: the images' shapes differ or a side is shorter than the window.
    """
    if first.shape[1:] != second.shape[1:] or first.ndim not in (4, 5):
        raise ValueError(
            f"need images of one shape (channels, [depth,] height, width), got {first.shape}, {second.shape}"
        )
    check_sides(first)
    out = np.zeros((len(first), len(second)))
    for i, j in product(range(0, len(first), _MOST), range(0, len(second), _MOST)):
        part = out[i : i + _MOST, j : j + _MOST]
        _add(part, _single(first[i : i + _MOST]), _single(second[j : j + _MOST]))
    windows = first.shape[1] * math.prod(side - WINDOW + 1 for side in first.shape[2:])
    return out / windows


def _single(images: Images) -> Block:
    return intensities(images).astype(np.float32)


def _add(out: NDArray[np.float64], first: Block, second: Block) -> None:
    """Add the SSIM of every window of every pair to `out` (n, m)."""
    blocks = list(product(range(0, len(first), _SIDE), range(0, len(second), _SIDE)))
    with ThreadPoolExecutor(_WORKERS) as workers:
        for left, right in zip(_strips(first, _left), _strips(second, _right), strict=True):

            def one(corner: tuple[int, int], left: Strip = left, right: Strip = right) -> None:
                rows, columns = (slice(start, start + _SIDE) for start in corner)
                out[rows, columns] += _block(left, right, rows, columns)

            list(workers.map(one, blocks))


@final
@dataclass(frozen=True)
class Strip:
    """What one image of a pair brings to each window of a strip; each (windows, n, terms), float32.

    Attributes:
        means: two terms of 2 mu nu + c1.
        pixels: the centred pixels and one more, of 2 cov + c2.
        below: four terms of (mu^2 + nu^2 + c1)(var + var' + c2).
    """

    means: Block
    pixels: Block
    below: Block


Terms = Callable[[Block, Block], tuple[Block, Block, float]]


def _left(mean: Block, variance: Block) -> tuple[Block, Block, float]:
    """Return the terms of the first image: means, below, and what stands beside its pixels."""
    one = np.ones_like(mean)
    bright, varied = mean**2 + np.float32(C1), variance + np.float32(C2)
    return np.stack([2 * mean, one], axis=-1), np.stack([bright * varied, bright, varied, one], axis=-1), 1.0


def _right(mean: Block, variance: Block) -> tuple[Block, Block, float]:
    """Return the terms of the second image, in the order that :func:`_left` meets them."""
    one, bright = np.ones_like(mean), mean**2
    below = np.stack([one, variance, bright, bright * variance], axis=-1)
    return np.stack([mean, np.float32(C1) * one], axis=-1), below, C2


def _strips(images: Block, terms: Terms) -> Iterator[Strip]:
    """Yield the windows along the last axis, for every channel and every place along the other axes."""
    axes = images.ndim - 2
    pixels = WINDOW**axes
    # 2 cov is 2 / (pixels - 1) times the sum of products; half of the factor goes to either side.
    share = np.float32(np.sqrt(2 / (pixels - 1)))
    moments = local_moments(images.astype(np.float64))
    for channel, *starts in product(range(images.shape[1]), *(range(side - WINDOW + 1) for side in images.shape[2:-1])):
        mean, variance = (
            np.ascontiguousarray(moment[(slice(None), channel, *starts)].T, dtype=np.float32) for moment in moments
        )
        strip = images[(slice(None), channel, *(slice(s, s + WINDOW) for s in starts))]
        windows = np.lib.stride_tricks.sliding_window_view(strip, WINDOW, axis=-1)  # (n, [7,] 7, windows, 7)
        flat = np.ascontiguousarray(np.moveaxis(windows, -2, 0)).reshape(*mean.shape, pixels)
        means, below, beside = terms(mean, variance)
        centred = np.empty((*mean.shape, pixels + 1), dtype=np.float32)
        np.subtract(flat, mean[..., None], out=centred[..., :-1])
        centred[..., :-1] *= share
        centred[..., -1] = beside
        yield Strip(means, centred, below)


def _block(left: Strip, right: Strip, rows: slice, columns: slice) -> Block:
    """Return the sum over a strip's windows for some rows and columns."""
    a = [part[:, rows] for part in (left.means, left.pixels, left.below)]
    b = [part[:, columns].transpose(0, 2, 1) for part in (right.means, right.pixels, right.below)]
    shape = (a[0].shape[1], b[0].shape[2])
    total, above, factor, below = (np.zeros(shape, dtype=np.float32) for _ in range(4))
    for window in range(len(a[0])):
        np.matmul(a[0][window], b[0][window], out=above)
        np.matmul(a[1][window], b[1][window], out=factor)
        np.matmul(a[2][window], b[2][window], out=below)
        np.multiply(above, factor, out=above)
        np.divide(above, below, out=above)
        np.add(total, above, out=total)
    return total
