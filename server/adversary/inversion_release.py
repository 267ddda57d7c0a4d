"""What a hospital would release if its images were the ones guessed: differentiable in images and labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from server.adversary.base import Observation, PublicTerms
from tasks.models.build import build

MOST_UNROLLED = 20  # local steps that are followed one by one; more are taken as so many longer ones
BLOCK = "wide."  # a planted block's gradient is read by the attack that planted it, and would drown the model's
_SMOOTHING = 1e-5  # of Dice, as everybody's loss has it


@final
@dataclass(frozen=True)
class Exchange:
    """One observation as tensors.

    Attributes:
        model: of the observation's architecture; its own parameters are not used.
        weights: float32 parameters by name, that were broadcast, each with gradient.
        buffers: float32 by name.
        target: float32, what was released of the parameters in `matched`, in their order; of one round.
        matched: names of the parameters that are compared.
        terms: public terms of one round.
        dense: whether labels are masks.
    """

    model: nn.Module
    weights: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    target: tuple[Tensor, ...]
    matched: tuple[str, ...]
    terms: PublicTerms
    dense: bool

    @staticmethod
    def of(seen: Observation) -> "Exchange":
        """Prepare an observation; several rounds that were added up count as so many of their mean.

        Raises:
            ValueError: nothing of the agreed model was released, or not in its shapes.
        """
        model = build(seen.spec)
        sent = {name: torch.tensor(np.asarray(value), dtype=torch.float32) for name, value in seen.weights.items()}
        trained = {name: parameter.shape for name, parameter in model.named_parameters()}
        bare = {name.removeprefix("core."): np.asarray(value) / len(seen.added) for name, value in seen.release.items()}
        matched = tuple(n for n in trained if not n.startswith(BLOCK) and n.removeprefix("core.") in bare)
        target = tuple(torch.tensor(bare[n.removeprefix("core.")], dtype=torch.float32) for n in matched)
        if not matched or any(t.shape != trained[n] for n, t in zip(matched, target, strict=True)):
            raise ValueError("the release does not fit the model that was sent")
        weights = {name: sent[name].requires_grad_() for name in trained}
        buffers = {name: value for name, value in sent.items() if name not in trained}
        return Exchange(model, weights, buffers, target, matched, seen.terms, seen.spec.dense)


def released(exchange: Exchange, inputs: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """Return what would be released of the parameters in `matched`, without noise.

    FedSGD: the sum of the images' gradients, each clipped as the terms say. FedAvg: the difference of weights after
    the local steps of plain SGD, followed one by one (Geiping et al. 2020, section 6), all guesses in every step.
    Fewer guesses than the expected batch stand for all of it.

    Args:
        exchange: what was sent, and the terms.
        inputs: float32 (n, channels, ...), normalised.
        labels: float32 (n, classes), or (n, classes, *spatial) masks; shares of one that may be soft.
    """
    terms = exchange.terms
    if terms.local_steps == 1:
        total = _gradient_sum(exchange, exchange.weights, inputs, labels)
        share = max(1.0, round(terms.expected_batch) / len(inputs))
        return tuple(share * total[name] for name in exchange.matched)
    steps = min(terms.local_steps, MOST_UNROLLED)
    rate = terms.learning_rate * terms.local_steps / steps / len(inputs)
    moved = {name: torch.zeros_like(value) for name, value in exchange.weights.items()}
    for _ in range(steps):  # the difference is added up by itself: float32 weights would swallow its digits
        here = {name: value + moved[name] for name, value in exchange.weights.items()}
        total = _gradient_sum(exchange, here, inputs, labels)
        moved = {name: value - rate * total[name] for name, value in moved.items()}
    return tuple(moved[name] for name in exchange.matched)


def _gradient_sum(
    exchange: Exchange, weights: Mapping[str, Tensor], inputs: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    names, values = list(weights), list(weights.values())
    norm = exchange.terms.clipping_norm
    parts = [slice(0, len(inputs))] if norm is None else [slice(i, i + 1) for i in range(len(inputs))]
    total: Sequence[Tensor] = []
    for part in parts:
        logits = functional_call(exchange.model, {**weights, **exchange.buffers}, (inputs[part],))
        losses = soft_loss(logits, labels[part], dense=exchange.dense)
        found = torch.autograd.grad(losses.sum(), values, create_graph=True, allow_unused=True, materialize_grads=True)
        if norm is not None:
            length = torch.sqrt(sum((g.square().sum() for g in found), start=found[0].new_tensor(1e-30)))
            found = tuple(g * torch.clamp(norm / length, max=1.0) for g in found)
        total = found if not total else [a + b for a, b in zip(total, found, strict=True)]
    return dict(zip(names, total, strict=True))


def soft_loss(logits: Tensor, labels: Tensor, *, dense: bool) -> Tensor:
    """Return the loss of each image for labels that may be soft, (n,).

    One logit: binary cross entropy with the second class's share. Several: cross entropy. Maps: 1 - mean soft Dice.
    """
    if dense:
        shares, truth = torch.softmax(logits, dim=1).flatten(2), labels.flatten(2)
        common, sizes = (shares * truth).sum(dim=2), shares.sum(dim=2) + truth.sum(dim=2)
        return 1 - ((2 * common + _SMOOTHING) / (sizes + _SMOOTHING)).mean(dim=1)
    if logits.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(logits[:, 0], labels[:, 1], reduction="none")
    return -(labels * torch.log_softmax(logits, dim=1)).sum(dim=1)
