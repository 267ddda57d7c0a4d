"""The imprint's matched filter: how likely it is that a given image is in a release."""

from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from server.adversary.evidence import Features, crowd_evidence, evidence, features
from server.adversary.levels import Level, Part
from server.adversary.public_model import PublicModel
from server.adversary.readout import Rows, home_rows

_MOST_CROWD = 32  # images of a crowded row: beyond, signs are as good as Gaussian


@final
@dataclass(frozen=True)
class Membership:
    """The log Bayes factor of an image's being in a release (or in several added up) with noise on clipped gradients.

    The row that a candidate would fall into holds +-k C [z, 1] / sqrt(1 + |z|^2), k how often it took part, alone or
    beside some image that the public model describes; against it stands that the row is empty or holds some other
    image. Without that last case every image near the mean would match every occupied row, as the bias is half of
    the energy.

    Attributes:
        rows: of the release; one block of the same bins, or several (a block for every hospital of a sum).
        seen: the same rows as `features` sees them.
        without: float64 (R,), log likelihood of each row, relative to noise alone, if no candidate is in it.
        model: of the public images.
        at: noise and amplitude.
        occupancy: log probabilities that a row is empty, holds one image, and holds more.
        crowd: how many those are, about.
    """

    rows: Rows
    seen: Features
    without: NDArray[np.float64]
    model: PublicModel
    at: Level
    occupancy: tuple[float, float, float]
    crowd: int

    @staticmethod
    def of(rows: Rows, model: PublicModel, at: Level, *, images: float) -> "Membership":
        """Prepare the filter for rows that hold about `images` images in all."""
        mean = max(images / max(len(rows.bias), 1), 1e-9)
        empty, one = np.exp(-mean), mean * np.exp(-mean)
        more = max(1 - empty - one, 1e-12)
        crowd = min(max(round((mean - one) / more), 2), _MOST_CROWD)
        occupancy = -mean, float(np.log(mean)) - mean, float(np.log(more))
        seen = features(rows, model)
        prepared = Membership(rows, seen, np.zeros(len(rows.bias)), model, at, occupancy, crowd)
        return replace(prepared, without=prepared._others(seen))

    def scores(self, z: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the log Bayes factor of every candidate z (n, D), (n,); the mean over blocks where there are more."""
        homes = [home_rows(z, self.rows, block) for block in self.rows.blocks()]
        found = np.logaddexp.reduce([self._scores_at(home, z) for home in homes], axis=0)
        return found - np.log(len(homes))

    def _scores_at(self, home: NDArray[np.intp], z: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the log Bayes factor of candidates that would be in these rows, (n,)."""
        along = np.einsum("nd,nd->n", self.rows.weight[home], z) + self.seen.bias[home]
        squared = 1 + np.einsum("nd,nd->n", z, z, dtype=np.float64)
        coordinates = (z @ self.model.components.T).astype(np.float64)
        cases: list[NDArray[np.float64]] = []
        for part in self.at.parts:
            for sign in (1.0, -1.0):
                size, alone = self._alone(part, sign * along / np.sqrt(squared))
                shift = sign * size / np.sqrt(squared)
                energy = self.seen.energy[home] + self.seen.bias[home] ** 2 - 2 * shift * along + shift**2 * squared
                bias = self.seen.bias[home] - shift
                rest = Features(
                    self.seen.coordinates[home] - shift[:, None] * coordinates,
                    np.maximum(energy - bias**2, 0.0),
                    bias,
                )
                cases.append(np.log(part.chance / 2) + alone + self._others(rest))
        return np.logaddexp.reduce(cases, axis=0) - self.without[home]

    def _others(self, seen: Features) -> NDArray[np.float64]:
        """Return the log likelihood, relative to noise alone, of rows that hold no candidate, (R,)."""
        one = self.occupancy[1] + evidence(seen, self.model, self.at)
        more = self.occupancy[2] + crowd_evidence(seen, self.model, self.at, self.crowd)
        return np.logaddexp.reduce([np.full_like(one, self.occupancy[0]), one, more], axis=0)

    def _alone(self, part: Part, along: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the likeliest norm of the candidate's gradient, and the log likelihood ratio of the row with it.

        `along` is the row's length along the candidate's unit gradient, N(size, size_spread^2 + std^2).
        """
        noise, between = self.at.std**2, part.size_spread**2
        size = (part.size * noise + along * between) / (noise + between)
        ratio = along**2 / noise - (along - part.size) ** 2 / (noise + between) - np.log1p(between / noise)
        return size, ratio / 2


def cosines_with_home(rows: Rows, z: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return for every candidate z (n, D) the cosine between its row and +-[z, 1], (n,), of the best block's.

    For releases without noise, or with gradients of any size: the exact image scores 1 if it is alone in its
    row, however loud other rows are.
    """
    best = np.zeros(len(z))
    lengths = np.sqrt(1 + np.einsum("nd,nd->n", z, z, dtype=np.float64))
    for block in rows.blocks():
        own = rows.take(home_rows(z, rows, block))
        overlap = np.abs(np.einsum("nd,nd->n", own.weight, z) + own.bias)
        best = np.maximum(best, overlap / np.maximum(np.sqrt(own.energy()) * lengths, np.finfo(np.float64).tiny))
    return best
