"""Gradients of single images as an adversary computes them: at the broadcast weights, clipped as a hospital clips."""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from server.adversary.base import Observation, Update
from tasks.losses import loss
from tasks.models import build, load_weights, normalise

MANY_CLASSES = 10  # with more of them only the labels that the model finds likeliest are tried
LIKELIEST = 5


@final
@dataclass(frozen=True)
class Vectors:
    """Gradients of candidates under one or several guesses of their labels.

    Attributes:
        rows: float32 (n, size), and
        factors: float64 (n, k): under guess j candidate i adds `factors[i, j] * rows[i]` to a release.
    """

    rows: NDArray[np.float32]
    factors: NDArray[np.float64]


@final
class ImageGradients:
    """Clipped gradients at the weights of one observation, one image at a time.

    Parameters stand in the order of their names. An image whose gradient is not finite adds nothing, as in a hospital.
    A model with one logit is asked only once for both labels: the gradient of label y is (p - y) times the logit's.
    """

    def __init__(self, seen: Observation) -> None:
        self._clip = seen.terms.clipping_norm
        self._outputs = seen.spec.outputs
        self._model = build(seen.spec)
        state = {name: torch.from_numpy(np.array(value)) for name, value in seen.weights.items()}
        load_weights(self._model, state)
        parameters = dict(self._model.named_parameters())
        self._names = sorted(parameters)
        self._parameters = [parameters[name] for name in self._names]
        self._loss = loss(seen.loss)
        self.size = sum(p.numel() for p in self._parameters)

    def flat(self, update: Update) -> NDArray[np.float64]:
        """Return a release as one vector, (size,)."""
        return np.concatenate([np.asarray(update[name], dtype=np.float64).ravel() for name in self._names])

    def known(
        self,
        images: NDArray[np.uint8],
        targets: NDArray[np.integer],
        groups: NDArray[np.int64] | None = None,
        views: int = 1,
    ) -> Vectors:
        """Return the gradients of candidates whose labels (or masks) are known.

        Args:
            images: uint8 (v, channels, ...).
            targets: (v,) classes or (v, *spatial) masks.
            groups: int64 (v,), ascending from 0: rows of one group are views and images of one candidate, whose
                gradients are added before they are clipped. None: each image is a candidate.
            views: per image; where nothing is clipped, views are averaged.
        """
        index = np.arange(len(images)) if groups is None else groups
        count = int(index[-1]) + 1 if len(index) else 0
        rows = np.zeros((count, self.size), dtype=np.float32)
        for image, target, row in zip(images, targets, index.tolist(), strict=True):
            label = torch.from_numpy(np.asarray(target, dtype=np.int64)[None])
            rows[row] += self._differentiate(self._loss(self._logits(image), label).sum())
        return self._clipped(rows, np.full((count, 1), 1.0 / views if self._clip is None else 1.0))

    def guessed(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> list[Vectors]:
        """Return the gradients of images under every guess of their labels (n, k), in this order of guesses."""
        if self._outputs == 1 and labels.shape[1] == 2:
            rows = np.zeros((len(images), self.size), dtype=np.float32)
            slopes = np.zeros((len(images), 2))
            for i, image in enumerate(images):
                logit = self._logits(image).sum()
                chance = float(torch.sigmoid(logit.detach().double()))
                slopes[i] = chance, chance - 1.0  # of labels 0 and 1
                rows[i] = self._differentiate(logit)
            return [self._clipped(rows, slopes)]
        return [self.known(images, labels[:, k]) for k in range(labels.shape[1])]

    def labels(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the labels that are tried for each image, (n, k): all, or of many classes the likeliest."""
        if self._outputs <= MANY_CLASSES:
            return np.tile(np.arange(max(2, self._outputs)), (len(images), 1))
        with torch.inference_mode():
            logits = [self._logits(image)[0] for image in images]
        return np.array([one.topk(LIKELIEST).indices.numpy() for one in logits], dtype=np.int64).reshape(-1, LIKELIEST)

    def _logits(self, image: NDArray[np.uint8]) -> Tensor:
        found: Tensor = self._model(normalise(torch.from_numpy(image[None])))
        return found

    def _differentiate(self, value: Tensor) -> NDArray[np.float32]:
        parts = torch.autograd.grad(value, self._parameters, allow_unused=True, materialize_grads=True)
        return torch.cat([part.flatten() for part in parts]).numpy()

    def _clipped(self, rows: NDArray[np.float32], factors: NDArray[np.float64]) -> Vectors:
        norms = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
        finite = np.isfinite(norms)
        if not finite.all():
            rows = np.where(finite[:, None], rows, np.float32(0.0))
            factors = np.where(finite[:, None], factors, 0.0)
        if self._clip is not None:
            sizes = np.abs(factors) * np.where(finite, norms, 0.0)[:, None]
            factors = factors * np.minimum(1.0, self._clip / np.maximum(sizes, 1e-300))
        return Vectors(rows, factors)
