"""How strong one image and the noise are in an imprint's row: what the public terms say of one release or of many."""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from server.adversary.base import PublicTerms
from server.adversary.nulls import noise_std
from server.adversary.public_model import PublicModel

_MOST_PARTS = 8  # cases of how often an image took part that are told apart
_UNLIKELY = 1e-4  # tails of the number of times that are left out
_ROUNDING = 1e-3  # of the clipping norm: the least spread of amplitudes


@final
@dataclass(frozen=True)
class Part:
    """One case of how often an image took part.

    Attributes:
        chance: of the case.
        amplitude: expected factor on [z, 1].
        spread: its standard deviation over images.
        size: expected norm of the image's gradient in the row, and
        size_spread: its standard deviation.
    """

    chance: float
    amplitude: float
    spread: float
    size: float
    size_spread: float


@final
@dataclass(frozen=True)
class Level:
    """How strong one image and the noise are in a row.

    Attributes:
        std: of the noise per coordinate, 0 without noise.
        amplitude: expected factor on [z, 1], None where gradients are not clipped and it may be anything.
        spread: its standard deviation over images.
        cases: of how often an image took part, more than one where several releases were added up; empty stands
            for one of the amplitude and the spread.
    """

    std: float
    amplitude: float | None
    spread: float
    cases: tuple[Part, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        """The cases; none where the amplitude may be anything."""
        if self.cases or self.amplitude is None:
            return self.cases
        return (Part(1.0, self.amplitude, self.spread, self.amplitude * np.sqrt(2.0), 0.0),)

    def amplitudes(self, bias: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the likeliest size of every row's factor, given its bias: the posterior mean over the cases, (R,)."""
        seen = np.abs(bias)
        if self.std == 0 or self.amplitude is None:
            return np.maximum(seen, np.finfo(np.float64).tiny)
        log_chance, found = [], []
        for part in self.parts:
            wide = part.spread**2 + self.std**2
            log_chance.append(np.log(part.chance) - (seen - part.amplitude) ** 2 / (2 * wide) - 0.5 * np.log(wide))
            trust = part.spread**2 / wide
            found.append(np.maximum(trust * seen + (1 - trust) * part.amplitude, 0.1 * part.amplitude))
        weights = np.exp(np.array(log_chance) - np.max(log_chance, axis=0))
        return np.sum(weights * np.array(found), axis=0) / weights.sum(axis=0)


def level(
    terms: PublicTerms, model: PublicModel, releases: int = 1, shares: NDArray[np.float64] | None = None
) -> Level:
    """Return what the public terms say about the noise and the amplitude of one image.

    A clipped per-image gradient of a module that outweighs the rest of the model is C * [z, 1] / sqrt(1 + |z|^2); of
    one that takes a share of the gradient's energy, sqrt(share) of that. Over public images the factor is known up to
    a small spread. In FedAvg a local step of plain SGD scales it by lr/B, and the noise of the first step throws
    every row's planted weights out of reach, so an image is caught where it is drawn in the first step. In R releases
    added up an image that is there at all took part k times, k ~ Bin(R, q) given k >= 1: a mixture, as with few
    participations no Gaussian is like it.

    Args:
        terms: of one release.
        model: of the public images.
        releases: how many were added up, R.
        shares: float64 (m,), of public images; None where the module is the whole gradient.
    """
    std = float(noise_std(terms) * np.sqrt(releases))
    if terms.clipping_norm is None:
        return Level(std, None, 0.0)
    norm = terms.clipping_norm
    if terms.local_steps > 1:
        norm *= terms.learning_rate / max(terms.expected_batch, 1e-12)
    sizes = norm * (np.ones(1) if shares is None else np.sqrt(shares))
    reach = np.sqrt(1.0 + model.norms)
    factors = sizes[:, None] / reach
    mean, square = float(factors.mean()), float(np.mean(factors**2))
    parts: list[Part] = []
    for chance, times, times_square in _participations(releases, terms.sample_rate):
        spread = float(np.sqrt(max(times_square * square - (times * mean) ** 2, 0.0))) + _ROUNDING * norm
        size = times * float(sizes.mean())
        size_square = times_square * float(np.mean(sizes**2))
        parts.append(Part(chance, times * mean, spread, size, float(np.sqrt(max(size_square - size**2, 0.0)))))
    whole = sum(part.chance * part.amplitude for part in parts)
    around = sum(part.chance * (part.spread**2 + part.amplitude**2) for part in parts) - whole**2
    return Level(std, whole, float(np.sqrt(max(around, 0.0))), tuple(parts))


def images_behind(terms: PublicTerms, releases: int) -> float:
    """Return the expected number of images that so many releases hold, each counted once.

    Of n = B/q units with B expected in a step, a fraction 1 - (1 - q)^R takes part in R releases.
    """
    q = terms.sample_rate
    if releases <= 1 or not 0 < q < 1:
        return terms.expected_batch
    return float(terms.expected_batch / q * -np.expm1(releases * np.log1p(-q)))


def _participations(releases: int, rate: float) -> list[tuple[float, float, float]]:
    """Return cases (chance, mean of k, mean of k^2) of k ~ Bin(R, q) given k >= 1, at most 8 of them."""
    if releases <= 1 or rate >= 1:
        return [(1.0, float(max(releases, 1)), float(max(releases, 1)) ** 2)]
    if rate <= 0:
        return [(1.0, 1.0, 1.0)]
    low, high = (max(1, int(binom.ppf(tail, releases, rate))) for tail in (_UNLIKELY, 1 - _UNLIKELY))
    times = np.arange(low, high + 1)
    chances = binom.pmf(times, releases, rate)
    chances /= chances.sum()
    middle = np.cumsum(chances) - chances / 2
    group = np.arange(len(times)) if len(times) <= _MOST_PARTS else np.floor(middle * _MOST_PARTS).astype(int)
    return [
        (float(chance), float(chances[own] @ times[own] / chance), float(chances[own] @ times[own] ** 2 / chance))
        for own in (group == g for g in np.unique(group))
        for chance in (chances[own].sum(),)
    ]
