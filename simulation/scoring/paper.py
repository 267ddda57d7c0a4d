"""Scoring as it is often done, never alone: every image stretched, every reconstruction free to match any truth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from simulation.scoring.all_pairs import all_pairs_ssim
from simulation.scoring.similarity import Images, finite, intensities

PAPER_SSIM = 0.5
_MOST_VALUES = 2**32  # pixels of all pairs: 5 to 10 s on one core


@final
@dataclass(frozen=True)
class PaperScore:
    """What paper-style scoring calls a success, for an attack and for knowing nothing.

    Attributes:
        recovered: share of the truths that some reconstruction matches; None without truths.
        null_recovered: the same of the stronger null (public mean, or the attack's readout of pure noise).
        threshold: SSIM above which an image counts as recovered.
        targets: truths that were looked at: all, or evenly spaced ones where all pairs would take too long.
    """

    recovered: float | None
    null_recovered: float | None
    threshold: float
    targets: int


def paper_score(
    truths: Images, guesses: Images, noise_guesses: Images, mean_image: Images, threshold: float = PAPER_SSIM
) -> PaperScore:
    """Score as Ziller et al. 2024 and others do: min-max each image, many-to-one, a threshold on 1 - SSIM.

    A truth counts where any reconstruction comes within 1 - SSIM < 1 - `threshold` of it, both stretched to [0, 1]; one
    reconstruction may stand for all truths. That flatters: the best of many is chosen by the truth itself, and
    stretching makes an image of a lesion out of faint noise. So the same is done to what is known without an attack,
    and the difference is what it says. The default threshold is ours, as SSIM .5 is a common bar for a likeness; it is
    an argument because the rate means nothing without it. On HAM10000 at 64x64 the stretched public mean alone passes
    it for .45 of the images (223 of 500, interval .40 to .49).

    Args:
        truths: (n, channels, ...), uint8 or floats in [0, 1].
        guesses: (m, channels, ...), the attack's; m may be 0.
        noise_guesses: the attack's readout of a release of pure noise.
        mean_image: (channels, ...), public.
        threshold: SSIM, below 1.

    Raises:
        ValueError: shapes do not fit, or a threshold outside [-1, 1).
    """
    if not -1 <= threshold < 1:
        raise ValueError(f"a threshold on SSIM lies in [-1, 1), got {threshold}")
    most = max(len(guesses), len(noise_guesses), 1) * max(1, math.prod(truths.shape[1:]))
    count = min(len(truths), max(1, _MOST_VALUES // most))
    chosen = np.linspace(0, max(0, len(truths) - 1), num=count).astype(np.int64)
    shown = min_max(truths[chosen])

    if not count:
        return PaperScore(None, None, threshold, count)
    by_mean, by_noise, by_attack = _shares(shown, (mean_image[None], noise_guesses, guesses), threshold)
    return PaperScore(by_attack, max(by_mean, by_noise), threshold, count)


def _shares(shown: NDArray[np.float64], groups: Sequence[Images], threshold: float) -> list[float]:
    """Return which share of the truths each group of images matches; all groups meet the truths' windows at once."""
    similar = all_pairs_ssim(shown, np.concatenate([min_max(images) for images in groups]))
    ends = np.cumsum([len(images) for images in groups])[:-1]
    parts = np.split(similar, ends, axis=1)
    return [float(np.mean(part.max(axis=1, initial=-np.inf) > threshold)) for part in parts]


def min_max(images: Images) -> NDArray[np.float64]:
    """Return every image stretched over [0, 1], all channels alike; a constant image becomes black.

    What is not finite is made finite first, as everywhere in scoring.
    """
    values = intensities(images) if images.dtype == np.uint8 else finite(images)
    axes = tuple(range(1, values.ndim))
    low = values.min(axis=axes, keepdims=True, initial=np.inf)
    span = values.max(axis=axes, keepdims=True, initial=-np.inf) - low
    return np.divide(values - low, span, out=np.zeros_like(values), where=span > 0)
