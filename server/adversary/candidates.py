"""Candidate matching: who is shown candidates asks which of them fits a release best. Nothing has to be changed."""

from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import binom

from server.adversary.base import RELEASES, Attack, Candidates, Observation, PublicData, Trace
from server.adversary.candidates_background import Background
from server.adversary.candidates_gradients import ImageGradients, Vectors

AT_ONCE = 2**25  # floats of candidates' gradients
MOST_COUNTS = 512  # with more steps in one sum,
RARE = 1e-13  # numbers of participations less likely than this are not considered


@final
class CandidateMatching(Attack):
    """The matched filter of whoever knows the model and the mechanism, and is shown candidates.

    A candidate's clipped gradient g at the weights of a round is in its release with probability q, beside Gaussian
    noise and the other images, which are Gaussian as public images are. The score is the log likelihood ratio of its
    being a record, log(1 - q + q exp(g W r - g W g / 2)), W the inverse covariance, added up over all rounds, each
    with its own weights, and averaged over the labels that the candidate may have. With expected batches of one and
    noise s C it is the likelihood ratio itself: Hayes, Mahloujifar and Balle 2023, section 3, and no adversary of
    that view identifies better.

    FedAvg is read to first order: all local steps as if at the first weights. Rounds are taken for independent
    given the candidate, which at q = 1 they are not, as the others are the same.
    """

    name = "candidate_matching"
    needs = frozenset({RELEASES})
    yields = "candidates"

    def __init__(self) -> None:
        self._opened: tuple[Trace, PublicData, list[_Round]] | None = None

    def informed(self, trace: Trace, public: PublicData, candidates: Candidates) -> NDArray[np.float64] | None:
        """Return the log likelihood ratio of every candidate, (n,).

        None where it cannot: masks are not known for a dense model, or FedAvg without a learning rate. Rounds that are
        not finite say nothing.
        """
        return self.informed_units(trace, public, candidates, np.arange(len(candidates.images)))

    def informed_units(
        self, trace: Trace, public: PublicData, candidates: Candidates, groups: NDArray[np.int64], views: int = 1
    ) -> NDArray[np.float64] | None:
        """Score candidates of several images or views each, (m,); see :meth:`informed`.

        Args:
            trace: what was seen.
            public: the adversary's images.
            candidates: images (v, ...); their targets must be known where a candidate has several rows.
            groups: int64 (v,), the candidate of each row, ascending from 0.
            views: per image.

        Raises:
            ValueError: several rows of a candidate without targets.
        """
        last = trace.last
        if last.terms.local_steps > 1 and last.terms.learning_rate <= 0:
            return None
        if last.spec.dense and candidates.targets is None:
            return None
        if candidates.targets is None and len(np.unique(groups)) < len(groups):
            raise ValueError("candidates of several views need known targets")
        if self._opened is None or self._opened[0] is not trace or self._opened[1] is not public:
            usable = [seen for seen in trace.observations if _is_finite(seen)]
            self._opened = (trace, public, [_Round.of(seen, public) for seen in usable])
        rounds = self._opened[2]
        if not rounds or not len(groups):
            return np.zeros(int(groups[-1]) + 1 if len(groups) else 0)
        # The labels tried are the same in all rounds: their ratios are added up.
        labels = rounds[-1].gradients.labels(candidates.images) if candidates.targets is None else None
        scores = [one.scores(candidates, labels, groups, views) for one in rounds]
        return logsumexp(np.sum(scores, axis=0), axis=1) - np.log(scores[0].shape[1])


@final
class _Round:
    """One observation, ready to be asked about candidates."""

    def __init__(self, seen: Observation, gradients: ImageGradients, background: Background) -> None:
        self.gradients = gradients
        self._background = background
        self._rate = seen.terms.sample_rate
        self._times = len(seen.added) * seen.terms.local_steps

    @staticmethod
    def of(seen: Observation, public: PublicData) -> "_Round":
        gradients = ImageGradients(seen)
        return _Round(seen, gradients, Background.of(seen, gradients, public))

    def scores(
        self, candidates: Candidates, labels: NDArray[np.int64] | None, groups: NDArray[np.int64], views: int
    ) -> NDArray[np.float64]:
        """Return log likelihood ratios of candidates under every guess of their labels, (m, k)."""
        count = int(groups[-1]) + 1 if len(groups) else 0
        most = max(1, AT_ONCE // self.gradients.size)
        found: list[NDArray[np.float64]] = []
        for start in range(0, count, most):
            rows = slice(*np.searchsorted(groups, [start, start + most]))
            images = candidates.images[rows]
            if labels is not None:
                parts = self.gradients.guessed(images, labels[rows])
            elif candidates.targets is not None:
                parts = [self.gradients.known(images, candidates.targets[rows], groups[rows] - start, views)]
            else:
                raise ValueError("candidates without targets need labels to try")
            found.append(np.concatenate([self._ratio(part) for part in parts], axis=1))
        return np.concatenate(found)

    def _ratio(self, vectors: Vectors) -> NDArray[np.float64]:
        return participation(*self._background.read(vectors), times=self._times, rate=self._rate)


def _is_finite(seen: Observation) -> bool:
    return all(bool(np.isfinite(value).all()) for value in (*seen.release.values(), *seen.weights.values()))


def participation(
    along: NDArray[np.float64], energy: NDArray[np.float64], *, times: int, rate: float
) -> NDArray[np.float64]:
    """Return log sum_k Bin(k; times, rate) exp(k along - k^2 energy / 2): k participations in one sum.

    Args:
        along: g . W r.
        energy: g . W g, of the same shape.
        times: steps that are added up in r.
        rate: q.
    """
    if rate >= 1:
        return times * along - 0.5 * times**2 * energy
    low, high = 0, times
    if times > MOST_COUNTS:
        low, high = int(binom.ppf(RARE, times, rate)), int(binom.isf(RARE, times, rate))
    total = np.full(along.shape, -np.inf)
    for k in range(low, high + 1):
        total = np.logaddexp(total, binom.logpmf(k, times, rate) + k * along - 0.5 * k**2 * energy)
    return total
