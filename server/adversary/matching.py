"""The imprint's matched filter: how likely it is that a given image is in a release."""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from server.adversary.public_model import PublicModel
from server.adversary.readout import Features, Level, Rows, evidence, features, home_rows


@final
@dataclass(frozen=True)
class Membership:
    """The log Bayes factor of an image's being in a release with noise on clipped gradients.

    The row that a candidate would fall into holds +-C [z, 1] / sqrt(1 + |z|^2), alone or beside some image
    that the public model describes; against it stands that the row is empty or holds some other image.
    Without that last case every image near the mean would match every occupied row, as the bias is half of
    the energy.

    Attributes:
        rows: of the release.
        seen: the same rows as `features` sees them.
        without: float64 (R,), log likelihood of each row, relative to noise alone, if no candidate is in it.
        model: of the public images.
        at: noise and amplitude.
        norm: C, the norm to which an image's gradient was clipped.
        occupancy: log probabilities that a row is empty and that it is not.
    """

    rows: Rows
    seen: Features
    without: NDArray[np.float64]
    model: PublicModel
    at: Level
    norm: float
    occupancy: tuple[float, float]

    @staticmethod
    def of(rows: Rows, model: PublicModel, at: Level, *, norm: float, batch: float) -> "Membership":
        """Prepare the filter for one release of about `batch` images."""
        empty = min(max((1 - 1 / max(len(rows.bias), 2)) ** batch, 1e-12), 1 - 1e-12)
        occupancy = float(np.log(empty)), float(np.log1p(-empty))
        seen = features(rows, model)
        without = np.logaddexp(occupancy[0], occupancy[1] + evidence(seen, model, at))
        return Membership(rows, seen, without, model, at, norm, occupancy)

    def scores(self, z: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the log Bayes factor of every candidate z (n, D), (n,)."""
        home = home_rows(z, self.rows)
        along = np.einsum("nd,nd->n", self.rows.weight[home], z)
        squared = np.einsum("nd,nd->n", z, z, dtype=np.float64)
        coordinates = (z @ self.model.components.T).astype(np.float64)
        size = self.norm / np.sqrt(1 + squared)
        cases: list[NDArray[np.float64]] = []
        for shift in (size, -size):
            alone = (shift * (along + self.seen.bias[home]) - self.norm**2 / 2) / self.at.std**2
            rest = Features(
                self.seen.coordinates[home] - shift[:, None] * coordinates,
                np.maximum(self.seen.energy[home] - 2 * shift * along + shift**2 * squared, 0.0),
                self.seen.bias[home] - shift,
            )
            other = self.occupancy[1] + evidence(rest, self.model, self.at)
            cases.append(alone + np.logaddexp(self.occupancy[0], other))
        return np.logaddexp(*cases) - np.log(2.0) - self.without[home]


def cosines_with_home(rows: Rows, z: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return for every candidate z (n, D) the cosine between its row and +-[z, 1], (n,).

    For releases without noise, or with gradients of any size: the exact image scores 1 if it is alone in its
    row, however loud other rows are.
    """
    own = rows.take(home_rows(z, rows))
    overlap = np.abs(np.einsum("nd,nd->n", own.weight, z) + own.bias)
    lengths = np.sqrt(own.energy() * (1 + np.einsum("nd,nd->n", z, z, dtype=np.float64)))
    return overlap / np.maximum(lengths, np.finfo(np.float64).tiny)
