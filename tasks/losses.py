"""Losses per image: DP-SGD needs each image's own."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional


def loss(outputs: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of (logits (n, outputs), labels (n,)) as (n,), one per image, in nats.

    One output: binary cross entropy of the logit, label 1 is the positive class. More: cross entropy.
    """
    return _binary if outputs == 1 else _categorical


def _binary(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits.dtype), reduction="none")


def _categorical(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels, reduction="none")
