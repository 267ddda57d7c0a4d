"""Which of an imprint's rows an honest strong adversary shows, how sure it is of each, and what they look like."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from server.adversary.base import Observation, Reconstruction
from server.adversary.evidence import evidence, expected_evidence, features
from server.adversary.levels import Level, images_behind, level
from server.adversary.public_model import PublicModel, decode, encode
from server.adversary.readout import FALSE_ALARMS, Rows, audible, prefers_denoised, read_denoised, read_raw
from server.adversary.rounds import BIAS, WEIGHT, added_up, brought_together

_AT_ONCE = 2**24  # values that are read at the same time
RAW, DENOISED = "raw ratio of weight and bias gradients", "public PCA, Wiener shrinkage"


@final
@dataclass(frozen=True)
class Chosen:
    """Rows to show.

    Attributes:
        rows: of them.
        at: noise and amplitude in them.
        evidence: float64 (m,), of each; None where there is no noise to weigh it against.
    """

    rows: Rows
    at: Level
    evidence: NDArray[np.float64] | None


def rows_of(observation: Observation, per_block: int | None = None) -> Rows:
    """Return the block's released rows; rows that are not finite are dropped.

    Args:
        observation: of a model with a wide block.
        per_block: rows of each hospital's own block; None where all share one.

    Raises:
        ValueError: the observed model carries no wide block.
    """
    block = observation.spec.block
    if block is None or WEIGHT not in observation.release:
        raise ValueError("the imprint reads a wide block, and the observed model carries none")
    weight = np.asarray(observation.release[WEIGHT], dtype=np.float64)
    bias = np.asarray(observation.release[BIAS], dtype=np.float64)
    ceiling = block.ceiling or 1.0
    planted = np.asarray(observation.weights[WEIGHT])
    slope = np.sqrt(np.einsum("rd,rd->r", planted, planted, dtype=np.float64))
    direction = planted[0].astype(np.float64) / slope[0]
    offset = np.asarray(observation.weights[BIAS], dtype=np.float64) / ceiling
    owner = None if per_block is None else np.arange(len(bias)) // per_block
    rows = Rows(weight, bias, direction, slope / ceiling, offset, owner)
    # The sum of a row is finite only if all of it is; overflow of a finite row drops it too, as no image is in it.
    finite = np.isfinite(weight.sum(axis=1)) & np.isfinite(bias)
    return rows if finite.all() else rows.take(np.flatnonzero(finite))


def show(
    observations: Sequence[Observation],
    model: PublicModel,
    shares: NDArray[np.float64] | None,
    per_block: int | None = None,
) -> Reconstruction:
    """Read the images out of the releases of one block.

    Args:
        observations: of the same block, in order.
        model: of the public images, in the block's coordinates.
        shares: of the gradient's energy that the block takes on public images; None for all of it.
        per_block: as in :func:`rows_of`.
    """
    images: list[NDArray[np.float32]] = []
    confidence: list[NDArray[np.float64]] = []
    ways: set[str] = set()
    for chosen in _chosen(observations, model, shares, per_block):
        denoised = len(chosen.rows.bias) > 0 and prefers_denoised(chosen.rows, model, chosen.at)
        ways.add(DENOISED if denoised else RAW)
        step = max(1, _AT_ONCE // model.components.shape[1])
        for start in range(0, len(chosen.rows.bias), step):
            own = chosen.rows.take(np.arange(start, min(start + step, len(chosen.rows.bias))))
            z = read_denoised(own, model, chosen.at) if denoised else read_raw(own, chosen.at)
            images.append(decode(z, model.centre, model.scale, model.shape))
            if chosen.evidence is None:
                confidence.append(-_excursion(z, images[-1], model))
        if chosen.evidence is not None:
            confidence.append(chosen.evidence)
    sure = np.concatenate([np.zeros(0), *confidence])
    order = np.argsort(-sure, kind="stable")
    shown = np.concatenate([np.zeros((0, *model.shape), np.float32), *images])
    return Reconstruction(shown[order], sure[order], " and ".join(sorted(ways)) or RAW)


def _chosen(
    observations: Sequence[Observation],
    model: PublicModel,
    shares: NDArray[np.float64] | None,
    per_block: int | None,
) -> list[Chosen]:
    """Return the rows to show: of single rounds where one round tells an image, else of their sum."""
    if len(observations) > 1:
        one = level(observations[-1].terms, model, len(observations[-1].added), shares)
        if one.std == 0 or (one.amplitude is not None and expected_evidence(model, one) > 2 * _threshold(observations)):
            return _round_by_round(observations, model, one)
    total = added_up(observations)
    rows = rows_of(total, per_block)
    at = level(total.terms, model, len(total.added), shares)
    if at.amplitude is None or at.std == 0:
        return [Chosen(rows.take(np.flatnonzero(audible(rows, at))), at, None)]
    index, score = _believed(rows, model, at, images_behind(total.terms, len(total.added)))
    return [Chosen(rows.take(index), at, score)]


def _round_by_round(observations: Sequence[Observation], model: PublicModel, at: Level) -> list[Chosen]:
    """Return what single rounds hold, images seen in several of them once, with the noise that their mean has left."""
    noisy = at.std > 0 and at.amplitude is not None
    heard: list[NDArray[np.bool_]] = []
    for seen in observations:
        rows = rows_of(seen)
        if noisy:
            heard.append(evidence(features(rows, model), model, at) > _threshold(observations))
        else:
            heard.append(audible(rows, at))
    rows = rows_of(observations[-1])
    out: list[Chosen] = []
    for found in brought_together(observations, heard, at.std, clipped=at.amplitude is not None):
        own = replace(
            rows,
            weight=found.weight,
            bias=found.bias,
            slope=rows.slope[found.row],
            offset=rows.offset[found.row],
            block=None,
        )
        left = Level(at.std / np.sqrt(found.rounds), at.amplitude, at.spread, at.cases)
        out.append(Chosen(own, left, evidence(features(own, model), model, left) if noisy else None))
    return out


def _threshold(observations: Sequence[Observation]) -> float:
    """Return the evidence that .01 empty rows exceed over all releases that are read, expected (Markov)."""
    return float(np.log(max(sum(len(seen.release[BIAS]) for seen in observations), 1) / FALSE_ALARMS))


def _believed(rows: Rows, model: PublicModel, at: Level, images: float) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the rows to show under noise, and the evidence of each."""
    score = evidence(features(rows, model), model, at)
    threshold = np.log(max(len(score), 1) / FALSE_ALARMS)
    count = int(np.count_nonzero(score > threshold))
    if expected_evidence(model, at) < 2 * threshold:
        count = max(count, int(np.ceil(images)))
    chosen = np.argsort(-score, kind="stable")[:count]
    return chosen, score[chosen]


def _excursion(z: NDArray[np.float64], images: NDArray[np.float32], model: PublicModel) -> NDArray[np.float64]:
    """Return the root mean squared distance of each unclipped input from [0, 1], in z, (n,)."""
    inside = encode(images, model.centre, model.scale)
    return np.sqrt(np.mean((z - inside) ** 2, axis=1))
