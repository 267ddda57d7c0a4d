"""The gradient engine against one-by-one autograd, which knows nothing of hooks, chunks or groups."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule
from opacus.grad_sample.conv import compute_conv_grad_sample
from torch import Tensor, nn

from clients import gradients
from clients.gradients import GradientEngine
from clients.selfcheck import check_clipped_sum
from configs import RunStoppedError
from configs.sections import LossName
from tasks.models import ModelSpec, WideBlock, build, normalise

CLIP = 0.7


def own_loss(spec: ModelSpec, logits: Tensor, target: Tensor) -> Tensor:
    """The loss of one image, written apart from `tasks.losses`."""
    if spec.dense:
        shares = torch.softmax(logits, dim=1)[0]
        parts = []
        for c in range(spec.outputs):
            there = (target == c).to(shares.dtype)
            parts.append((2 * (shares[c] * there).sum() + 1e-5) / (shares[c].sum() + there.sum() + 1e-5))
        return 1 - torch.stack(parts).mean() + nn.functional.cross_entropy(logits, target[None])
    if spec.outputs == 1:
        return nn.functional.binary_cross_entropy_with_logits(logits[0, 0], target.to(logits.dtype))
    return nn.functional.cross_entropy(logits, target[None])


def one_by_one(model: nn.Module, spec: ModelSpec, images: Tensor, targets: Tensor) -> Tensor:
    """Per-image gradients by plain autograd on a model without hooks, float64 (n, size)."""
    rows = []
    kind = next(model.parameters()).dtype
    for image, target in zip(images, targets, strict=True):
        value = own_loss(spec, model(normalise(image[None]).to(kind)), target)
        found = torch.autograd.grad(value, list(model.parameters()))
        rows.append(torch.cat([g.double().flatten() for g in found]))
    return torch.stack(rows)


def loss_of(spec: ModelSpec) -> LossName:
    return "dice_ce" if spec.dense else "binary" if spec.outputs == 1 else "categorical"


def data(spec: ModelSpec, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.integers(0, 256, (count, *spec.shape), dtype=np.uint8))
    sides = spec.shape[1:] if spec.dense else ()
    return images, torch.from_numpy(rng.integers(0, max(2, spec.outputs), (count, *sides)))


def pair(spec: ModelSpec) -> tuple[GradientEngine, nn.Module]:
    """An engine, and a model of the same weights that no hook ever touched."""
    torch.manual_seed(3)
    plain = build(spec)
    if spec.block is not None:
        nn.init.normal_(plain.wide.units.weight, std=0.01)
    engine = GradientEngine(build(spec), loss_of(spec))
    engine.load(plain.state_dict())
    return engine, plain


def clipped(gradients: Tensor, clip: float) -> Tensor:
    return (gradients * torch.clamp(clip / gradients.norm(dim=1), max=1)[:, None]).sum(dim=0)


BLOCK = WideBlock(rows=8, ceiling=None, gain=3.0, scale=0.5)
SMALL = ModelSpec("resnet9", (3, 16, 16), 1, 4)
SPECS = {
    "resnet9": SMALL,
    "resnet9 with block": replace(SMALL, block=BLOCK),
    "resnet9 of 165 classes": ModelSpec("resnet9", (1, 24, 24), 165, 4),
    "wide_resnet": ModelSpec("wide_resnet", (3, 17, 16), 5, 2),
    "scattering": ModelSpec("scattering", (3, 18, 16), 7, 16),
    "scattering of 165 classes": ModelSpec("scattering", (1, 16, 16), 165, 16),
    "histograms": ModelSpec("histograms", (3, 18, 16), 1, 16),
    "histograms with block": ModelSpec("histograms", (3, 16, 17), 7, 16, BLOCK),
    "unet 2-D": ModelSpec("unet", (3, 19, 16), 3, 4),
    "unet 3-D": ModelSpec("unet", (1, 6, 17, 16), 3, 4),
    "unet 3-D with block": ModelSpec("unet", (1, 4, 8, 9), 3, 2, BLOCK),
}
every_model = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


@every_model
def test_hooks_give_the_gradients_of_one_by_one_in_double_precision(spec: ModelSpec) -> None:
    engine, plain = pair(spec)
    images, targets = data(spec, 3)
    each = one_by_one(plain.double(), spec, images, targets)
    engine.model.double()
    engine.loss(engine.hooked(normalise(images).double()), targets).sum().backward()
    got = torch.cat([p.grad_sample.flatten(1) for p in engine.parameters], dim=1)
    assert got.dtype == torch.float64
    assert (each.norm(dim=1) > 1e-3).all()
    assert ((got - each).norm(dim=1) <= 1e-10 * each.norm(dim=1)).all()
    # Parameter by parameter as well: a small layer cannot hide behind a large one.
    for name, mine, right in zip(engine.names, *(_parts(engine, v) for v in (got, each)), strict=True):
        assert (mine - right).norm() <= 1e-8 * right.norm() + 1e-12, name


def _parts(engine: GradientEngine, vectors: Tensor) -> tuple[Tensor, ...]:
    return torch.split(vectors, [p.numel() for p in engine.parameters], dim=1)


@every_model
def test_clipped_sum_is_that_of_one_by_one_gradients(spec: ModelSpec) -> None:
    engine, plain = pair(spec)
    images, targets = data(spec, 6)
    each = one_by_one(plain, spec, images, targets)
    clip = float(each.norm(dim=1).median())  # some rows are clipped, some are not
    expected = clipped(each, clip)
    got = engine.clipped_sum(images, targets, torch.arange(6), clip)
    assert (got - expected).norm() <= 2e-5 * expected.norm()
    # Masks come as uint8 from the datasets, labels as int64: both are read alike.
    if spec.dense:
        assert torch.equal(engine.clipped_sum(images, targets.to(torch.uint8), torch.arange(6), clip), got)


@every_model
def test_a_unit_of_several_images_is_clipped_as_one(spec: ModelSpec) -> None:
    engine, plain = pair(spec)
    images, targets = data(spec, 5)
    each = one_by_one(plain, spec, images, targets)
    sums = torch.stack([each[:3].sum(dim=0), each[3:].sum(dim=0)])
    clip = float(sums.norm(dim=1).mean())
    got = engine.clipped_sum(images, targets, torch.tensor([0, 0, 0, 1, 1]), clip)
    assert (got - clipped(sums, clip)).norm() <= 2e-5 * clipped(sums, clip).norm()


@pytest.mark.parametrize("spec", [SMALL, SPECS["unet 3-D"]], ids=["2-D", "3-D"])
@pytest.mark.parametrize("images_at_once", [1, 2])
def test_a_unit_larger_than_a_physical_batch_is_summed_in_pieces(
    spec: ModelSpec, images_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, plain = pair(spec)
    images, targets = data(spec, 7)
    groups = torch.tensor([0, 1, 1, 1, 1, 1, 2])
    each = one_by_one(plain, spec, images, targets)
    sums = torch.stack([each[:1].sum(dim=0), each[1:6].sum(dim=0), each[6:].sum(dim=0)])
    clip = float(sums.norm(dim=1).mean())
    monkeypatch.setattr(gradients, "ACTIVATION_FLOATS", images_at_once * engine._activations(images))
    sizes: list[int] = []
    engine.model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    got = engine.clipped_sum(images, targets, groups, clip)
    assert max(sizes) <= images_at_once
    assert sum(sizes) == 7
    assert (got - clipped(sums, clip)).norm() <= 2e-5 * clipped(sums, clip).norm()


def test_physical_batches_follow_from_model_and_image_alone() -> None:
    paper = GradientEngine(build(ModelSpec("unet", (1, 50, 128, 128), 3, 16)), "dice")
    assert paper._hooked_rows(torch.empty((9, 1, 50, 128, 128), dtype=torch.uint8)) == 1
    assert paper._hooked_rows(torch.empty((2, 1, 32, 64, 64), dtype=torch.uint8)) == 6
    small, _ = pair(SMALL)
    images, _ = data(SMALL, 2)
    assert small._hooked_rows(images) == small._hooked_rows(images[:1]) > 128


def test_activations_are_counted_as_they_are() -> None:
    engine = GradientEngine(ChannelsLast(contiguous=True), "binary")
    assert engine._activations(torch.empty((5, 3, 16, 16))) == 4 * 16 * 16 + 1 + 1  # never zero


def test_chunks_change_nothing_but_rounding_and_cut_no_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = pair(SMALL)
    images, labels = data(SMALL, 9)
    groups = torch.tensor([0, 0, 0, 1, 2, 2, 3, 4, 4])
    whole = engine.clipped_sum(images, labels, groups, CLIP)
    monkeypatch.setattr(gradients, "PER_IMAGE_FLOATS", 2 * engine.size)
    parts = engine.clipped_sum(images, labels, groups, CLIP)
    assert (whole - parts).norm() <= 1e-5 * whole.norm()
    assert whole.norm() > 0.1


def test_sensitivity_is_the_clipping_norm() -> None:
    engine, _ = pair(SMALL)
    images, labels = data(SMALL, 6)
    everything = engine.clipped_sum(images, labels, torch.arange(6), CLIP)
    for left_out in range(6):
        keep = [i for i in range(6) if i != left_out]
        without = engine.clipped_sum(images[keep], labels[keep], torch.arange(5), CLIP)
        assert (everything - without).norm() <= CLIP * (1 + 1e-6)


def test_empty_batches_give_zeros_on_both_paths() -> None:
    engine, _ = pair(SMALL)
    images, labels = data(SMALL, 0)
    nothing = torch.zeros(0, dtype=torch.int64)
    assert engine.clipped_sum(images, labels, nothing, CLIP).abs().max() == 0
    assert engine.plain_sum(images, labels).abs().max() == 0


def test_plain_sum_is_the_unclipped_sum() -> None:
    engine, plain = pair(SMALL)
    images, labels = data(SMALL, 5)
    expected = one_by_one(plain, SMALL, images, labels).sum(dim=0)
    assert (engine.plain_sum(images, labels) - expected).norm() <= 1e-4 * expected.norm()


def test_a_unit_whose_gradient_is_not_finite_contributes_nothing() -> None:
    engine, _ = pair(SPECS["resnet9 with block"])
    images, labels = data(SMALL, 4)
    with torch.no_grad():
        engine.model.wide.units.weight.mul_(0).add_(1e30)  # one image drives the block to infinity
        engine.model.wide.units.bias.fill_(-1e32)
        engine.model.wide.centre.zero_()
    total = engine.clipped_sum(images, labels, torch.arange(4), CLIP)
    assert torch.isfinite(total).all()
    assert total.norm() <= 4 * CLIP * (1 + 1e-6)


def test_a_unit_alone_whose_gradient_is_not_finite_contributes_nothing() -> None:
    engine, _ = pair(SMALL)
    images, labels = data(SMALL, 2)
    together = torch.zeros(2, dtype=torch.int64)
    assert engine.clipped_sum(images, labels, together, CLIP).norm() == pytest.approx(CLIP)
    with torch.no_grad():
        engine.model.head.bias.fill_(float("nan"))
    assert engine.plain_sum(images, labels).isnan().any()
    assert engine.clipped_sum(images, labels, together, CLIP).abs().max() == 0


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


def test_our_convolutions_read_channels_last_rightly() -> None:
    images, labels = data(SMALL, 4)
    torch.manual_seed(0)
    for contiguous in (True, False):
        engine = GradientEngine(ChannelsLast(contiguous=contiguous), "binary")
        assert check_clipped_sum(engine, images, labels, 1.0) <= 1e-5


def test_self_check_catches_hooks_that_misread_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opacus' own convolution hook is the wrong one that the check was made for."""
    monkeypatch.setitem(GradSampleModule.GRAD_SAMPLERS, nn.Conv2d, compute_conv_grad_sample)
    images, labels = data(SMALL, 4)
    torch.manual_seed(0)
    right = GradientEngine(ChannelsLast(contiguous=True), "binary")
    assert check_clipped_sum(right, images, labels, 1.0) <= 1e-5
    wrong = GradientEngine(ChannelsLast(contiguous=False), "binary")
    with pytest.raises(RunStoppedError, match="self-check"):
        check_clipped_sum(wrong, images, labels, 1.0)


