"""The imprint's matched filter: how likely it is that a given image is in a release."""

import numpy as np
from numpy.typing import NDArray

from server.adversary.public_model import PublicModel
from server.adversary.readout import Level, Rows, evidence, home_rows

_AT_ONCE = 256  # candidates whose rows are held at the same time


def cosine_scores(rows: Rows, z: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return for every candidate z (n, D) the cosine between its row and +-[z, 1], (n,).

    For releases without noise, or with gradients of any size. The exact image scores 1 if it is alone in its
    row, however loud other rows are.
    """
    home = home_rows(z, rows)
    overlap = np.abs(np.einsum("nd,nd->n", rows.weight[home], z) + rows.bias[home])
    lengths = np.sqrt(rows.energy()[home] * (1 + np.einsum("nd,nd->n", z, z, dtype=np.float64)))
    return overlap / np.maximum(lengths, np.finfo(np.float64).tiny)


def membership_scores(
    rows: Rows, z: NDArray[np.float32], model: PublicModel, at: Level, norm: float, batch: float
) -> NDArray[np.float64]:
    """Return for every candidate z (n, D) the log Bayes factor of its being in the release, (n,).

    The row that the candidate would fall into holds +-C [z, 1] / sqrt(1 + |z|^2), alone or beside some image
    that the public model describes; against it stands that the row is empty or holds some other image.
    Without that last case every image near the mean would match every occupied row, as the bias is half of
    the energy.

    Args:
        rows: of the release, with noise.
        z: candidates.
        model: of the public images.
        at: noise and amplitude.
        norm: C, the norm to which an image's gradient was clipped.
        batch: images expected in the release.
    """
    empty, taken = _occupancy(len(rows.bias), batch)
    home = home_rows(z, rows)
    used, place = np.unique(home, return_inverse=True)
    without = np.logaddexp(empty, taken + evidence(rows.take(used), model, at))[place]
    scores = np.empty(len(z))
    for start in range(0, len(z), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        scores[part] = _with(rows.take(home[part]), z[part].astype(np.float64), model, at, norm, (empty, taken))
    return scores - without


def _with(
    own: Rows,
    z: NDArray[np.float64],
    model: PublicModel,
    at: Level,
    norm: float,
    occupancy: tuple[float, float],
) -> NDArray[np.float64]:
    """Return the log likelihood of each row, relative to noise alone, if its candidate is in it."""
    empty, taken = occupancy
    size = norm / np.sqrt(1 + np.einsum("nd,nd->n", z, z))
    cases: list[NDArray[np.float64]] = []
    for sign in (1.0, -1.0):
        shift = sign * size
        overlap = shift * (np.einsum("nd,nd->n", own.weight, z) + own.bias)
        alone = (overlap - norm**2 / 2) / at.std**2
        rest = own.minus(shift[:, None] * z, shift)
        cases.append(alone + np.logaddexp(empty, taken + evidence(rest, model, at)))
    return np.logaddexp(*cases) - np.log(2.0)


def _occupancy(rows: int, batch: float) -> tuple[float, float]:
    """Return the log probabilities that a row is empty and that it is not, for equiprobable rows."""
    empty = min(max((1 - 1 / max(rows, 2)) ** batch, 1e-12), 1 - 1e-12)
    return float(np.log(empty)), float(np.log1p(-empty))
