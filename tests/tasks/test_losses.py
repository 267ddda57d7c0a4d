import math

import pytest
import torch

from tasks.losses import loss


def test_binary_by_hand() -> None:
    logits = torch.tensor([[0.0], [2.0], [-3.0]], dtype=torch.float64)
    values = loss(1)(logits, torch.tensor([1, 0, 1]))
    expected = [math.log(2), -math.log(1 - 1 / (1 + math.exp(-2))), -math.log(1 / (1 + math.exp(3)))]
    assert values.tolist() == pytest.approx(expected)


def test_categorical_by_hand() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    values = loss(3)(logits, torch.tensor([0, 2]))
    total = sum(math.exp(k) for k in (1, 2, 3))
    assert values.tolist() == pytest.approx([math.log(total) - 1, math.log(3)])


@pytest.mark.parametrize("outputs", [1, 7])
def test_one_value_per_image_and_none_for_no_image(outputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, outputs, generator=generator)
    labels = torch.randint(0, max(2, outputs), (5,), generator=generator)
    together = loss(outputs)(logits, labels)
    alone = torch.cat([loss(outputs)(logits[k : k + 1], labels[k : k + 1]) for k in range(5)])
    assert together.shape == (5,)
    torch.testing.assert_close(together, alone)
    assert loss(outputs)(logits[:0], labels[:0]).shape == (0,)
