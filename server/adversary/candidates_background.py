"""What a release holds besides a candidate: noise, and other images whose gradients resemble the public ones."""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from server.adversary.base import Observation, PublicData
from server.adversary.candidates_gradients import ImageGradients, Vectors
from server.adversary.nulls import noise_std

PUBLIC = 300  # public images whose gradients describe the rest of a batch
MOST_FLOATS = 2**26  # of their gradients
COLUMNS = 2**15  # converted to float64 at the same time
FAINT = 1e-12  # of a gradient's energy, per coordinate: stands in for noise where there is none at all
LEAST = 1e-60  # variance where a release is nothing at all
UNSURE = 0.3  # relative standard deviation of what the class means add up to: hospitals' classes are not the public's


@final
@dataclass(frozen=True)
class Background:
    """A Gaussian with covariance `variance * I + A^T A` and a mean, by which a release is whitened.

    Attributes:
        variance: of noise, and of what the others' gradients leave beside the span of A, per coordinate.
        spread: A, float32 (p, size), p may be 0.
        factored: Cholesky factor of `A A^T + variance * I`, p x p.
        along: float64 (size,), the covariance's inverse times (release - mean).
    """

    variance: float
    spread: NDArray[np.float32]
    factored: tuple[NDArray[np.float64], bool]
    along: NDArray[np.float64]

    @staticmethod
    def of(seen: Observation, gradients: ImageGradients, public: PublicData) -> "Background":
        """Describe everything but one image of the expected batch.

        A compound Poisson sum of B images has covariance B E[g g^T]; k-fold participation in releases that are added
        up scales it by E[k^2]/E[k]. The expectation is over public images (with their labels, else with every label
        tried). What they do not span is measured by leaving each of them out, and taken for white.
        """
        release, variance = _as_sum(seen, gradients)
        times, rate = len(seen.added) * seen.terms.local_steps, seen.terms.sample_rate
        others = max(0.0, seen.terms.expected_batch - 1.0) * times
        found = _public(gradients, public, seen.spec.dense) if others > 0 else None
        if found is None:
            scale = float(np.max(np.abs(release), initial=0.0)) ** 2 + (seen.terms.clipping_norm or 0.0) ** 2
            return _whitened(max(variance, FAINT * scale), np.zeros((0, gradients.size), np.float32), release)
        rows, mean = found
        share = others * (1.0 - rate + times * rate)
        gram = _gram(rows)
        # 1 / (K^-1)_ii is the energy of row i beside the span of the other rows.
        apart = 1.0 / np.diag(np.linalg.pinv(gram, rcond=1e-10, hermitian=True)).clip(1e-300)
        variance += share * float(np.minimum(apart, np.diag(gram)).mean()) / gradients.size
        spread = np.concatenate([np.sqrt(share / len(rows)) * rows, UNSURE * others * mean]).astype(np.float32)
        scale = share * float(np.diag(gram).mean())
        return _whitened(max(variance, FAINT * scale), spread, release - others * mean.sum(axis=0))

    def read(self, vectors: Vectors) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (g . W r, g . W g) of gradients under each guess, both (n, k); W whitens."""
        rows = vectors.rows
        along, energy = np.zeros(len(rows)), np.zeros(len(rows))
        shared = np.zeros((len(self.spread), len(rows)))
        for start in range(0, rows.shape[1], COLUMNS):
            part = rows[:, start : start + COLUMNS].astype(np.float64)
            along += part @ self.along[start : start + COLUMNS]
            energy += np.einsum("nd,nd->n", part, part)
            shared += self.spread[:, start : start + COLUMNS].astype(np.float64) @ part.T
        if len(self.spread):
            energy -= np.einsum("pn,pn->n", shared, cho_solve(self.factored, shared))
        energy = np.maximum(energy, 0.0) / self.variance
        return vectors.factors * along[:, None], vectors.factors**2 * energy[:, None]


def _as_sum(seen: Observation, gradients: ImageGradients) -> tuple[NDArray[np.float64], float]:
    """Return the release as a sum of gradients, and the variance of its noise per coordinate.

    FedAvg's difference of weights is taken for -lr/B times the gradients at the first weights: right to first order in
    the learning rate, and for plain local SGD only.
    """
    terms = seen.terms
    release = gradients.flat(seen.release)
    unit = 1.0
    if terms.local_steps > 1:
        unit = -terms.learning_rate / max(terms.expected_batch, 1e-12)
    return release / unit, len(seen.added) * (noise_std(terms) / unit) ** 2


def _public(
    gradients: ImageGradients, public: PublicData, dense: bool
) -> tuple[NDArray[np.float32], NDArray[np.float64]] | None:
    """Return (public gradients (p, size), means that add up to E[g] (classes, size)); None if there are none."""
    most = max(2, min(PUBLIC, MOST_FLOATS // gradients.size))
    chosen = np.arange(len(public.images))[:: max(1, -(-len(public.images) // most))]
    if len(chosen) < 2 or (dense and public.targets is None):
        return None
    images = public.images[chosen]
    if public.targets is not None:
        targets = public.targets[chosen]
        found = gradients.known(images, targets)
        rows = found.rows * found.factors.astype(np.float32)
        kinds = targets if targets.ndim == 1 else np.zeros(len(targets))
        means = [rows[kinds == kind].sum(axis=0, dtype=np.float64) / len(rows) for kind in np.unique(kinds)]
        return rows, np.stack(means)
    parts = gradients.guessed(images, gradients.labels(images))
    guesses = sum(part.factors.shape[1] for part in parts)
    # A gradient under guess j is factor_j times its row: one row carries the energy of all its guesses.
    rows = np.concatenate(
        [part.rows * np.sqrt((part.factors**2).mean(axis=1, keepdims=True)).astype(np.float32) for part in parts]
    )
    means = [f @ part.rows / (len(f) * guesses) for part in parts for f in part.factors.T]
    return rows, np.stack(means).astype(np.float64)


def _gram(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    total = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], COLUMNS):
        part = rows[:, start : start + COLUMNS].astype(np.float64)
        total += part @ part.T
    return total


def _whitened(variance: float, spread: NDArray[np.float32], release: NDArray[np.float64]) -> Background:
    variance = max(variance, LEAST)
    if not len(spread):
        return Background(variance, spread, (np.zeros((0, 0)), True), release / variance)
    matrix = _gram(spread) + variance * np.eye(len(spread))
    factor, lower = cho_factor(matrix, lower=True)
    seen = spread.astype(np.float64) @ release
    solved = cho_solve((factor, lower), seen)
    return Background(variance, spread, (factor, bool(lower)), (release - solved @ spread) / variance)
