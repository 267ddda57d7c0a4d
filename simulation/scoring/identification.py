"""Whether a reconstruction tells its truth from images that look as likely: the rank among decoys."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from simulation.scoring.exact_tests import binomial_p, common_decoys_p
from simulation.scoring.similarity import Images, smallest_errors

Informed = Callable[[NDArray[np.uint8]], NDArray[np.float64] | None]

_SEED = 20_250  # breaks ties; a constant of the scorer
_DIGITS = 12  # of a mean squared error: what differs less is rounding, and rounding must not decide a rank


@final
@dataclass(frozen=True)
class Decoys:
    """For each target the same number of images that could have stood in its place.

    Attributes:
        pool: uint8 (p, channels, height, width), same site, other lesions, never shown to the adversary.
        index: int64 (targets, m), rows of the pool; no row serves two targets, so that ranks are independent.
        shared: all targets have the same decoys: more of them each, and ranks that depend on each other.
    """

    pool: NDArray[np.uint8]
    index: NDArray[np.int64]
    shared: bool = False

    def __post_init__(self) -> None:
        if self.index.ndim != 2:
            raise ValueError(f"decoys need an index (targets, m), got shape {self.index.shape}")
        rows = self.index[:1] if self.shared else self.index
        if self.shared and np.any(self.index != rows):
            raise ValueError("shared decoys are the same for every target")
        if len(np.unique(rows)) != rows.size:
            raise ValueError("a decoy serves two targets: the ranks would depend on each other")

    @property
    def count(self) -> int:
        """Decoys per target m."""
        return int(self.index.shape[1])

    def chance_p(self, firsts: int) -> float:
        """Return the exact probability of at least so many targets at rank 1 by chance alone."""
        if self.shared:
            return common_decoys_p(firsts, len(self.index), self.count)
        return binomial_p(firsts, len(self.index), 1 / (self.count + 1))


def decoy_ranks(targets: NDArray[np.uint8], decoys: Decoys, guesses: Images) -> NDArray[np.int64]:
    """Return the rank of every target among itself and its decoys, (n,), 1 is best of m + 1.

    A candidate's score is its smallest squared error to any reconstruction, for the truth and for decoys
    alike. If the reconstructions know nothing of the target, truth and decoys are exchangeable and the rank
    is uniform on 1..m+1, also where all reconstructions are one constant image; ties are broken by a fair
    draw (fixed by a constant), so the rank stays uniform where candidates or scores coincide, e.g. without
    reconstructions.

    Args:
        targets: uint8 (n, channels, height, width).
        decoys: index (n, m).
        guesses: (g, channels, height, width), g may be 0.
    """
    scores = np.zeros((len(targets), decoys.count + 1))
    if len(guesses) and len(targets):
        scores[:, 0] = smallest_errors(guesses, targets)
        if decoys.count:
            used = decoys.index[:1] if decoys.shared else decoys.index
            scores[:, 1:] = smallest_errors(guesses, decoys.pool, used.ravel()).reshape(used.shape)
    return _ranks(np.round(scores, _DIGITS), decoys.shared)


def informed_ranks(targets: NDArray[np.uint8], decoys: Decoys, informed: Informed) -> NDArray[np.int64] | None:
    """Return the ranks (n,) when the adversary itself scores the candidates, 1 is best; None if it cannot.

    Here the adversary is shown the candidates (not which is true), so this is a stronger adversary than
    :func:`decoy_ranks` tests and has a column of its own. Candidates come in a drawn order: their place says
    nothing.
    """
    rng = np.random.default_rng(_SEED)
    scores = np.zeros((len(targets), decoys.count + 1))
    for row, target in enumerate(targets):
        candidates = np.concatenate([target[None], decoys.pool[decoys.index[row]]])
        order = rng.permutation(len(candidates))
        answer = informed(candidates[order])
        if answer is None:
            return None
        scores[row, order] = -np.nan_to_num(answer, nan=-np.inf)
    return _ranks(scores, decoys.shared)


def _ranks(scores: NDArray[np.float64], shared: bool) -> NDArray[np.int64]:
    """Return the rank of column 0 by ascending score, ties by a fair draw: one for every candidate."""
    rng = np.random.default_rng(_SEED)
    lots = rng.random(scores.shape)
    if shared:  # a decoy draws once for all targets, so that all candidates stay in one order
        lots[:, 1:] = lots[:1, 1:]
    better = scores[:, 1:] < scores[:, :1]
    tied = (scores[:, 1:] == scores[:, :1]) & (lots[:, 1:] < lots[:, :1])
    return 1 + np.count_nonzero(better | tied, axis=1)
