"""The second death: whether reconstructions look more like their truths than what is known without an attack."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from simulation.scoring.exact_tests import clopper_pearson, mcnemar_p

NULL_RATE = 0.05
FEWEST = 19  # values from which a level of 5 % can be set
MOST_FRESH = 400
_VALUES = 2**25  # pixels of all fresh images


@final
@dataclass(frozen=True)
class Visibility:
    """How many truths are visible: SSIM above what the null reaches for one image in twenty.

    Attributes:
        rate: share of the truths whose pair has an SSIM above `threshold`; None without truths.
        ci: its exact 95 % interval (Clopper-Pearson).
        null_rate: share of the same truths whose null does; of two nulls the one with more.
        p: exact paired test (McNemar) that the attack is above more often than that null.
        threshold: the SSIM; None where nothing was there to set it by.
        fresh: images that nobody attacked by which the threshold was set, 0 where the truths' own nulls set it.
    """

    rate: float | None
    ci: tuple[float, float]
    null_rate: float | None
    p: float
    threshold: float | None
    fresh: int


def visibility(
    ssim: NDArray[np.float64], nulls: Sequence[NDArray[np.float64]], fresh: Sequence[NDArray[np.float64]]
) -> Visibility:
    """Compare SSIM with a threshold that a null passes for one image in twenty.

    The threshold is an order statistic of the nulls' SSIM on images that nobody attacked: an image like them passes it
    with probability at most 5 %, whatever the distribution, and it does not depend on the truths. So the null's own
    rate on the truths is a measurement beside which the attack's rate means something, and in the paired test both
    face a fixed threshold. Where there are fewer than 19 such images, the nulls' SSIM on the truths stand in: then the
    null's rate is at most 5 % by construction, and the test is approximate. Of several nulls the highest threshold
    counts.

    Asking of each truth only whether the attack is above its own null would call an image visible that gained .001.

    *Assumes* for the 5 %: truths and fresh images are exchangeable. *Assumes* for the test: an attack that learnt
    nothing is as often above the threshold as its null.

    Args:
        ssim: (n,), of the attack's pairs.
        nulls: of each null (n,), on the same truths.
        fresh: of each null (f,), on images that nobody attacked.
    """
    enough = all(len(values) >= FEWEST for values in fresh)
    basis = fresh if enough else nulls
    if not len(ssim):
        return Visibility(None, clopper_pearson(0, 0), None, 1.0, None, 0)
    threshold = max(_threshold(values) for values in basis)
    seen = ssim > threshold
    by_null = max((values > threshold for values in nulls), key=np.count_nonzero)
    return Visibility(
        rate=float(seen.mean()),
        ci=clopper_pearson(int(seen.sum()), len(seen)),
        null_rate=float(by_null.mean()),
        p=mcnemar_p(seen, by_null),
        threshold=threshold,
        fresh=len(fresh[0]) if enough else 0,
    )


def _threshold(values: NDArray[np.float64]) -> float:
    """Return the order statistic that one more value passes with probability at most 5 %; the largest of too few."""
    place = int(np.ceil((1 - NULL_RATE) * (len(values) + 1) - 1e-9))
    return float(np.sort(values)[min(place, len(values)) - 1])


def fresh_rows(decoys: NDArray[np.int64], pixels: int) -> NDArray[np.int64]:
    """Return which of the decoys the threshold is set by, evenly spaced: positions in their pool.

    Args:
        decoys: positions in the pool of all targets' decoys.
        pixels: values of one image; of large volumes fewer are taken.
    """
    used = np.unique(decoys)
    count = min(len(used), MOST_FRESH, max(FEWEST, _VALUES // max(1, pixels)))
    return used[np.linspace(0, max(0, len(used) - 1), num=count).astype(np.int64)]
