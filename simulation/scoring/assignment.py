"""One-to-one pairing of reconstructions with truths."""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from simulation.scoring.similarity import Images, intensities, ncc, psnr, squared_errors, ssim

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


def pair(truths: Images, guesses: Images, mean_image: Images, batch: int | None = None) -> Pairing:
    """Pair each reconstruction with at most one truth so that the total squared error is least (Hungarian).

    SSIM has no say in the pairing, so no reconstruction is chosen for its score. A truth without a
    reconstruction gets the public mean image, which the adversary has anyway.

    Args:
        truths: (n, channels, height, width), uint8 or floats in [0, 1].
        guesses: (m, channels, height, width); m may be 0.
        mean_image: (channels, height, width).
        batch: pair so many truths at a time, each batch with all reconstructions; None pairs all at once.
    """
    index = np.full(len(truths), UNPAIRED, dtype=np.int64)
    shown = np.repeat(intensities(mean_image)[None], len(truths), axis=0)
    if len(truths) and len(guesses):
        errors = squared_errors(truths, guesses)
        for start in range(0, len(truths), batch or len(truths)):
            rows, columns = linear_sum_assignment(errors[start : start + (batch or len(truths))])
            index[start + rows] = columns
        taken = index != UNPAIRED
        shown[taken] = intensities(guesses[index[taken]])
    return Pairing(index, ssim(truths, shown), psnr(truths, shown), ncc(truths, shown))
