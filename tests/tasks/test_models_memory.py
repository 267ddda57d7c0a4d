"""Remembered features are computed ones, to the bit, whatever came before; and nothing is kept where it must not be."""

import copy

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor, nn

from tasks.models.memory import OVERHEAD, Memory, Remembering, Tagger


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


def multiply(a: int, b: int) -> int:
    """Return the product in GF(2^128) in GCM's order of bits (NIST SP 800-38D, algorithm 1)."""
    product = 0
    for bit in range(127, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = (b >> 1) ^ (0xE1 << 120 if b & 1 else 0)
    return product


def gmac(key: bytes, message: bytes) -> bytes:
    """Return the tag under a nonce of zeros, block by block: every block is a coefficient of a polynomial."""
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update
    point, total = int.from_bytes(block(bytes(16))), 0
    lengths = (8 * len(message)).to_bytes(8) + bytes(8)
    padded = message + bytes(-len(message) % 16) + lengths
    for start in range(0, len(padded), 16):
        total = multiply(total ^ int.from_bytes(padded[start : start + 16]), point)
    return (total ^ int.from_bytes(block(bytes(15) + b"\x01"))).to_bytes(16)


def test_a_tag_holds_all_bytes_of_an_image_and_the_key() -> None:
    pixels, key = images(3).numpy(), bytes(range(16))
    found = Tagger(key).tags(pixels)
    assert found == [gmac(key, one.tobytes()) for one in pixels]
    assert Tagger().tags(pixels) != Tagger().tags(pixels), "every key is drawn afresh"


def test_one_flipped_bit_anywhere_is_another_image() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 5, 7), dtype=np.uint8)  # no whole number of blocks
    flipped = np.repeat(pixels.reshape(1, -1), 8 * pixels.size, axis=0)
    for bit in range(len(flipped)):
        flipped[bit, bit // 8] ^= 1 << bit % 8
    tags = Tagger().tags(np.concatenate([pixels.reshape(1, -1), flipped]))
    assert len(set(tags)) == 1 + 8 * pixels.size


def test_an_image_that_is_laid_out_in_steps_is_found_again() -> None:
    memory, x = Memory(), images(4)
    model = Remembering(Counting(), "t", memory)
    first = model(x)
    model(x[:1].expand(2, -1, -1, -1)), model(x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2))
    assert len(memory) == 4
    assert torch.equal(model(x[::2]), first[::2])
