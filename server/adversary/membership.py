"""Membership inference from the final model alone: is this image among those that were trained on?"""

from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from configs.adversary import MembershipSettings
from server.adversary.base import FINAL, Attack, Candidates, Observation, PublicData, Trace
from tasks.losses import loss
from tasks.models import build, load_weights, normalise

_SEED = 20_242  # the adversary's own constant, for halves and batches of its reference models
MOST_AT_ONCE = 64  # images of a reference model's step; a larger batch of the run is not imitated
ENOUGH_SHADOWS = 64  # from so many on each image has a variance of its own
LEAST_PUBLIC = 4


@final
class MembershipInference(Attack):
    """LiRA, offline (Carlini et al. 2022, section V): is the model surer of an image than models that never saw it?

    Reference models start from the same first model and are trained on random halves of the public images, which hold
    no candidate, for about as many steps as the run had. The score is (phi - mean) / std over them, with the
    logit-scaled confidence phi = log p_y - log(1 - p_y), for a dense model minus the loss: monotone in the likelihood
    of "not trained on". With few reference models one variance serves all images, as the paper advises.

    Weaker than published: the reference models are few, trained without noise, on fewer images and with NAdam, whatever
    the run used, and an image is asked once, without augmented copies.
    """

    name = "membership"
    needs = frozenset({FINAL})
    yields = "members"

    def __init__(self, settings: MembershipSettings) -> None:
        self.settings = settings
        self._trained: tuple[Trace, PublicData, list[nn.Module]] | None = None

    def informed(self, trace: Trace, public: PublicData, candidates: Candidates) -> NDArray[np.float64] | None:
        """Return how many standard deviations surer the final model is of each candidate than reference models, (n,).

        None where candidates or public images carry no labels, or there are fewer than 4 public images.
        """
        if candidates.targets is None or public.targets is None or len(public.images) < LEAST_PUBLIC:
            return None
        final_model = _model(trace.last, trained=True)
        if self._trained is None or self._trained[0] is not trace or self._trained[1] is not public:
            self._trained = (trace, public, [self._shadow(trace, public, k) for k in range(self.settings.shadows)])
        phi = self._confidence(trace.last, final_model, candidates)
        others = np.stack([self._confidence(trace.last, model, candidates) for model in self._trained[2]])
        variance = others.var(axis=0, ddof=1)
        if self.settings.shadows < ENOUGH_SHADOWS:
            variance = np.full_like(variance, variance.mean() if len(variance) else 1.0)
        return (phi - others.mean(axis=0)) / np.sqrt(np.maximum(variance, 1e-24))

    def untrained(self, trace: Trace, candidates: Candidates) -> NDArray[np.float64] | None:
        """Return the confidence of the first model, (n,), as the null: it has seen nothing. None without labels."""
        if candidates.targets is None:
            return None
        return self._confidence(trace.last, _model(trace.last, trained=False), candidates)

    def _shadow(self, trace: Trace, public: PublicData, number: int) -> nn.Module:
        """Train one reference model on a random half of the public images."""
        seen, targets = trace.last, public.targets
        if targets is None:
            raise ValueError("reference models need labelled public images")
        rng = np.random.default_rng([_SEED, number])
        half = rng.permutation(len(public.images))[: len(public.images) // 2]
        steps = min(self.settings.steps, len(trace.rounds) * seen.terms.local_steps)
        batch = int(np.clip(round(seen.terms.expected_batch), 1, min(MOST_AT_ONCE, len(half))))
        model = _model(seen, trained=False)
        agreed = loss(seen.loss)
        optimizer = torch.optim.NAdam(model.parameters(), lr=self.settings.learning_rate)
        for _ in range(steps):
            rows = rng.choice(half, size=batch, replace=False)
            images = _inputs(public.images[rows])
            optimizer.zero_grad()
            agreed(model(images), torch.from_numpy(targets[rows].astype(np.int64))).mean().backward()
            optimizer.step()
        return model

    def _confidence(self, seen: Observation, model: nn.Module, candidates: Candidates) -> NDArray[np.float64]:
        if candidates.targets is None:
            raise ValueError("confidence in a label needs the label")
        found: list[NDArray[np.float64]] = [np.zeros(0)]
        for start in range(0, len(candidates.images), MOST_AT_ONCE):
            part = slice(start, start + MOST_AT_ONCE)
            labels = torch.from_numpy(candidates.targets[part].astype(np.int64))
            with torch.inference_mode():
                logits = model(_inputs(candidates.images[part]))
                if seen.spec.dense:
                    found.append(-loss(seen.loss)(logits, labels).double().numpy())
                else:
                    found.append(logit_confidence(logits.double(), labels).numpy())
        return np.concatenate(found)


def logit_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """Return log p_y - log(1 - p_y) of logits (n, k), or (n, 1) for label 1 against 0: (n,). Carlini et al., eq. 5."""
    if logits.shape[1] == 1:
        return logits[:, 0] * (2.0 * labels - 1.0)
    own = logits.gather(1, labels[:, None])[:, 0]
    return own - torch.logsumexp(logits.scatter(1, labels[:, None], float("-inf")), dim=1)


def _model(seen: Observation, *, trained: bool) -> nn.Module:
    """Return the first model, or the one that was handed out."""
    model = build(seen.spec)
    state = {name: np.array(value, dtype=np.float32) for name, value in seen.weights.items()}
    if trained:
        moved = {name: state[name].astype(np.float64) + value for name, value in seen.release.items() if name in state}
        state.update({name: value.astype(np.float32) for name, value in moved.items()})
    load_weights(model, {name: torch.from_numpy(value) for name, value in state.items()})
    return model


def _inputs(images: NDArray[np.uint8]) -> Tensor:
    return normalise(torch.from_numpy(np.ascontiguousarray(images)))
