"""One-to-one pairing of reconstructions with truths."""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from simulation.scoring.similarity import Images, intensities, ncc, psnr, squared_errors, ssim, ssim_to

UNPAIRED = -1


@final
@dataclass(frozen=True)
class Pairing:
    """What every truth was paired with.

    Attributes:
        index: int64 (n,), the reconstruction of each truth; -1 where none was left and the public mean stands
            in.
        ssim: float64 (n,).
        psnr: float64 (n,), dB.
        ncc: float64 (n,).
    """

    index: NDArray[np.int64]
    ssim: NDArray[np.float64]
    psnr: NDArray[np.float64]
    ncc: NDArray[np.float64]


def unpaired(truths: Images, mean_image: Images) -> Pairing:
    """Return what the truths score where nothing was reconstructed: each stands beside the public mean."""
    index = np.full(len(truths), UNPAIRED, dtype=np.int64)
    shown = np.broadcast_to(intensities(mean_image), truths.shape)
    return Pairing(index, ssim_to(truths, mean_image), psnr(truths, shown), ncc(truths, shown))


def pair(
    truths: Images,
    guesses: Images,
    mean_image: Images,
    batch: int | None = None,
    *,
    without: Pairing | None = None,
) -> Pairing:
    """Pair each reconstruction with at most one truth so that the total squared error is least (Hungarian).

    SSIM has no say in the pairing, so no reconstruction is chosen for its score. A truth without a
    reconstruction gets the public mean image, which the adversary has anyway.

    Args:
        truths: (n, channels, height, width), uint8 or floats in [0, 1].
        guesses: (m, channels, height, width); m may be 0.
        mean_image: (channels, height, width).
        batch: pair so many truths at a time, each batch with all reconstructions; None pairs all at once.
        without: what :func:`unpaired` returns for the same truths and mean image, if it is known.
    """
    if not len(truths) or not len(guesses):
        return unpaired(truths, mean_image) if without is None else without
    index = np.full(len(truths), UNPAIRED, dtype=np.int64)
    errors = squared_errors(truths, guesses)
    for start in range(0, len(truths), batch or len(truths)):
        rows, columns = linear_sum_assignment(errors[start : start + (batch or len(truths))])
        index[start + rows] = columns
    taken, left = np.flatnonzero(index != UNPAIRED), np.flatnonzero(index == UNPAIRED)
    own, shown = truths[taken], guesses[index[taken]]
    if not len(left):
        rest = Pairing(index[:0], np.zeros(0), np.zeros(0), np.zeros(0))
    elif without is None:
        rest = unpaired(truths[left], mean_image)
    else:
        rest = Pairing(without.index[left], without.ssim[left], without.psnr[left], without.ncc[left])
    order = np.argsort(np.concatenate([taken, left]))
    joined = (
        np.concatenate(both)[order]
        for both in (
            (ssim(own, shown), rest.ssim),
            (psnr(own, shown), rest.psnr),
            (ncc(own, shown), rest.ncc),
        )
    )
    return Pairing(index, *joined)
