import numpy as np
import pytest
import torch
from torch import nn

from configs.errors import InputError
from tasks.models import (
    ModelSpec,
    WideBlock,
    build,
    check_per_image,
    denormalise,
    initial_weights,
    load_weights,
    normalise,
)
from tasks.models.layers import CentredConv2d, normalisation
from tasks.models.resnet9 import ResNet9

SPEC = ModelSpec("resnet9", (3, 16, 16), outputs=1, width=4)
BLOCK = WideBlock(rows=5, ceiling=0.5, gain=2.0, scale=0.1)


@pytest.mark.parametrize(("channels", "outputs", "count"), [(3, 1, 2_439_489), (1, 165, 2_606_437)])
def test_parameter_counts_of_the_paper(channels: int, outputs: int, count: int) -> None:
    assert sum(p.numel() for p in ResNet9(channels, outputs, 64).parameters()) == count


def test_centred_kernels_ignore_a_constant() -> None:
    torch.manual_seed(0)
    layer = CentredConv2d(3, 5).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    before = layer(x)
    with torch.no_grad():
        layer.weight += 3.0
    torch.testing.assert_close(layer(x), before)
    flat = layer(torch.ones(1, 3, 8, 8, dtype=torch.float64))[..., 1:-1, 1:-1]
    assert flat.abs().max() < 1e-12, "centred kernels see no flat image"
    layer(x).square().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.sum(dim=(1, 2, 3)).abs().max() < 1e-9


@pytest.mark.parametrize(("channels", "groups"), [(4, 4), (32, 32), (48, 24), (64, 32), (7, 7), (65, 13)])
def test_groups_divide_the_channels(channels: int, groups: int) -> None:
    assert normalisation(channels).num_groups == groups


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.SyncBatchNorm(2), nn.ReLU(inplace=True)])
def test_check_per_image_names_the_layer(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Sequential(nn.GroupNorm(1, 2), layer))
    with pytest.raises(InputError, match=r"'1\.1'"):
        check_per_image(model)


def test_check_per_image_accepts_what_we_build() -> None:
    check_per_image(build(SPEC))
    check_per_image(nn.Sequential(nn.Conv2d(3, 2, 1), nn.GroupNorm(1, 2), nn.ReLU()))


def test_an_image_does_not_feel_its_neighbours() -> None:
    model = build(SPEC).double()
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    alone = torch.cat([model(x[k : k + 1]) for k in range(4)])
    torch.testing.assert_close(model(x), alone)


def test_initial_weights_are_the_seeds_alone() -> None:
    torch.manual_seed(5)
    first = initial_weights(SPEC, 1)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn), "the global generator is left alone"
    again, other = initial_weights(SPEC, 1), initial_weights(SPEC, 2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    model = build(SPEC)
    load_weights(model, first)
    assert all(torch.equal(value, first[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("damage", [{"head.bias": None}, {"head.bias": torch.zeros(2)}, {"extra": torch.zeros(1)}])
def test_weights_must_fit(damage: dict[str, torch.Tensor | None]) -> None:
    weights = {**initial_weights(SPEC, 1), **damage}
    with pytest.raises(RuntimeError):
        load_weights(build(SPEC), {name: value for name, value in weights.items() if value is not None})


def test_normalisation_goes_there_and_back() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    inputs = normalise(pixels)
    assert (inputs.min().item(), inputs.max().item()) == (-2.0, 2.0)
    torch.testing.assert_close(denormalise(inputs) * 255, pixels.float())


@pytest.mark.parametrize("block", [None, BLOCK, WideBlock(rows=2, ceiling=None, gain=1.0, scale=1.0)])
def test_a_specification_survives_json(block: WideBlock | None) -> None:
    spec = ModelSpec("resnet9", (3, 16, 16), 7, 4, block)
    again = ModelSpec.from_json(spec.to_json())
    assert again == spec
    assert again.digest() == spec.digest() != SPEC.digest()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"kind": "resnet9"}', SPEC.to_json().replace("resnet9", "pickle")]
)
def test_what_is_no_specification_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a model specification"):
        ModelSpec.from_json(text)


@pytest.mark.parametrize("outputs", [1, 7])
def test_the_wide_block_by_hand(outputs: int) -> None:
    spec = ModelSpec("resnet9", (3, 8, 8), outputs, 4, BLOCK)
    model = build(spec)
    weights = initial_weights(spec, 3)
    generator = np.random.default_rng(0)
    weights["wide.centre"] = torch.from_numpy(generator.normal(size=192).astype(np.float32))
    load_weights(model, weights)
    core = build(ModelSpec("resnet9", (3, 8, 8), outputs, 4))
    load_weights(core, {n.removeprefix("core."): w for n, w in weights.items() if n.startswith("core.")})
    x = generator.normal(size=(2, 3, 8, 8)).astype(np.float32)
    z = 0.1 * (x.reshape(2, -1) - weights["wide.centre"].numpy())
    units = np.clip(z @ weights["wide.units.weight"].numpy().T + weights["wide.units.bias"].numpy(), 0, 0.5)
    added = 2.0 * units.sum(axis=1)
    with torch.no_grad():
        difference = (model(torch.from_numpy(x)) - core(torch.from_numpy(x))).numpy()
    np.testing.assert_allclose(difference[:, 0], added, atol=1e-5)
    if outputs > 1:
        np.testing.assert_allclose(difference[:, 1], -added, atol=1e-5)
        np.testing.assert_allclose(difference[:, 2:], 0, atol=1e-6)
