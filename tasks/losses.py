"""Losses per image: DP-SGD needs each image's own."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from configs.sections import LossName

Loss = Callable[[Tensor, Tensor], Tensor]

# Numerator and denominator of a class' Dice, as MONAI's DiceLoss: a class that is neither there nor predicted scores 1.
SMOOTHING = 1e-5


def loss(name: LossName) -> Loss:
    """Return the loss of (logits, targets) as (n,), one value per image.

    binary: cross entropy in nats of logits (n, 1) and labels (n,), label 1 is the positive class.
    categorical: cross entropy in nats of logits (n, k) and labels (n,).
    dice: 1 - the mean over classes, background included, of the soft Dice of softmax(logits) (n, k, *sides) and voxel
    classes (n, *sides), uint8 or int64: Dice_c = (2 sum p t + s) / (sum p + sum t + s), sums over the image's voxels,
    s = 1e-5 (Milletari et al. 2016 without squares; the loss of Ziller et al. 2024).
    dice_ce: dice plus the mean voxel cross entropy in nats.
    """
    return LOSSES[name]


def _binary(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits.dtype), reduction="none")


def _categorical(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels, reduction="none")


def _dice(logits: Tensor, masks: Tensor) -> Tensor:
    shares = torch.softmax(logits, dim=1).flatten(2)
    truth = functional.one_hot(masks.long().flatten(1), shares.shape[1]).movedim(2, 1).to(shares.dtype)
    common = (shares * truth).sum(dim=2)
    sizes = shares.sum(dim=2) + truth.sum(dim=2)
    return 1 - ((2 * common + SMOOTHING) / (sizes + SMOOTHING)).mean(dim=1)


def _dice_ce(logits: Tensor, masks: Tensor) -> Tensor:
    voxels = functional.cross_entropy(logits, masks.long(), reduction="none")
    return _dice(logits, masks) + voxels.flatten(1).mean(dim=1)


LOSSES: Mapping[LossName, Loss] = {
    "binary": _binary,
    "categorical": _categorical,
    "dice": _dice,
    "dice_ce": _dice_ce,
}