@every_model
def test_self_check_passes_on_the_models_of_the_project(spec: ModelSpec) -> None:
    images, targets = data(spec, 4)
    engine, _ = pair(spec)
    assert 0 < check_clipped_sum(engine, images, targets, 1.0) <= 1e-5


def test_self_check_catches_a_transposed_convolution_without_its_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(layer: nn.ConvTranspose3d, activations: list[Tensor], backprops: Tensor) -> dict[Tensor, Tensor]:
        return {p: torch.zeros_like(g) if p.dim() == 1 else g for p, g in right(layer, activations, backprops).items()}

    right = GradSampleModule.GRAD_SAMPLERS[nn.ConvTranspose3d]
    monkeypatch.setitem(GradSampleModule.GRAD_SAMPLERS, nn.ConvTranspose3d, forgetful)
    engine, _ = pair(SPECS["unet 3-D"])
    with pytest.raises(RunStoppedError, match="self-check"):
        check_clipped_sum(engine, *data(SPECS["unet 3-D"], 4), 1.0)


def test_an_error_inside_leaves_the_hooks_on() -> None:
    engine, _ = pair(SMALL)
    images, labels = data(SMALL, 4)
    before = engine.clipped_sum(images, labels, torch.arange(4), CLIP)
    with pytest.raises(ValueError, match="size"):
        engine.plain_sum(images, labels[:2])
    assert torch.equal(engine.clipped_sum(images, labels, torch.arange(4), CLIP), before)
