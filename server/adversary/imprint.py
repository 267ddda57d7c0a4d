"""The imprint attack: a wide block in the broadcast model that copies images into the gradient."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import final

import numpy as np
from numpy.typing import NDArray

from configs.adversary import ImprintSettings
from server.adversary.base import (
    BROADCAST,
    EVERYBODY,
    RELEASES,
    Addressee,
    Attack,
    Candidates,
    Observation,
    PublicData,
    Reconstruction,
    Trace,
    Weights,
)
from server.adversary.bins import measurement
from server.adversary.matching import Membership, cosines_with_home
from server.adversary.public_model import PublicModel, decode, encode, fit, usable_images
from server.adversary.readout import (
    FALSE_ALARMS,
    Level,
    Rows,
    audible,
    evidence,
    expected_evidence,
    features,
    level,
    prefers_denoised,
    read_denoised,
    read_raw,
)
from tasks.models import ModelSpec, WideBlock

WEIGHT, BIAS, CENTRE = "wide.units.weight", "wide.units.bias", "wide.centre"
LOGIT_SHIFT = 0.1  # most that the block adds to a logit: the agreed model's predictions hardly move
# The smaller the ceiling, the larger the gain at the same shift. With 1e-12 an image whose loss gradient is
# 1e-6 still outweighs the rest of the model and any clipping norm, and float32 keeps its relative precision
# down to 1e-38.
CEILING = 1e-12
_AT_ONCE = 512  # candidates encoded at the same time

Score = Callable[[NDArray[np.float32]], NDArray[np.float64]]


@final
class Imprint(Attack):
    """Fowl et al. 2022 (Robbing the Fed) with sparse rows, built for clipped and noised gradients.

    Each of K units looks at the same measurement m(z) = direction . z and has a gradient only for images
    whose m lies in its bin, so an image alone in its bin is copied: the row's gradient is amplitude * [z, 1].
    With K equiprobable bins and B images a fraction (1 - 1/K)^(B - 1) is alone.

    The block goes straight to the logits with a gain so large that its share of every per-image gradient is
    1.000: clipping to C then turns the row into +-C * [z, 1] / sqrt(1 + |z|^2), a rescaling that the ratio
    does not feel. z is centred on the public mean and scaled to |z|^2 = 1 on average, so the bias, which no
    image can hide in, carries half of the energy against the noise. In FedAvg a row closes after the first
    step that moves it, as the step is far larger than the planted weights: it keeps the image (plain SGD
    only).
    """

    name = "imprint"
    needs = frozenset({RELEASES, BROADCAST})

    def __init__(self, settings: ImprintSettings) -> None:
        self.settings = settings
        self._fitted: dict[str, PublicModel] = {}
        self._opened: tuple[Trace, PublicData, Score | None] | None = None

    def plant(
        self, spec: ModelSpec, weights: Weights, public: PublicData, to: Addressee = EVERYBODY
    ) -> tuple[ModelSpec, Weights]:
        """Return the agreed model with the block wired to its logits.

        Raises:
            ValueError: the model carries a block already, or the public images have another shape.
        """
        if spec.block is not None:
            raise ValueError("the model to plant in already carries a wide block")
        model = self._model(public, spec.shape)
        rows = self.settings.rows
        bins = measurement(model, model.encode(usable_images(public.images, spec.shape)), rows)
        slopes = CEILING / np.diff(bins.edges)
        block = WideBlock(rows=rows, ceiling=CEILING, gain=LOGIT_SHIFT / (CEILING * rows), scale=model.scale)
        planted = {f"core.{name}": value for name, value in weights.items()}
        planted[WEIGHT] = (slopes[:, None] * bins.direction).astype(np.float32)
        planted[BIAS] = (-slopes * bins.edges[:-1]).astype(np.float32)
        planted[CENTRE] = model.centre
        return replace(spec, block=block), planted

    def reconstruct(self, trace: Trace, public: PublicData) -> Reconstruction:
        """Read out of all releases of one source every image that an honest strong adversary would show.

        Without noise these are all rows that are not silent, read by the raw ratio. With noise they are the
        rows whose evidence for an image exceeds what noise alone reaches, at .01 false rows expected per
        release. Where a typical image would not pass that level, the best rows up to the expected batch
        follow as guesses: they cost the adversary nothing and give identification its chance. A rehearsal on
        public images decides between the raw and the denoised readout. Images are ordered by confidence,
        which is the evidence under noise, else minus the excursion of the pixels outside [0, 1]: rows that
        hold several images of opposite sign stand out by it.

        Raises:
            ValueError: the observations' model carries no wide block.
        """
        observation = added_up(trace)
        block_scale, rows = _rows(observation)
        shape = observation.spec.shape
        model = self._model(public, shape)
        at = level(observation.terms, model, len(observation.added))
        centre = np.asarray(observation.weights[CENTRE], dtype=np.float32)
        model = _in_coordinates(model, centre, block_scale)
        if at.amplitude is not None and at.std > 0:
            chosen, confidence = _believed(rows, model, at, observation)
        else:
            chosen, confidence = np.flatnonzero(audible(rows, at)), None
        found = rows.take(chosen)
        denoised = len(chosen) > 0 and prefers_denoised(rows, model, at)
        z = read_denoised(found, model, at) if denoised else read_raw(found, at)
        images = decode(z, centre, block_scale, shape)
        if confidence is None:
            confidence = -_excursion(z, images, centre, block_scale)
        order = np.argsort(-confidence, kind="stable")
        said = "public PCA, Wiener shrinkage" if denoised else "raw ratio of weight and bias gradients"
        return Reconstruction(images[order], confidence[order], said)

    def informed(self, trace: Trace, public: PublicData, candidates: Candidates) -> NDArray[np.float64] | None:
        """Score candidates by a matched filter on the one row that each would fall into, (n,).

        With noise on clipped gradients the score is the log Bayes factor of the candidate's being in the
        release, otherwise the cosine between its row and +-[z, 1].
        """
        if self._opened is None or self._opened[0] is not trace or self._opened[1] is not public:
            self._opened = (trace, public, self._filter(added_up(trace), public))  # it is asked once per target
        score, observation, images = self._opened[2], trace.last, candidates.images
        centre = np.asarray(observation.weights[CENTRE], dtype=np.float32)
        block = observation.spec.block
        if score is None or block is None:
            return np.zeros(len(images))
        parts = [images[start : start + _AT_ONCE] for start in range(0, len(images), _AT_ONCE)]
        found = [score(encode(part, centre, block.scale)) for part in parts]
        return np.concatenate([np.zeros(0), *found])

    def _filter(self, observation: Observation, public: PublicData) -> Score | None:
        """Return the function that scores candidates z for one observation; None if no row is left."""
        scale, rows = _rows(observation)
        if len(rows.bias) == 0:
            return None
        terms = observation.terms
        centre = np.asarray(observation.weights[CENTRE], dtype=np.float32)
        model = _in_coordinates(self._model(public, observation.spec.shape), centre, scale)
        at = level(terms, model, len(observation.added))
        if terms.clipping_norm is None or at.std == 0 or terms.local_steps > 1:
            return partial(cosines_with_home, rows)
        return Membership.of(rows, model, at, norm=terms.clipping_norm, batch=terms.expected_batch).scores

    def _model(self, public: PublicData, shape: tuple[int, ...]) -> PublicModel:
        key = hashlib.sha256(np.ascontiguousarray(public.images).tobytes() + repr(shape).encode()).hexdigest()
        if key not in self._fitted:
            self._fitted = {key: fit(public, shape, self.settings.components)}  # one at a time: it is large
        return self._fitted[key]


def added_up(trace: Trace) -> Observation:
    """Return the trace as one observation: the block's releases of all rounds that were sent the same block.

    The block outweighs the rest of the model, so an image's clipped row is the same in every round, whatever
    the agreed model has become. Rounds with another block than the last one's are left out.
    """
    last = trace.last
    if last.spec.block is None or len(trace.observations) == 1:
        return last
    same = [
        seen
        for seen in trace.observations
        if seen.spec == last.spec
        and all(np.array_equal(seen.weights[name], last.weights[name]) for name in (WEIGHT, BIAS, CENTRE))
        and WEIGHT in seen.release
    ]
    if len(same) < 2:
        return last
    release = {name: np.sum([seen.release[name] for seen in same], axis=0) for name in (WEIGHT, BIAS)}
    rounds = tuple(sorted(r for seen in same for r in seen.added))
    return replace(last, release=release, rounds=rounds)


def _rows(observation: Observation) -> tuple[float, Rows]:
    """Return the block's scale and its released rows; rows that are not finite are dropped."""
    block = observation.spec.block
    if block is None or WEIGHT not in observation.release:
        raise ValueError("the imprint reads a wide block, and the observed model carries none")
    weight = np.asarray(observation.release[WEIGHT], dtype=np.float64)
    bias = np.asarray(observation.release[BIAS], dtype=np.float64)
    ceiling = block.ceiling or 1.0
    planted = np.asarray(observation.weights[WEIGHT], dtype=np.float64) / ceiling
    slope = np.linalg.norm(planted, axis=1)
    offset = np.asarray(observation.weights[BIAS], dtype=np.float64) / ceiling
    finite = np.flatnonzero(np.isfinite(weight).all(axis=1) & np.isfinite(bias))
    return block.scale, Rows(weight, bias, planted[0] / slope[0], slope, offset).take(finite)


