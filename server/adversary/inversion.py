"""Gradient inversion: images whose gradient, or local training, would look like the release."""

from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.adversary import InversionSettings
from server.adversary.base import RELEASES, Attack, Observation, PublicData, Reconstruction, Trace
from server.adversary.inversion_release import Exchange
from server.adversary.inversion_search import (
    Guess,
    Objective,
    aligned,
    cosine_distance,
    search,
    squared_distance,
)
from server.adversary.label_counts import class_shares, composition, expected_distinct, head_of
from server.adversary.public_model import mean_image
from tasks.models.build import PIXEL_MEAN, PIXEL_STD, denormalise

_SEED = 20_244  # the adversary's own constant
_JITTER = 0.1  # of the start around the public mean, in normalised intensities: images of a batch must differ
_CERTAIN = 40.0  # logit of a label that is known
MOST_ROUNDS = 8  # rounds that are matched at once: time and memory grow with them
MOST_PLACES = 2**18  # pixels or voxels of all guesses together: a search must end


@final
class Inversion(Attack):
    """Geiping et al. 2020 (cosine, total variation, signed Adam), DLG (Zhu 2019), and iDLG (Zhao 2020).

    It works from the public terms: it guesses as many images as a release is expected to hold, undoes the scaling of
    a cut batch, clips its own images' gradients as the terms say, and follows FedAvg's local steps of plain SGD. It
    starts from the public mean. Labels come from the release (see `label_counts`), except that DLG, and every
    objective on a dense model, searches for (soft) labels or masks beside the images. The restart with the smallest
    objective is shown.

    Rounds: with a sample rate of 1 every round holds the same images, so the last `MOST_ROUNDS` releases are matched at
    once, after finding how each image was flipped in each. With a smaller rate rounds hold other images: each is
    inverted by itself, from the last backward, until `most_images` are guessed.

    Not modelled: several views per image, units of several images (clipped together), views that change between local
    steps, and local optimisers other than plain SGD.
    """

    name = "inversion"
    needs = frozenset({RELEASES})

    def __init__(self, settings: InversionSettings) -> None:
        self.settings = settings

    def reconstruct(self, trace: Trace, public: PublicData) -> Reconstruction:
        """Return the guessed images; none, with the reason in `readout`, where there is nothing to match."""
        shape = trace.last.spec.shape
        usable = [seen for seen in trace.observations if _can_be_matched(seen)]
        if not usable:
            return _nothing(shape, "no image: the releases are not finite, or are zero and have no direction")
        fitting = MOST_PLACES // int(np.prod(shape[1:]))
        if fitting == 0:
            return _nothing(shape, f"no image: {shape} is too large to be inverted ({MOST_PLACES} places at most)")
        most = min(self.settings.most_images, fitting)
        if all(seen.terms.sample_rate >= 1 for seen in usable):
            groups = [usable[-MOST_ROUNDS:]]
        else:
            groups = [[seen] for seen in reversed(usable)]
        found: list[tuple[Guess, int]] = []
        guessed = 0
        for group in groups:
            count = min(_expected_images(group[-1]), most - guessed)
            if count > 0:
                found.append((self._invert(group, count, public), len(group)))
                guessed += count
        images = np.concatenate([_pixels(guess.inputs) for guess, _ in found])
        confidence = np.concatenate([np.full(len(guess.inputs), -guess.objective) for guess, _ in found])
        order = np.argsort(-confidence, kind="stable")
        return Reconstruction(images[order], confidence[order], self._said(found, trace.last.spec.dense))

    def _invert(self, group: Sequence[Observation], count: int, public: PublicData) -> Guess:
        """Return the best guess of `count` images behind exchanges of the same images."""
        settings = self.settings
        cosine = settings.objective == "cosine"
        exchanges = tuple(Exchange.of(seen) for seen in group)
        distance = cosine_distance if cosine else squared_distance
        objective = Objective(exchanges, distance, settings.total_variation if cosine else 0.0)
        label_logits = None if settings.objective == "dlg" else known_labels(group, count, public)

        def run(objective: Objective, start: Guess) -> Guess:
            return search(
                objective,
                start,
                method="signed_adam" if cosine else "lbfgs",
                iterations=settings.iterations,
                learning_rate=settings.learning_rate,
                free_labels=label_logits is None,
            )

        last = Objective(exchanges[-1:], distance, objective.variation)
        starts = [_start(group[-1], count, public, label_logits, k) for k in range(settings.restarts)]
        best = min((run(last, start) for start in starts), key=lambda guess: guess.objective)
        return best if len(exchanges) == 1 else run(aligned(objective, best), best)

    def _said(self, found: Sequence[tuple[Guess, int]], dense: bool) -> str:
        methods = {
            "cosine": "cosine and total variation, signed Adam",
            "dlg": "squared distance, L-BFGS (DLG)",
            "idlg": "squared distance, L-BFGS (iDLG)",
        }
        free = self.settings.objective == "dlg" or dense
        labels = "masks searched for" if dense else "labels searched for" if free else "labels read from the release"
        rounds = f"{_plural(sum(n for _, n in found))}, {'each alone' if len(found) > 1 else 'at once'}"
        worst = max(guess.objective for guess, _ in found)
        where = f"{self.settings.iterations} iterations, {labels}, {rounds}, objective {worst:.3g}"
        return f"{methods[self.settings.objective]}, {where}"


