"""Every sampler of a layer against autograd on one image after another, in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clients import layer_gradients
from clients.layer_gradients import of_centred, of_convolution, of_standardised
from tasks.models.layers import CentredConv2d, StandardisedConv2d

CONVOLUTIONS: list[tuple[Any, dict[str, Any], tuple[int, ...]]] = [
    (nn.Conv2d, {"kernel_size": 3, "padding": 1}, (7, 6)),
    (nn.Conv2d, {"kernel_size": 3, "padding": 1}, (12, 13)),
    (nn.Conv2d, {"kernel_size": (3, 2), "stride": (2, 1), "dilation": 2, "groups": 2}, (12, 9)),
    (nn.Conv2d, {"kernel_size": 2, "stride": 2, "bias": False}, (6, 5)),
    (nn.Conv2d, {"kernel_size": 1}, (5, 20)),
    (nn.Conv3d, {"kernel_size": 3, "padding": 1}, (5, 6, 7)),
    (nn.Conv3d, {"kernel_size": 3, "padding": 1, "stride": 2}, (5, 6, 7)),
    (nn.Conv3d, {"kernel_size": (1, 3, 2), "padding": (0, 1, 1), "stride": (1, 2, 1), "groups": 2}, (3, 8, 7)),
    (nn.Conv3d, {"kernel_size": 1}, (2, 3, 4)),
    (nn.ConvTranspose2d, {"kernel_size": 2, "stride": 2}, (4, 5)),
    (nn.ConvTranspose2d, {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "groups": 2}, (6, 5)),
    (nn.ConvTranspose3d, {"kernel_size": 2, "stride": 2}, (2, 3, 4)),
    (nn.ConvTranspose3d, {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2, "bias": False}, (3, 3, 4)),
]


def check(layer: nn.Module, sampler: Any, inputs: Tensor) -> None:
    outputs: Tensor = layer(inputs)
    backprops = torch.randn(outputs.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    got = sampler(layer, [inputs], backprops)
    parameters = list(layer.parameters())
    assert set(got) == set(parameters)
    for i in range(len(inputs)):
        expected = torch.autograd.grad(layer(inputs[i : i + 1]), parameters, backprops[i : i + 1])
        for parameter, right in zip(parameters, expected, strict=True):
            assert right.norm() > 1e-3
            torch.testing.assert_close(got[parameter][i], right, rtol=1e-10, atol=1e-10)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("small_image", [0, 10**9], ids=["image by image", "a group per image"])
@pytest.mark.parametrize("few_places", [0, 10**9], ids=["", "patches"])
@pytest.mark.parametrize(("kind", "settings", "sides"), CONVOLUTIONS)
def test_convolutions(
    kind: Any,
    settings: dict[str, Any],
    sides: tuple[int, ...],
    few_places: int,
    small_image: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layer_gradients, "FEW_PLACES", few_places)
    monkeypatch.setattr(layer_gradients, "SMALL_IMAGE", small_image)
    torch.manual_seed(0)
    check(kind(4, 6, **settings).double(), of_convolution, noise(3, 4, *sides))


@pytest.mark.parametrize("places", [6, 20])
def test_centred_and_standardised_convolutions(places: int) -> None:
    torch.manual_seed(0)
    inputs = noise(3, 4, places, places)
    check(CentredConv2d(4, 3).double(), of_centred, inputs)
    for kernel, stride in ((3, 1), (3, 2), (1, 2)):
        check(StandardisedConv2d(4, 3, kernel, stride).double(), of_standardised, inputs)


@pytest.mark.parametrize("small_image", [0, 10**9])
def test_any_memory_layout_is_read_rightly(small_image: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_gradients, "SMALL_IMAGE", small_image)
    torch.manual_seed(0)
    flat = noise(3, 4, 12, 13).contiguous(memory_format=torch.channels_last)
    deep = noise(3, 4, 3, 5, 6).contiguous(memory_format=torch.channels_last_3d)
    check(nn.Conv2d(4, 5, 3, padding=1).double(), of_convolution, flat)
    check(nn.Conv2d(4, 5, 3, padding=1).double(), of_convolution, flat[:, :, :6, :6])
    check(nn.Conv3d(4, 5, 3, padding=1).double(), of_convolution, deep)
    check(nn.ConvTranspose3d(4, 5, 2, stride=2).double(), of_convolution, deep)


def test_no_image_has_no_gradient_and_what_is_frozen_has_none() -> None:
    layer = nn.Conv3d(2, 3, 3, padding=1)
    got = of_convolution(layer, [torch.zeros(0, 2, 4, 4, 4)], torch.zeros(0, 3, 4, 4, 4))
    assert {tuple(g.shape) for g in got.values()} == {(0, 3, 2, 3, 3, 3), (0, 3)}
    layer.weight.requires_grad_(requires_grad=False)
    assert list(of_convolution(layer, [torch.zeros(1, 2, 4, 4, 4)], torch.zeros(1, 3, 4, 4, 4))) == [layer.bias]
