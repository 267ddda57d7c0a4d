"""How alike two images are: SSIM, PSNR and NCC on pairs, squared errors on all pairs."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

WINDOW = 7  # side of the uniform SSIM window
C1, C2 = 0.01**2, 0.03**2  # SSIM's constants at data range 1
BEST_PSNR = 100.0  # of equal images: a report holds no infinity
_BLOCK = 256  # images at a time, fewer where they are volumes
_AT_ONCE = 2048  # images that meet all guesses at once
_VALUES = 2**24  # of one block

Images = NDArray[np.uint8] | NDArray[np.float32] | NDArray[np.float64]
Moments = tuple[NDArray[np.float64], NDArray[np.float64]]


def intensities(images: Images) -> NDArray[np.float64]:
    """Return images as float64 in [0, 1]; uint8 is divided by 255, what is not finite becomes mid-grey."""
    if images.dtype == np.uint8:
        return np.asarray(images, dtype=np.float64) / 255.0
    return np.clip(finite(images), 0.0, 1.0)


def finite(images: Images) -> NDArray[np.float64]:
    """Return floats as float64 with mid-grey for what is no number, white and black for what is infinite."""
    values = np.asarray(images, dtype=np.float64)
    # A sum is finite only if all of it is, and asking so takes a tenth of the time; else each value is looked at.
    with np.errstate(invalid="ignore", over="ignore"):
        usual = np.isfinite(values.sum())
    return values if usual else np.nan_to_num(values, nan=0.5, posinf=1.0, neginf=0.0)


def ssim(first: Images, second: Images) -> NDArray[np.float64]:
    """Return the structural similarity of each pair, (n,).

    Wang et al. 2004 with a uniform window of 7 pixels a side (7x7, or 7x7x7 for volumes), sample covariance and
    data range 1, averaged over channels: the defaults of scikit-image's
    `structural_similarity(..., data_range=1, channel_axis=0)`.

    Args:
        first: (n, channels, height, width) or (n, channels, depth, height, width), uint8 or floats in [0, 1].
        second: the same shape.

    Raises:
        ValueError: the shapes differ or a side is shorter than the window.
    """
    _same(first, second)
    check_sides(first)
    scores = np.empty(len(first))
    block = _block(first)
    for start in range(0, len(first), block):
        part = slice(start, start + block)
        other = intensities(second[part])
        scores[part] = _ssim(intensities(first[part]), other, local_moments(other))
    return scores


def ssim_to(images: Images, one: Images) -> NDArray[np.float64]:
    """Return the structural similarity of every image (n, channels, ...) to one (channels, ...), (n,): as :func:`ssim`.

    Raises:
        ValueError: the shapes differ or a side is shorter than the window.
    """
    _same(images[:1], one[None][: len(images)])
    check_sides(images)
    scores = np.empty(len(images))
    block, other = _block(images), intensities(one[None])
    moments = local_moments(other)
    for start in range(0, len(images), block):
        part = slice(start, start + block)
        scores[part] = _ssim(intensities(images[part]), other, moments)
    return scores


def _ssim(a: NDArray[np.float64], b: NDArray[np.float64], of_b: Moments) -> NDArray[np.float64]:
    """Return the similarity of each pair; b may be one image for all."""
    (mean_a, var_a), (mean_b, var_b) = local_moments(a), of_b
    both = _sample(a.ndim - 2) * (_local(a * b) - mean_a * mean_b)
    similar = (2 * mean_a * mean_b + C1) * (2 * both + C2)
    return np.mean(similar / ((mean_a**2 + mean_b**2 + C1) * (var_a + var_b + C2)), axis=tuple(range(1, a.ndim)))


def local_moments(images: NDArray[np.float64]) -> Moments:
    """Return mean and sample variance of every whole window, (n, channels, side - 6, ...) each."""
    mean = _local(images)
    return mean, _sample(images.ndim - 2) * (_local(images * images) - mean**2)


def _local(values: NDArray[np.float64]) -> NDArray[np.float64]:
    axes = values.ndim - 2
    edge = WINDOW // 2  # only windows that lie within the image
    size: Any = (1, 1, *[WINDOW] * axes)  # scipy's stub knows only one size for all axes
    return uniform_filter(values, size)[(slice(None), slice(None), *[slice(edge, -edge)] * axes)]


def _sample(axes: int) -> float:
    return WINDOW**axes / (WINDOW**axes - 1)


def check_sides(images: Images) -> None:
    """Refuse images that hold no whole SSIM window.

    Raises:
        ValueError: naming the images' sides.
    """
    if min(images.shape[2:]) < WINDOW:
        raise ValueError(f"SSIM needs sides of at least {WINDOW} pixels, the images are {images.shape[2:]}")


def psnr(first: Images, second: Images) -> NDArray[np.float64]:
    """Return the peak signal-to-noise ratio of each pair in dB at peak 1, (n,); 100 dB at most."""
    _same(first, second)
    error = np.mean((intensities(first) - intensities(second)) ** 2, axis=tuple(range(1, first.ndim)))
    return -10 * np.log10(np.maximum(error, 10 ** (-BEST_PSNR / 10)))


def ncc(first: Images, second: Images) -> NDArray[np.float64]:
    """Return the normalised cross-correlation of each pair, (n,); 0 where an image is constant."""
    _same(first, second)
    a, b = _centred(first), _centred(second)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    product = np.einsum("nd,nd->n", a, b)
    return np.divide(product, lengths, out=np.zeros(len(a)), where=lengths > 1e-12)


def squared_errors(first: Images, second: Images) -> NDArray[np.float64]:
    """Return the mean squared error of every pair, (n, m), of (n, C, H, W) and (m, C, H, W)."""
    size = math.prod(first.shape[1:])  # numpy infers no size for zero images
    a = intensities(first).reshape(len(first), size)
    norms = np.einsum("nd,nd->n", a, a)
    errors = np.empty((len(first), len(second)))
    block = _block(second)
    for start in range(0, len(second), block):
        b = intensities(second[start : start + block])
        b = b.reshape(len(b), size)
        distances = norms[:, None] + np.einsum("md,md->m", b, b) - 2 * (a @ b.T)
        errors[:, start : start + block] = np.maximum(distances, 0.0) / max(1, size)
    return errors


def smallest_errors(guesses: Images, images: Images, rows: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """Return each image's mean squared error to its nearest guess, (len(rows),); at least one guess.

    Args:
        guesses: (g, channels, ...).
        images: (p, channels, ...).
        rows: int64 positions among the images; None takes all. They are copied block by block only.
    """
    index = np.arange(len(images)) if rows is None else rows
    found = np.empty(len(index))
    for start in range(0, len(index), _AT_ONCE):
        part = index[start : start + _AT_ONCE]
        found[start : start + _AT_ONCE] = squared_errors(guesses, images[part]).min(axis=0)
    return found


def _block(images: Images) -> int:
    return max(1, min(_BLOCK, _VALUES // max(1, math.prod(images.shape[1:]))))


def _centred(images: Images) -> NDArray[np.float64]:
    flat = intensities(images).reshape(len(images), math.prod(images.shape[1:]))
    return flat - flat.mean(axis=1, keepdims=True)


def _same(first: Images, second: Images) -> None:
    if first.shape != second.shape or first.ndim not in (4, 5):
        raise ValueError(
            f"need two equal shapes (n, channels, [depth,] height, width), got {first.shape} and {second.shape}"
        )
