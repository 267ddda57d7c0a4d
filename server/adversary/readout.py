"""From the rows of an imprint's gradient back to images: which rows hold one, and what it looks like."""

from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from server.adversary.base import PublicTerms
from server.adversary.nulls import noise_std
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
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    direction: NDArray[np.float64]
    slope: NDArray[np.float64]
    offset: NDArray[np.float64]

    def take(self, index: NDArray[np.intp]) -> "Rows":
        """Return these rows, in this order."""
        return replace(
            self,
            weight=self.weight[index],
            bias=self.bias[index],
            slope=self.slope[index],
            offset=self.offset[index],
        )

    def energy(self) -> NDArray[np.float64]:
        """Return the squared norm of every row, bias included, (R,)."""
        return np.einsum("rd,rd->r", self.weight, self.weight) + self.bias**2


@final
@dataclass(frozen=True)
class Features:
    """What the evidence needs of rows.

    Attributes:
        coordinates: float64 (R, r), of the weight row along the public components.
        energy: float64 (R,), squared norm of the weight row.
        bias: float64 (R,).
    """

    coordinates: NDArray[np.float64]
    energy: NDArray[np.float64]
    bias: NDArray[np.float64]


@final
@dataclass(frozen=True)
class Level:
    """How strong one image and the noise are in a row.

    Attributes:
        std: of the noise per coordinate, 0 without noise.
        amplitude: expected factor on [z, 1], None where gradients are not clipped and it may be anything.
        spread: its standard deviation over images.
    """

    std: float
    amplitude: float | None
    spread: float


def level(terms: PublicTerms, model: PublicModel, releases: int = 1) -> Level:
    """Return what the public terms say about the noise and the amplitude of one image.

    The module outweighs the rest of the model, so a clipped per-image gradient is C * [z, 1] / sqrt(1 +
    |z|^2); over public images the factor is known up to a small spread. In FedAvg a local step of plain SGD
    scales it by lr/B. In several releases added up an image takes part Bin(R, q) times, at least once if it is
    to be found.

    Args:
        terms: of one release.
        model: of the public images.
        releases: how many were added up, R.
    """
    std = noise_std(terms) * np.sqrt(releases)
    if terms.clipping_norm is None:
        return Level(std, None, 0.0)
    norm = terms.clipping_norm
    if terms.local_steps > 1:
        norm *= terms.learning_rate / max(terms.expected_batch, 1e-12)
    factors = norm / np.sqrt(1.0 + model.norms)
    q = terms.sample_rate
    seen = -np.expm1(releases * np.log1p(-q)) if q < 1 else 1.0
    times = releases * q / seen if releases > 1 else 1.0
    square = (releases * q * (1 - q) + (releases * q) ** 2) / seen if releases > 1 else 1.0
    mean = times * float(factors.mean())
    spread = np.sqrt(max(square * float(np.mean(factors**2)) - mean**2, 0.0))
    return Level(float(std), mean, float(spread) + 1e-3 * norm)


def features(rows: Rows, model: PublicModel) -> Features:
    """Return the rows' coordinates along the public components, their energy and bias."""
    energy = np.einsum("rd,rd->r", rows.weight, rows.weight)
    return Features(rows.weight @ model.components.T, energy, rows.bias)


def evidence(seen: Features, model: PublicModel, at: Level) -> NDArray[np.float64]:
    """Return for every row the log likelihood ratio of one image against noise alone, (R,).

    The image is Gaussian as the public model says (what the components leave counts as white), its sign
    unknown. Under noise alone the ratio exceeds t with probability at most 1/t (Markov), whatever the images
    are like.
    """
    if at.amplitude is None or at.std == 0:
        raise ValueError("evidence needs noise and a known amplitude")
    variance = at.std**2
    squares = seen.coordinates**2
    rest = np.maximum(seen.energy - squares.sum(axis=1), 0.0)
    odds, rest_odds, free = _odds(model, at)
    score = 0.5 * ((squares / variance) @ (odds / (1 + odds)) - np.log1p(odds).sum())
    score += 0.5 * (rest / variance * rest_odds / (1 + rest_odds) - free * np.log1p(rest_odds))
    return score + _bias_evidence(seen.bias, at.amplitude, at.spread, at.std)