def known_labels(group: Sequence[Observation], count: int, public: PublicData) -> Tensor | None:
    """Return label logits (count, classes) as the release tells them; None for masks, or logits without a bias."""
    if head_of(group[-1].spec) is None:
        return None
    counts = whole_counts(composition(group, public), count)
    labels = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    return _CERTAIN * torch.nn.functional.one_hot(labels, len(counts)).float()


def whole_counts(shares: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Round shares (classes,) of `count` images to whole numbers of that sum, by largest remainder."""
    exact = shares * count
    whole = np.floor(exact + 1e-9).astype(np.int64)
    whole[np.argsort(whole - exact, kind="stable")[: count - int(whole.sum())]] += 1
    return whole


def start_of(seen: Observation, count: int, public: PublicData, restart: int) -> Tensor:
    """Return where a search begins: the public mean plus a little noise, float32 (count, channels, ...), normalised."""
    mean = (mean_image(public, seen.spec.shape) - PIXEL_MEAN) / PIXEL_STD
    noise = np.random.default_rng([_SEED, restart]).standard_normal((count, *seen.spec.shape))
    return torch.from_numpy((mean + _JITTER * noise).astype(np.float32))


def _start(seen: Observation, count: int, public: PublicData, label_logits: Tensor | None, restart: int) -> Guess:
    if label_logits is None:
        classes = max(2, seen.spec.outputs)
        places = seen.spec.shape[1:] if seen.spec.dense else ()
        prior = _mean_mask(public, classes, places) if seen.spec.dense else class_shares(public, classes)
        noise = np.random.default_rng([_SEED, restart, 1]).standard_normal((count, classes, *places))
        logits = np.log(prior) + _JITTER * noise
        label_logits = torch.from_numpy(logits.astype(np.float32))
    return Guess(start_of(seen, count, public, restart), label_logits, float("inf"))


def _mean_mask(public: PublicData, classes: int, places: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the share of each class at each place of the public masks plus one of each, (classes, *places)."""
    masks = public.targets
    if masks is None or masks.shape[1:] != places:
        return np.full((classes, *places), 1 / classes)
    counts = np.stack([np.sum(masks == c, axis=0) for c in range(classes)]) + 1.0
    return counts / counts.sum(axis=0)


def _expected_images(seen: Observation) -> int:
    return max(1, round(expected_distinct(seen.terms, seen.terms.local_steps)))


def _can_be_matched(seen: Observation) -> bool:
    values = [np.asarray(value) for value in seen.release.values()]
    return all(np.isfinite(value).all() for value in values) and any(value.any() for value in values)


def _plural(rounds: int) -> str:
    return "1 round" if rounds == 1 else f"{rounds} rounds"


def _pixels(inputs: Tensor) -> NDArray[np.float32]:
    return np.clip(denormalise(inputs).numpy(), 0, 1).astype(np.float32)


def _nothing(shape: tuple[int, ...], reason: str) -> Reconstruction:
    return Reconstruction(np.zeros((0, *shape), dtype=np.float32), np.zeros(0), reason)
