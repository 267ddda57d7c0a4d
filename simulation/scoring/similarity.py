"""How alike two images are: SSIM, PSNR and NCC on pairs, squared errors on all pairs."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

WINDOW = 7  # side of the uniform SSIM window
BEST_PSNR = 100.0  # of equal images: a report holds no infinity
_BLOCK = 256  # images at a time

Images = NDArray[np.uint8] | NDArray[np.float32] | NDArray[np.float64]


def intensities(images: Images) -> NDArray[np.float64]:
    """Return images as float64 in [0, 1]; uint8 is divided by 255, what is not finite becomes mid-grey."""
    if images.dtype == np.uint8:
        return np.asarray(images, dtype=np.float64) / 255.0
    finite = np.nan_to_num(np.asarray(images, dtype=np.float64), nan=0.5, posinf=1.0, neginf=0.0)
    return np.clip(finite, 0.0, 1.0)


def ssim(first: Images, second: Images) -> NDArray[np.float64]:
    """Return the structural similarity of each pair, (n,).

    Wang et al. 2004 with a uniform 7x7 window, sample covariance and data range 1, averaged over channels:
    the defaults of scikit-image's `structural_similarity(..., data_range=1, channel_axis=0)`.

    Args:
        first: (n, channels, height, width), uint8 or floats in [0, 1].
        second: the same shape.

    Raises:
        ValueError: the shapes differ or a side is shorter than the window.
    """
    _same(first, second)
    if min(first.shape[2:]) < WINDOW:
        raise ValueError(f"SSIM needs sides of at least {WINDOW} pixels, the images are {first.shape[2:]}")
    scores = np.empty(len(first))
    for start in range(0, len(first), _BLOCK):
        part = slice(start, start + _BLOCK)
        scores[part] = _ssim(intensities(first[part]), intensities(second[part]))
    return scores


def _ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    def local(values: NDArray[np.float64]) -> NDArray[np.float64]:
        size: Any = (1, 1, WINDOW, WINDOW)  # scipy's stub knows only one size for all axes
        edge = WINDOW // 2  # only windows that lie within the image
        return uniform_filter(values, size)[:, :, edge:-edge, edge:-edge]

    sample = WINDOW**2 / (WINDOW**2 - 1)
    mean_a, mean_b = local(a), local(b)
    var_a = sample * (local(a * a) - mean_a**2)
    var_b = sample * (local(b * b) - mean_b**2)
    both = sample * (local(a * b) - mean_a * mean_b)
    c1, c2 = 0.01**2, 0.03**2
    similar = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return np.mean(similar / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)), axis=(1, 2, 3))


def psnr(first: Images, second: Images) -> NDArray[np.float64]:
    """Return the peak signal-to-noise ratio of each pair in dB at peak 1, (n,); 100 dB at most."""
    _same(first, second)
    error = np.mean((intensities(first) - intensities(second)) ** 2, axis=(1, 2, 3))
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
    for start in range(0, len(second), _BLOCK):
        b = intensities(second[start : start + _BLOCK])
        b = b.reshape(len(b), size)
        block = norms[:, None] + np.einsum("md,md->m", b, b) - 2 * (a @ b.T)
        errors[:, start : start + _BLOCK] = np.maximum(block, 0.0) / max(1, size)
    return errors


def _centred(images: Images) -> NDArray[np.float64]:
    flat = intensities(images).reshape(len(images), math.prod(images.shape[1:]))
    return flat - flat.mean(axis=1, keepdims=True)


def _same(first: Images, second: Images) -> None:
    if first.shape != second.shape or first.ndim != 4:
        raise ValueError(f"need two equal shapes (n, channels, height, width), got {first.shape} and {second.shape}")