def _bias_evidence(bias: NDArray[np.float64], amplitude: float, spread: float, std: float) -> NDArray[np.float64]:
    """Return the log likelihood ratio of the biases: +-amplitude, give or take its spread, against noise."""
    wide = spread**2 + std**2
    distance = np.stack([bias - amplitude, bias + amplitude])
    with_image = np.logaddexp(*(-(distance**2) / (2 * wide))) - np.log(2.0) - 0.5 * np.log(wide / std**2)
    return with_image + bias**2 / (2 * std**2)


def expected_evidence(model: PublicModel, at: Level) -> float:
    """Return about how much evidence a row with one typical image carries."""
    if at.amplitude is None or at.std == 0:
        raise ValueError("evidence needs noise and a known amplitude")
    odds, rest_odds, free = _odds(model, at)
    sure = np.array([at.amplitude])
    bias = max(float(_bias_evidence(sure, at.amplitude, at.spread, at.std)[0]), 0.0)
    return float(0.5 * np.sum(odds - np.log1p(odds)) + 0.5 * free * (rest_odds - np.log1p(rest_odds)) + bias)


def _odds(model: PublicModel, at: Level) -> tuple[NDArray[np.float64], float, int]:
    amplitude = at.amplitude or 0.0
    free = model.components.shape[1] - len(model.components)
    white = float(model.residual.sum()) / max(free, 1)
    ratio = (amplitude / at.std) ** 2
    return ratio * model.variances, ratio * white, free


def read_raw(rows: Rows, at: Level) -> NDArray[np.float64]:
    """Return z = weight / bias of every row (Fowl et al. 2022), the bias steadied by its size, (R, D)."""
    size = _amplitudes(rows, at)
    return rows.weight / (np.where(rows.bias < 0, -size, size)[:, None])


def read_denoised(rows: Rows, model: PublicModel, at: Level) -> NDArray[np.float64]:
    """Return the posterior mean of z of every row under the public model (Wiener), (R, D).

    Components and cosine coefficients of the remainder are shrunk by their public variance against the noise;
    then the row's slab, which is far narrower than the spread of images along it, is imposed by one Kalman
    step. The sign is the likelier one given the bias and the slab.
    """
    size = _amplitudes(rows, at)[:, None]
    noise = at.std**2
    coordinates = rows.weight @ model.components.T
    share = size * model.variances / (size**2 * model.variances + noise)
    left = model.variances * noise / (size**2 * model.variances + noise)
    mean = share * coordinates
    normal = rows.slope[:, None] * (model.components @ rows.direction)
    reach = np.einsum("rc,rc->r", normal, mean)
    certainty = np.einsum("rc,rc->r", normal**2, left) + 1 / 12  # a uniform place within the slab of width 1
    target = 0.5 - rows.offset
    # log odds of + against -: the bias is +-size + noise, the slab is +-reach + what the noise leaves.
    sign = np.where(2 * size[:, 0] * rows.bias / noise + 2 * target * reach / certainty < 0, -1.0, 1.0)
    mean = sign[:, None] * mean
    mean += left * normal * ((target - sign * reach) / certainty)[:, None]
    rest = cosines(rows.weight - coordinates @ model.components, model.shape)
    rest *= sign[:, None] * size * model.residual / (size**2 * model.residual + noise)
    return mean @ model.components + cosines(rest, model.shape, inverse=True)


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


def home_rows(z: NDArray[np.floating], rows: Rows) -> NDArray[np.intp]:
    """Return for every z (n, D) the row whose slab holds it, or the nearest one, (n,)."""
    inside = (z @ rows.direction)[:, None] * rows.slope + rows.offset
    return np.argmin(np.abs(inside - 0.5), axis=1)


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


def _amplitudes(rows: Rows, at: Level) -> NDArray[np.float64]:
    """Return the likeliest size of every row's factor: the bias, averaged with what clipping allows."""
    seen = np.abs(rows.bias)
    if at.std == 0 or at.amplitude is None:
        return np.maximum(seen, np.finfo(np.float64).tiny)
    trust = at.spread**2 / (at.spread**2 + at.std**2)
    return np.maximum(trust * seen + (1 - trust) * at.amplitude, 0.1 * at.amplitude)
