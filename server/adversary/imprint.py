"""The imprint attack: a wide block in the broadcast model that copies images into the gradient."""

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
from server.adversary.bins import Bins
from server.adversary.energy import Energies, energies
from server.adversary.fitting import LAST, content
from server.adversary.levels import images_behind, level
from server.adversary.matching import Membership, cosines_with_home
from server.adversary.public_model import PublicModel, encode, usable_images
from server.adversary.readout import Rows
from server.adversary.rounds import BIAS, CENTRE, WEIGHT, added_up, same_block
from server.adversary.showing import rows_of, show
from tasks.models import ModelSpec, WideBlock

LOGIT_SHIFT = 0.1  # most that the block adds to a logit: the agreed model's predictions hardly move
# The smaller the ceiling, the larger the gain at the same shift. With 1e-12 an image whose loss gradient is
# 1e-6 still outweighs the rest of the model and any clipping norm, and float32 keeps its relative precision
# down to 1e-38.
CEILING = 1e-12
_CORE = "core."
_AT_ONCE = 2**21  # values of candidates encoded at the same time: fewer and each product reads the components again

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

    With `per_hospital` every hospital of a sum gets K rows of its own, live in its broadcast and dead in everybody
    else's (LOKI, Zhao et al. 2023): the sum keeps hospitals apart. A `share` below 1 lowers the gain, so that the
    block takes about this share of a gradient's energy.
    """

    name = "imprint"
    needs = frozenset({RELEASES, BROADCAST})

    def __init__(self, settings: ImprintSettings) -> None:
        self.settings = settings
        self.personal = settings.per_hospital
        self._fitted: dict[str, tuple[PublicModel, Bins]] = {}
        self._measured: tuple[Weights, Energies] | None = None
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
        model, bins = self._model(public, spec.shape)
        rows, blocks = self.settings.rows, to.count if self.personal else 1
        slopes = CEILING / np.diff(bins.edges)
        weight = (slopes[:, None] * bins.direction).astype(np.float32)
        bias = (-slopes * bins.edges[:-1]).astype(np.float32)
        planted = {f"{_CORE}{name}": value for name, value in weights.items()}
        planted[CENTRE] = model.centre
        if self.personal and to.hospital:  # dead rows: below 0 whatever the image, so their gradient is exactly 0
            own = slice(to.index * rows, (to.index + 1) * rows)
            planted[WEIGHT] = np.zeros((blocks * rows, weight.shape[1]), np.float32)
            planted[BIAS] = np.full(blocks * rows, -CEILING, np.float32)
            planted[WEIGHT][own], planted[BIAS][own] = weight, bias
        else:
            planted[WEIGHT] = weight if blocks == 1 else np.tile(weight, (blocks, 1))
            planted[BIAS] = bias if blocks == 1 else np.tile(bias, blocks)
        gain = LOGIT_SHIFT / (CEILING * rows)
        if self.settings.share < 1:
            gain = min(gain, self._energies(spec, weights, public).gain(self.settings.share))
        block = WideBlock(rows=blocks * rows, ceiling=CEILING, gain=gain, scale=model.scale)
        return replace(spec, block=block), planted

    def reconstruct(self, trace: Trace, public: PublicData) -> Reconstruction:
        """Read out of all releases of one source every image that an honest strong adversary would show.

        Without noise these are all rows that are not silent, read by the raw ratio. With noise they are the
        rows whose evidence for an image exceeds what noise alone reaches, at .01 false rows expected in
        everything that is read. Where a typical image would not pass that level, the best rows follow as guesses,
        up to the number of images that took part: they cost the adversary nothing and give identification its
        chance. Several rounds of the same block are read one by one where one round tells an image on its own, and
        else added up. A rehearsal on public images decides between the raw and the denoised readout. Images are
        ordered by confidence, which is the evidence under noise, else minus the excursion of the pixels outside
        [0, 1]: rows that hold several images of opposite sign stand out by it.

        Raises:
            ValueError: the observations' model carries no wide block.
        """
        observations = same_block(trace)
        model = self._block_model(observations[-1], public)
        return show(observations, model, self._shares(observations[-1], public), self._per_block)

    def informed(self, trace: Trace, public: PublicData, candidates: Candidates) -> NDArray[np.float64] | None:
        """Score candidates by a matched filter on the one row that each would fall into, (n,).

        With noise on clipped gradients the score is the log Bayes factor of the candidate's being in the
        releases, otherwise the cosine between its row and +-[z, 1], the best of all rounds. Where every hospital has
        rows of its own the candidate's hospital is not known, and all are tried.
        """
        if self._opened is None or self._opened[0] is not trace or self._opened[1] is not public:
            self._opened = (trace, public, self._filter(trace, public))  # it is asked once per target
        score, observation, images = self._opened[2], trace.last, candidates.images
        centre = np.asarray(observation.weights[CENTRE], dtype=np.float32)
        block = observation.spec.block
        if score is None or block is None:
            return np.zeros(len(images))
        step = max(1, _AT_ONCE // len(centre))
        parts = [images[start : start + step] for start in range(0, len(images), step)]
        found = [score(encode(part, centre, block.scale)) for part in parts]
        return np.concatenate([np.zeros(0), *found])

    def _filter(self, trace: Trace, public: PublicData) -> Score | None:
        """Return the function that scores candidates z for one source; None if no row is left."""
        observations = same_block(trace)
        total = added_up(observations)
        rows = rows_of(total, self._per_block)
        if len(rows.bias) == 0:
            return None
        model = self._block_model(total, public)
        terms, releases = total.terms, len(total.added)
        at = level(terms, model, releases, self._shares(total, public))
        if at.amplitude is None or at.std == 0:
            each = [rows] if len(observations) == 1 else [rows_of(seen, self._per_block) for seen in observations]
            return partial(_best_cosine, each)
        return Membership.of(rows, model, at, images=images_behind(terms, releases)).scores

    def public_model(self, public: PublicData, shape: tuple[int, ...]) -> PublicModel:
        """Return what the attack makes of its images; the block's coordinates are this model's."""
        return self._model(public, shape)[0]

    @property
    def _per_block(self) -> int | None:
        return self.settings.rows if self.personal else None

    def _model(self, public: PublicData, shape: tuple[int, ...]) -> tuple[PublicModel, Bins]:
        asked = shape, self.settings.components, self.settings.rows
        key = content(public.images, *asked)
        if key not in self._fitted:
            self._fitted.clear()  # one at a time: it is large
            self._fitted[key] = LAST.get(key, public.images, *asked)
        return self._fitted[key]

    def _block_model(self, observation: Observation, public: PublicData) -> PublicModel:
        """Return the public model if it has the block's coordinates; public data other than the planted would not."""
        block = observation.spec.block
        if block is None or WEIGHT not in observation.release:
            raise ValueError("the imprint reads a wide block, and the observed model carries none")
        model = self._model(public, observation.spec.shape)[0]
        centre = np.asarray(observation.weights[CENTRE], dtype=np.float32)
        if not np.allclose(model.centre, centre, atol=1e-4) or not np.isclose(model.scale, block.scale, rtol=1e-4):
            raise ValueError("the public data is not what the block was planted with; attack with the same")
        return replace(model, centre=centre, scale=block.scale)

    def _shares(self, observation: Observation, public: PublicData) -> NDArray[np.float64] | None:
        """Return the block's shares of public images' gradient energy; None where it is all of it by design."""
        block = observation.spec.block
        if self.settings.share >= 1 or block is None:
            return None
        core = {name.removeprefix(_CORE): w for name, w in observation.weights.items() if name.startswith(_CORE)}
        return self._energies(observation.spec, core, public, observation.weights).shares(block.gain)

    def _energies(self, spec: ModelSpec, core: Weights, public: PublicData, sent: Weights | None = None) -> Energies:
        """Measure the energies once per set of weights."""
        key = core if sent is None else sent
        if self._measured is None or self._measured[0] is not key:
            images = replace(public, images=usable_images(public.images, spec.shape))
            if len(images.images) != len(public.images):
                images = replace(images, targets=None)
            self._measured = (key, energies(spec, core, images, self._model(public, spec.shape)[0]))
        return self._measured[1]


def _best_cosine(rounds: list[Rows], z: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return for every candidate the best cosine with its row over the rounds, (n,)."""
    return np.max([cosines_with_home(rows, z) for rows in rounds], axis=0)
