"""The gradient engine against one-by-one autograd, which knows nothing of hooks, chunks or groups."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients import gradients
from clients.gradients import GradientEngine
from clients.selfcheck import check_clipped_sum
from configs import RunStoppedError
from tasks.models import ModelSpec, WideBlock, build, normalise

CLIP = 0.7


def one_by_one(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Per-image gradients of binary cross entropy by plain autograd on a model without hooks, float64 (n, size)."""
    rows = []
    for image, label in zip(images, labels, strict=True):
        model.zero_grad()
        logit = model(normalise(image[None]))[0, 0]
        nn.functional.binary_cross_entropy_with_logits(logit, label.float()).backward()
        rows.append(torch.cat([p.grad.double().flatten() for p in model.parameters()]))
    return torch.stack(rows)


def images_of(count: int, size: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.integers(0, 256, (count, 3, size, size), dtype=np.uint8))
    return images, torch.from_numpy(rng.integers(0, 2, count))


def pair(spec: ModelSpec) -> tuple[GradientEngine, nn.Module]:
    torch.manual_seed(3)
    plain = build(spec)
    if spec.block is not None:
        nn.init.normal_(plain.wide.units.weight, std=0.01)
    engine = GradientEngine(build(spec), "binary" if spec.outputs == 1 else "categorical")
    engine.load(plain.state_dict())
    return engine, plain


SPECS = [
    ModelSpec("resnet9", (3, 16, 16), 1, 4),
    ModelSpec("resnet9", (3, 16, 16), 1, 4, WideBlock(rows=8, ceiling=None, gain=3.0, scale=0.5)),
]


@pytest.mark.parametrize("spec", SPECS, ids=["agreed", "with block"])
def test_clipped_sum_is_that_of_one_by_one_gradients(spec: ModelSpec) -> None:
    engine, plain = pair(spec)
    images, labels = images_of(7)
    each = one_by_one(plain, images, labels)
    norms = each.norm(dim=1)
    assert norms.min() > 0
    clip = float(norms.median())  # some rows are clipped, some are not
    expected = (each * torch.clamp(clip / norms, max=1)[:, None]).sum(dim=0)
    got = engine.clipped_sum(images, labels, torch.arange(7), clip)
    assert (got - expected).norm() <= 1e-4 * expected.norm()


def test_a_unit_of_several_images_is_clipped_as_one() -> None:
    engine, plain = pair(SPECS[0])
    images, labels = images_of(5)
    groups = torch.tensor([0, 0, 0, 1, 1])
    each = one_by_one(plain, images, labels)
    sums = torch.stack([each[:3].sum(dim=0), each[3:].sum(dim=0)])
    expected = (sums * torch.clamp(CLIP / sums.norm(dim=1), max=1)[:, None]).sum(dim=0)
    got = engine.clipped_sum(images, labels, groups, CLIP)
    assert (got - expected).norm() <= 1e-4 * expected.norm()


def test_chunks_change_nothing_but_rounding_and_cut_no_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = pair(SPECS[0])
    images, labels = images_of(9)
    groups = torch.tensor([0, 0, 0, 1, 2, 2, 3, 4, 4])
    whole = engine.clipped_sum(images, labels, groups, CLIP)
    monkeypatch.setattr(gradients, "PER_IMAGE_FLOATS", 2 * engine.size)
    parts = engine.clipped_sum(images, labels, groups, CLIP)
    assert (whole - parts).norm() <= 1e-5 * whole.norm()
    assert whole.norm() > 0.1


def test_sensitivity_is_the_clipping_norm() -> None:
    engine, _ = pair(SPECS[0])
    images, labels = images_of(6)
    everything = engine.clipped_sum(images, labels, torch.arange(6), CLIP)
    for left_out in range(6):
        keep = [i for i in range(6) if i != left_out]
        without = engine.clipped_sum(images[keep], labels[keep], torch.arange(5), CLIP)
        assert (everything - without).norm() <= CLIP * (1 + 1e-6)


def test_empty_batches_give_zeros_on_both_paths() -> None:
    engine, _ = pair(SPECS[0])
    images, labels = images_of(0)
    nothing = torch.zeros(0, dtype=torch.int64)
    assert engine.clipped_sum(images, labels, nothing, CLIP).abs().max() == 0
    assert engine.plain_sum(images, labels).abs().max() == 0


def test_plain_sum_is_the_unclipped_sum() -> None:
    engine, plain = pair(SPECS[0])
    images, labels = images_of(5)
    expected = one_by_one(plain, images, labels).sum(dim=0)
    assert (engine.plain_sum(images, labels) - expected).norm() <= 1e-4 * expected.norm()


def test_a_unit_whose_gradient_is_not_finite_contributes_nothing() -> None:
    engine, _ = pair(SPECS[1])
    images, labels = images_of(4)
    with torch.no_grad():
        engine.model.wide.units.weight.mul_(0).add_(1e30)  # one image drives the block to infinity
        engine.model.wide.units.bias.fill_(-1e32)
        engine.model.wide.centre.zero_()
    total = engine.clipped_sum(images, labels, torch.arange(4), CLIP)
    assert torch.isfinite(total).all()
    assert total.norm() <= 4 * CLIP * (1 + 1e-6)


class ChannelsLast(nn.Module):
    """A model whose stock convolution meets channels-last strides, as images read from a JPEG have them."""

    def __init__(self, *, contiguous: bool) -> None:
        super().__init__()
        self.contiguous = contiguous
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4 * 16 * 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous() if self.contiguous else x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        return self.head(torch.relu(self.first(x)).flatten(1))


def test_self_check_catches_hooks_that_misread_channels_last() -> None:
    images, labels = images_of(4)
    torch.manual_seed(0)
    right = GradientEngine(ChannelsLast(contiguous=True), "binary")
    assert check_clipped_sum(right, images, labels, 1.0) <= 1e-5
    wrong = GradientEngine(ChannelsLast(contiguous=False), "binary")
    with pytest.raises(RunStoppedError, match="self-check"):
        check_clipped_sum(wrong, images, labels, 1.0)


def test_self_check_passes_on_the_models_of_the_project() -> None:
    images, labels = images_of(4)
    for spec in SPECS:
        engine, _ = pair(spec)
        assert check_clipped_sum(engine, images, labels, 1.0) <= 1e-4
