import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.sections import LossName
from tasks.losses import loss

NAMES: tuple[LossName, ...] = ("binary", "categorical", "dice", "dice_ce")


def drawn(name: LossName, count: int, sides: tuple[int, ...] = (3, 4, 5), classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    if name == "binary":
        sides, classes = (), 1
    elif name == "categorical":
        sides = ()
    logits = 2 * torch.randn(count, classes, *sides, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, max(2, classes), (count, *sides), generator=generator)
    return logits, targets


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=0))
    return powers / powers.sum(axis=0)


def dice_by_hand(logits: NDArray[np.float64], mask: NDArray[np.int64]) -> float:
    """One image, class by class, voxel by voxel."""
    shares, values = softmax(logits), []
    for c in range(len(shares)):
        common = sum(p for p, t in zip(shares[c].ravel(), mask.ravel(), strict=True) if t == c)
        values.append((2 * common + 1e-5) / (shares[c].sum() + np.count_nonzero(mask == c) + 1e-5))
    return 1 - sum(values) / len(values)


def entropy_by_hand(logits: NDArray[np.float64], mask: NDArray[np.int64]) -> float:
    return float(np.mean([-math.log(softmax(logits)[(mask[i], *i)]) for i in np.ndindex(mask.shape)]))


def test_binary_by_hand() -> None:
    logits = torch.tensor([[0.0], [2.0], [-3.0]], dtype=torch.float64)
    values = loss("binary")(logits, torch.tensor([1, 0, 1]))
    expected = [math.log(2), -math.log(1 - 1 / (1 + math.exp(-2))), -math.log(1 / (1 + math.exp(3)))]
    assert values.tolist() == pytest.approx(expected)


def test_categorical_by_hand() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    values = loss("categorical")(logits, torch.tensor([0, 2]))
    total = sum(math.exp(k) for k in (1, 2, 3))
    assert values.tolist() == pytest.approx([math.log(total) - 1, math.log(3)])


@pytest.mark.parametrize("sides", [(4, 5), (3, 4, 5)])
@pytest.mark.parametrize("kind", [torch.int64, torch.uint8])
def test_dice_and_dice_ce_by_hand(sides: tuple[int, ...], kind: torch.dtype) -> None:
    logits, masks = drawn("dice", 4, sides)
    masks[0] = 1  # one image of a single class
    expected = [dice_by_hand(x.numpy(), t.numpy()) for x, t in zip(logits, masks, strict=True)]
    assert loss("dice")(logits, masks.to(kind)).tolist() == pytest.approx(expected, rel=1e-12)
    both = [a + entropy_by_hand(x.numpy(), t.numpy()) for a, x, t in zip(expected, logits, masks, strict=True)]
    assert loss("dice_ce")(logits, masks.to(kind)).tolist() == pytest.approx(both, rel=1e-12)


def test_dice_of_a_perfect_and_of_a_hopeless_map() -> None:
    _, masks = drawn("dice", 3)
    certain = 50 * torch.nn.functional.one_hot(masks, 3).movedim(-1, 1).double()
    assert loss("dice")(certain, masks).tolist() == pytest.approx([0] * 3, abs=1e-6)
    assert loss("dice")(-certain, masks).min() > 0.5
    assert loss("dice")(certain.roll(1, dims=1), masks).tolist() == pytest.approx([1] * 3, abs=1e-4)
    # A class that is neither there nor predicted costs nothing.
    only = torch.zeros(1, 4, 4, dtype=torch.int64)
    assert loss("dice")(50 * torch.nn.functional.one_hot(only, 3).movedim(-1, 1).double(), only) < 1e-6


def test_dice_agrees_with_monai() -> None:
    losses = pytest.importorskip("monai.losses")
    logits, masks = drawn("dice", 4)
    settings = {"softmax": True, "to_onehot_y": True}
    for name, kind in (("dice", losses.DiceLoss), ("dice_ce", losses.DiceCELoss)):
        theirs = [float(kind(**settings)(x[None], t[None, None])) for x, t in zip(logits, masks, strict=True)]
        assert loss(name)(logits, masks).tolist() == pytest.approx(theirs, rel=1e-6), name


@pytest.mark.parametrize("name", NAMES)
def test_one_value_per_image_and_none_for_no_image(name: LossName) -> None:
    logits, targets = drawn(name, 5)
    together = loss(name)(logits, targets)
    alone = torch.cat([loss(name)(logits[k : k + 1], targets[k : k + 1]) for k in range(5)])
    assert together.shape == (5,)
    assert len(set(together.tolist())) == 5
    torch.testing.assert_close(together, alone)
    assert loss(name)(logits[:0], targets[:0]).shape == (0,)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_small_steps(name: LossName) -> None:
    logits, targets = drawn(name, 2, sides=(2, 3))
    assert torch.autograd.gradcheck(lambda x: loss(name)(x, targets), logits.requires_grad_())


def test_a_mask_with_a_class_that_the_model_lacks_is_no_training_target() -> None:
    logits, masks = drawn("dice", 1)
    masks[0, 0, 0, 0] = 3
    with pytest.raises(RuntimeError):
        loss("dice")(logits, masks)
