"""Losses per image: DP-SGD needs each image's own."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from configs.sections import LossName


def loss(name: LossName) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of (logits (n, outputs), labels (n,)) as (n,), one per image, in nats.

    binary: cross entropy of the one logit, label 1 is the positive class. categorical: cross entropy.
    """
    if name not in ("binary", "categorical"):
        raise NotImplementedError(name)
    return _binary if name == "binary" else _categorical


def _binary(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits.dtype), reduction="none")


def _categorical(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels, reduction="none")