def _believed(
    rows: Rows, model: PublicModel, at: Level, observation: Observation
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the rows to show under noise, and the evidence of each."""
    score = evidence(features(rows, model), model, at)
    threshold = np.log(max(len(score), 1) / FALSE_ALARMS)
    count = int(np.count_nonzero(score > threshold))
    if expected_evidence(model, at) < 2 * threshold:
        count = max(count, int(np.ceil(observation.terms.expected_batch)))
    chosen = np.argsort(-score, kind="stable")[:count]
    return chosen, score[chosen]


def _in_coordinates(model: PublicModel, centre: NDArray[np.float32], scale: float) -> PublicModel:
    """Return the model if it has the block's coordinates; public data other than the planted would not."""
    if not np.allclose(model.centre, centre, atol=1e-4) or not np.isclose(model.scale, scale, rtol=1e-4):
        raise ValueError("the public data is not what the block was planted with; attack with the same")
    return model


def _excursion(
    z: NDArray[np.float64], images: NDArray[np.float32], centre: NDArray[np.float32], scale: float
) -> NDArray[np.float64]:
    """Return the root mean squared distance of each unclipped input from [0, 1], in z, (n,)."""
    inside = encode(images, centre, scale)
    return np.sqrt(np.mean((z - inside) ** 2, axis=1))
