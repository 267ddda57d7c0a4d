"""From the rows of an imprint's gradient back to images: which rows hold one, and what it looks like."""

from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from server.adversary.levels import Level
from server.adversary.public_model import PublicModel, cosines, decode

FALSE_ALARMS = 0.01  # expected number of empty rows, over a whole release, that pass as images
_SILENT = 1e-9  # of the strongest row: below it a noiseless row is rounding
_SEED = 20_241  # the adversary's own constant, for rehearsing on its own images


@final
@dataclass(frozen=True)
class Rows:
    """Rows of a released module gradient, and the slab of images that each row lets through.

    Attributes:
        weight: (R, D), amplitude * z plus noise for a row with one image.
        bias: float64 (R,), amplitude plus noise.
        direction: float64 (D,), unit length, the same for all rows, and
        slope: float64 (R,), and
        offset: float64 (R,): an image of the row has 0 < slope * (direction . z) + offset < 1.
        block: int64 (R,), which hospital's block a row belongs to, each with the same bins; None where there is one.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    direction: NDArray[np.float64]
    slope: NDArray[np.float64]
    offset: NDArray[np.float64]
    block: NDArray[np.int64] | None = None

    def take(self, index: NDArray[np.intp]) -> "Rows":
        """Return these rows, in this order."""
        return replace(
            self,
            weight=self.weight[index],
            bias=self.bias[index],
            slope=self.slope[index],
            offset=self.offset[index],
            block=None if self.block is None else self.block[index],
        )

    def blocks(self) -> list[NDArray[np.intp]]:
        """Return the positions of the rows of every block that has any."""
        if self.block is None:
            return [np.arange(len(self.bias))]
        return [np.flatnonzero(self.block == b) for b in np.unique(self.block)]

    def energy(self) -> NDArray[np.float64]:
        """Return the squared norm of every row, bias included, (R,)."""
        return np.einsum("rd,rd->r", self.weight, self.weight) + self.bias**2


def read_raw(rows: Rows, at: Level) -> NDArray[np.float64]:
    """Return z = weight / bias of every row (Fowl et al. 2022), the bias steadied by its size, (R, D)."""
    size = at.amplitudes(rows.bias)
    return rows.weight / (np.where(rows.bias < 0, -size, size)[:, None])


def read_denoised(rows: Rows, model: PublicModel, at: Level) -> NDArray[np.float64]:
    """Return the posterior mean of z of every row under the public model (Wiener), (R, D).

    Components and cosine coefficients of the remainder are shrunk by their public variance against the noise;
    then the row's slab, which is far narrower than the spread of images along it, is imposed by one Kalman
    step. The sign is the likelier one given the bias and the slab.
    """
    size = at.amplitudes(rows.bias)[:, None]
    noise = at.std**2
    coordinates = model.coordinates(rows.weight)
    share = size * model.variances / (size**2 * model.variances + noise)
    left = model.variances * noise / (size**2 * model.variances + noise)
    mean = share * coordinates
    normal = rows.slope[:, None] * model.coordinates(rows.direction[None])
    reach = np.einsum("rc,rc->r", normal, mean)
    certainty = np.einsum("rc,rc->r", normal**2, left) + 1 / 12  # a uniform place within the slab of width 1
    target = 0.5 - rows.offset
    # log odds of + against -: the bias is +-size + noise, the slab is +-reach + what the noise leaves.
    sign = np.where(2 * size[:, 0] * rows.bias / noise + 2 * target * reach / certainty < 0, -1.0, 1.0)
    mean = sign[:, None] * mean
    mean += left * normal * ((target - sign * reach) / certainty)[:, None]
    rest = cosines(rows.weight - model.spanned(coordinates), model.shape)
    rest *= sign[:, None] * size * model.residual / (size**2 * model.residual + noise)
    return model.spanned(mean) + cosines(rest, model.shape, inverse=True)


def prefers_denoised(rows: Rows, model: PublicModel, at: Level) -> bool:
    """Say which readout errs less at this noise, rehearsed on held-out public images; never by the truth.

    Each held-out image is put into a row of its own at the expected strength with fresh noise, both readouts
    are tried, and the mean squared error of the clipped images decides for the whole release.
    """
    if at.std == 0 or at.amplitude is None or len(model.rehearsal) == 0:
        return False
    rng = np.random.default_rng(_SEED)
    z = model.rehearsal.astype(np.float64)
    size = at.amplitude * np.sqrt((1 + model.norms.mean()) / (1 + model.norms[: len(z)]))
    home = rows.take(home_rows(z, rows))
    trial = replace(
        home,
        weight=size[:, None] * z + at.std * rng.standard_normal(z.shape),
        bias=size + at.std * rng.standard_normal(len(z)),
    )
    truth = decode(z, model.centre, model.scale, model.shape)
    errors = [
        float(np.mean((decode(guess, model.centre, model.scale, model.shape) - truth) ** 2))
        for guess in (read_raw(trial, at), read_denoised(trial, model, at))
    ]
    return errors[1] < errors[0]


def home_rows(z: NDArray[np.floating], rows: Rows, among: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
    """Return for every z (n, D) the row (of those `among`) whose slab holds it, or the nearest one, (n,)."""
    among = np.arange(len(rows.bias)) if among is None else among
    inside = (z @ rows.direction)[:, None] * rows.slope[among] + rows.offset[among]
    return among[np.argmin(np.abs(inside - 0.5), axis=1)]


def audible(rows: Rows, at: Level) -> NDArray[np.bool_]:
    """Say which rows hold something where an image may have any amplitude, (R,).

    Noise alone passes with probability .01/R per row (chi-squared tail by Laurent and Massart 2000, lemma 1);
    without noise a row has to exceed 1e-9 of the strongest one, below which it is rounding.
    """
    energy = rows.energy()
    if not len(energy):
        return np.zeros(0, dtype=bool)
    coordinates = rows.weight.shape[1] + 1
    tail = np.log(len(energy) / FALSE_ALARMS)
    noise = at.std**2 * (coordinates + 2 * np.sqrt(coordinates * tail) + 2 * tail)
    return energy > max(_SILENT**2 * float(energy.max()), noise)
