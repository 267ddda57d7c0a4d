"""How much an imprint's row speaks for an image in it: log likelihood ratios under the public model."""

from dataclasses import dataclass
from math import comb
from typing import final

import numpy as np
from numpy.typing import NDArray

from server.adversary.levels import Level, Part
from server.adversary.public_model import PublicModel
from server.adversary.readout import Rows


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


def features(rows: Rows, model: PublicModel) -> Features:
    """Return the rows' coordinates along the public components, their energy and bias."""
    energy = np.einsum("rd,rd->r", rows.weight, rows.weight)
    return Features(model.coordinates(rows.weight), energy, rows.bias)


def evidence(seen: Features, model: PublicModel, at: Level) -> NDArray[np.float64]:
    """Return for every row the log likelihood ratio of one image against noise alone, (R,).

    The image is Gaussian as the public model says (what the components leave counts as white), its sign
    unknown, and how often it took part one of the level's cases. Under noise alone the ratio exceeds t with
    probability at most 1/t (Markov), whatever the images are like.

    Raises:
        ValueError: without noise, or where the amplitude may be anything.
    """
    _needs_noise(at)
    scores = [
        np.log(part.chance) + _weight_evidence(seen, model, part, at.std) + _bias_evidence(seen.bias, part, at.std)
        for part in at.parts
    ]
    return np.logaddexp.reduce(scores, axis=0)


def crowd_evidence(seen: Features, model: PublicModel, at: Level, images: int) -> NDArray[np.float64]:
    """Return for every row the log likelihood ratio of so many images, each of either sign, against noise alone, (R,).

    A row of several images is louder than one: held against one image alone, whatever candidate takes a part of it
    out looks likely.

    Raises:
        ValueError: without noise, or where the amplitude may be anything.
    """
    _needs_noise(at)
    size, spread = at.amplitude or 0.0, at.spread
    energy = Part(1.0, float(np.sqrt(images * (size**2 + spread**2))), 0.0, 0.0, 0.0)
    plus = np.arange(images + 1)
    middle = (2 * plus - images) * size
    wide = images * spread**2 + at.std**2
    chance = np.array([comb(images, j) for j in plus]) / 2.0**images
    each = np.log(chance) - (seen.bias[:, None] - middle) ** 2 / (2 * wide) - 0.5 * np.log(wide / at.std**2)
    return _weight_evidence(seen, model, energy, at.std) + np.logaddexp.reduce(each, axis=1) + _silence(seen, at.std)


def expected_evidence(model: PublicModel, at: Level) -> float:
    """Return about how much evidence a row with one typical image carries.

    Raises:
        ValueError: without noise, or where the amplitude may be anything.
    """
    _needs_noise(at)
    return float(sum(part.chance * _expected(model, part, at.std) for part in at.parts))


def _expected(model: PublicModel, part: Part, std: float) -> float:
    odds, rest_odds, free = _odds(model, part, std)
    bias = max(float(_bias_evidence(np.array([part.amplitude]), part, std)[0]), 0.0)
    return float(0.5 * np.sum(odds - np.log1p(odds)) + 0.5 * free * (rest_odds - np.log1p(rest_odds)) + bias)


def _weight_evidence(seen: Features, model: PublicModel, part: Part, std: float) -> NDArray[np.float64]:
    """Return the log likelihood ratio of the weight rows: a Gaussian image of this amplitude against noise."""
    squares = seen.coordinates**2
    rest = np.maximum(seen.energy - squares.sum(axis=1), 0.0)
    odds, rest_odds, free = _odds(model, part, std)
    score = 0.5 * ((squares / std**2) @ (odds / (1 + odds)) - np.log1p(odds).sum())
    return score + 0.5 * (rest / std**2 * rest_odds / (1 + rest_odds) - free * np.log1p(rest_odds))


def _silence(seen: Features, std: float) -> NDArray[np.float64]:
    return seen.bias**2 / (2 * std**2)


def _bias_evidence(bias: NDArray[np.float64], part: Part, std: float) -> NDArray[np.float64]:
    """Return the log likelihood ratio of the biases: +-amplitude, give or take its spread, against noise."""
    wide = part.spread**2 + std**2
    distance = np.stack([bias - part.amplitude, bias + part.amplitude])
    with_image = np.logaddexp(*(-(distance**2) / (2 * wide))) - np.log(2.0) - 0.5 * np.log(wide / std**2)
    return with_image + bias**2 / (2 * std**2)


def _odds(model: PublicModel, part: Part, std: float) -> tuple[NDArray[np.float64], float, int]:
    free = model.components.shape[1] - len(model.components)
    white = float(model.residual.sum()) / max(free, 1)
    ratio = (part.amplitude / std) ** 2
    return ratio * model.variances, ratio * white, free


def _needs_noise(at: Level) -> None:
    if at.amplitude is None or at.std == 0:
        raise ValueError("evidence needs noise and a known amplitude")
