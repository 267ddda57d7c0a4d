"""Remembered features are computed ones, to the bit, whatever came before; and nothing is kept where it must not be."""

import copy
import hashlib

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasks.models.memory import OVERHEAD, Memory, Remembering


class Counting(nn.Module):
    """A trunk that says how often it was asked, and for batches of which size."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []
        weight = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(len(x))
        return torch.tanh(x.flatten(1) @ self.get_buffer("weight"))


def images(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 2, 2, generator=torch.Generator().manual_seed(seed))


def test_an_image_is_looked_at_once_and_alone() -> None:
    model, x = Remembering(Counting(), "t", Memory()), images(7)
    first = model(x)
    assert model.trunk.asked == [1] * 7
    again = model(x[torch.tensor([3, 3, 0])])
    assert model.trunk.asked == [1] * 7
    assert torch.equal(again, first[torch.tensor([3, 3, 0])])
    alone = torch.cat([Counting()(x[k : k + 1]) for k in range(7)])
    assert torch.equal(first, alone)


def test_what_was_forgotten_comes_back_as_the_same_bits() -> None:
    row = 5 * 4 + OVERHEAD
    memory = Memory(3 * row)
    model, x = Remembering(Counting(), "t", memory), images(10)
    first = model(x)
    assert len(memory) == 3
    assert memory.size == 3 * row
    assert torch.equal(model(x.flip(0)), first.flip(0))
    assert len(model.trunk.asked) == 10 + 7, "the three that were kept are not computed again"
    model(x[:1]), model(x[5:7])
    before = len(model.trunk.asked)
    model(x[:1])  # was asked for before the last two
    assert len(model.trunk.asked) == before


def test_a_memory_that_is_too_small_keeps_nothing_and_still_answers() -> None:
    memory = Memory(10)
    model, x = Remembering(Counting(), "t", memory), images(3)
    assert torch.equal(model(x), model(x))
    assert (len(memory), memory.size) == (0, 0)


def test_an_input_that_asks_for_a_gradient_gets_one_and_is_not_kept() -> None:
    memory = Memory()
    model, x = Remembering(Counting(), "t", memory), images(4).requires_grad_()
    model(images(4))
    kept = len(memory)
    model(x).sum().backward()
    assert x.grad is not None
    slope = (1 - torch.tanh(x.detach().flatten(1) @ model.trunk.weight) ** 2) @ model.trunk.weight.T
    torch.testing.assert_close(x.grad.flatten(1), slope)
    assert len(memory) == kept
    assert model.trunk.asked[-1] == 4


def test_names_types_and_shapes_are_kept_apart() -> None:
    memory, x = Memory(), images(2)
    one, other = Remembering(Counting(), "one", memory), Remembering(Counting(), "other", memory)
    one(x), other(x)
    assert len(memory) == 4
    assert one(x).dtype == torch.float32
    assert Remembering(Counting(), "one", memory).double()(x.double()).dtype == torch.float64
    assert len(memory) == 6
    one(x.reshape(2, 3, 4, 1))
    assert len(memory) == 8, "the same bytes in another shape are another image"


def test_features_of_an_evaluation_can_be_trained_on_and_cannot_be_spoilt() -> None:
    model, x = Remembering(Counting(), "t", Memory()), images(3)
    with torch.inference_mode():
        kept = model(x).clone()
    head = nn.Linear(5, 1)
    got = model(x)
    head(got).sum().backward()
    assert head.weight.grad is not None
    got.zero_()
    assert torch.equal(model(x), kept)


def test_nothing_and_meta_pass_through_and_copies_share_the_memory() -> None:
    memory = Memory()
    model = Remembering(Counting(), "t", memory)
    assert model(images(0)).shape == (0, 5)
    assert copy.deepcopy(model).to("meta")(torch.empty(2, 3, 2, 2, device="meta")).shape == (2, 5)
    assert len(memory) == 0
    model(images(2))
    twin = copy.deepcopy(model)
    twin.trunk.asked.clear()
    twin(images(2))
    assert twin.trunk.asked == []
    memory.clear()
    assert (len(memory), memory.size) == (0, 0)


def test_a_trunk_with_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be remembered"):
        Remembering(nn.Linear(2, 2), "t")


def test_the_key_is_the_hash_of_the_images_bytes() -> None:
    memory, x = Memory(), images(1)
    Remembering(Counting(), "t", memory)(x.expand(2, -1, -1, -1))
    digest = hashlib.blake2b(np.ascontiguousarray(x[0].numpy()).tobytes(), digest_size=16).digest()
    assert len(memory) == 1
    assert memory.get((f"t cpu torch.float32 {(3, 2, 2)}", digest)) is not None
