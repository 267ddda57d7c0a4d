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
from tasks.models.layers import CentredConv2d, StandardisedConv2d, normalisation

SPEC = ModelSpec("resnet9", (3, 16, 16), outputs=1, width=4)
BLOCK = WideBlock(rows=5, ceiling=0.5, gain=2.0, scale=0.1)
KINDS = [
    SPEC,
    ModelSpec("wide_resnet", (3, 9, 8), 4, 2),
    ModelSpec("scattering", (1, 17, 20), 3, 16),
    ModelSpec("histograms", (3, 17, 20), 3, 16),
    ModelSpec("unet", (2, 17, 10), 3, 4),
    ModelSpec("unet", (1, 5, 9, 17), 3, 2, BLOCK),
]


def named(spec: ModelSpec) -> str:
    return f"{spec.kind} {len(spec.shape) - 1}-D"


COUNTS = [
    (ModelSpec("resnet9", (3, 224, 224), 1, 64), 2_439_489),  # Ziller et al. 2024
    (ModelSpec("resnet9", (1, 224, 224), 165, 64), 2_606_437),  # the same
    (ModelSpec("unet", (1, 50, 128, 128), 3, 16), 5_648_371),  # the same
    (ModelSpec("wide_resnet", (3, 32, 32), 10, 16), 8_949_210),  # 8.9 million in Zagoruyko & Komodakis 2016
    (ModelSpec("scattering", (3, 32, 32), 10, 16), 243 * 64 * 10 + 10),  # ScatterNet-linear, Tramèr & Boneh 2021
]


@pytest.mark.parametrize(
    ("spec", "count"), COUNTS, ids=lambda value: named(value) if isinstance(value, ModelSpec) else ""
)
def test_parameter_counts_of_the_literature(spec: ModelSpec, count: int) -> None:
    assert sum(p.numel() for p in build(spec).parameters()) == count


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


def test_standardised_kernels_ignore_offset_and_scale() -> None:
    torch.manual_seed(0)
    layer = StandardisedConv2d(3, 5, 3, stride=2).double()
    weight, _ = layer.effective()
    assert weight.mean(dim=(1, 2, 3)).abs().max() < 1e-12
    torch.testing.assert_close(
        weight.square().sum(dim=(1, 2, 3)), torch.ones(5, dtype=torch.float64), atol=1e-4, rtol=0
    )
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    before = layer(x)
    assert before.shape == (2, 5, 5, 4)
    with torch.no_grad():
        layer.weight.copy_(100 * layer.weight + 3)
    torch.testing.assert_close(layer(x), before, atol=1e-3, rtol=1e-3)


REFUSED = [
    nn.BatchNorm1d(2),
    nn.BatchNorm3d(2),
    nn.BatchNorm2d(2, affine=False),
    nn.SyncBatchNorm(2),
    nn.ReLU(inplace=True),
    nn.InstanceNorm2d(2, track_running_stats=True),
    nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
    nn.Conv3d(2, 2, 3, padding="same"),
    nn.Conv1d(2, 2, 1),
    nn.LayerNorm(2),
    nn.PReLU(),
    nn.LSTM(2, 2),
    nn.Embedding(2, 2),
    nn.LazyConv2d(2, 1),
    nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 1)),
]


@pytest.mark.parametrize("layer", REFUSED, ids=lambda layer: type(layer).__name__)
def test_check_per_image_names_the_layer(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Sequential(nn.GroupNorm(1, 2), layer))
    with pytest.raises(InputError, match=r"'1\.1'"):
        check_per_image(model)


def test_check_per_image_refuses_parameters_outside_of_layers() -> None:
    class Scaled(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(2, 2))
            self.factor = nn.Parameter(torch.ones(1))

    with pytest.raises(InputError, match=r"'0'.*Scaled.*factor"):
        check_per_image(nn.Sequential(Scaled()))


def test_check_per_image_accepts_what_we_build_and_what_is_not_trained() -> None:
    for spec in KINDS:
        check_per_image(build(spec))
    check_per_image(nn.Sequential(nn.Conv2d(3, 2, 1), nn.GroupNorm(1, 2), nn.ReLU(), nn.ConvTranspose3d(2, 2, 2)))
    check_per_image(nn.LayerNorm(2).requires_grad_(requires_grad=False))


@pytest.mark.parametrize("spec", KINDS, ids=named)
def test_an_image_does_not_feel_its_neighbours(spec: ModelSpec) -> None:
    model = build(spec).double()
    x = torch.randn(3, *spec.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together = model(x)
    assert together.shape == (3, spec.outputs, *(spec.shape[1:] if spec.dense else ()))
    torch.testing.assert_close(together, torch.cat([model(x[k : k + 1]) for k in range(3)]))


@pytest.mark.parametrize("spec", KINDS, ids=named)
def test_initial_weights_are_the_seeds_alone(spec: ModelSpec) -> None:
    torch.manual_seed(5)
    first = initial_weights(spec, 1)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn), "the global generator is left alone"
    again, other = initial_weights(spec, 1), initial_weights(spec, 2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    model = build(spec)
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


@pytest.mark.parametrize("outputs", [1, 7])
def test_the_wide_block_by_hand(outputs: int) -> None:
    spec = ModelSpec("resnet9", (3, 16, 16), outputs, 4, BLOCK)
    model = build(spec)
    weights = initial_weights(spec, 3)
    generator = np.random.default_rng(0)
    weights["wide.centre"] = torch.from_numpy(generator.normal(size=768).astype(np.float32))
    load_weights(model, weights)
    core = build(ModelSpec("resnet9", (3, 16, 16), outputs, 4))
    load_weights(core, {n.removeprefix("core."): w for n, w in weights.items() if n.startswith("core.")})
    x = generator.normal(size=(2, 3, 16, 16)).astype(np.float32)
    z = 0.1 * (x.reshape(2, -1) - weights["wide.centre"].numpy())
    units = np.clip(z @ weights["wide.units.weight"].numpy().T + weights["wide.units.bias"].numpy(), 0, 0.5)
    added = 2.0 * units.sum(axis=1)
    with torch.no_grad():
        difference = (model(torch.from_numpy(x)) - core(torch.from_numpy(x))).numpy()
    np.testing.assert_allclose(difference[:, 0], added, atol=1e-5)
    if outputs > 1:
        np.testing.assert_allclose(difference[:, 1], -added, atol=1e-5)
        np.testing.assert_allclose(difference[:, 2:], 0, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 6, 7), (1, 4, 6, 5)])
def test_the_wide_block_shifts_a_whole_map_by_one_amount(shape: tuple[int, ...]) -> None:
    spec = ModelSpec("unet", shape, 3, 2, BLOCK)
    model = build(spec)
    with torch.no_grad():
        model.wide.units.bias.fill_(0.2)
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = (model(x) - model.core(x)).flatten(2).numpy()
        added = model.wide(x).numpy()
    assert added.min() > 0.1
    assert abs(added[0] - added[1]) > 1e-3, "each image has its own amount"
    for k, sign in enumerate((1, -1, 0)):
        np.testing.assert_allclose(
            difference[:, k], sign * np.repeat(added[:, None], difference.shape[2], 1), atol=1e-5
        )


def test_what_cannot_be_built_is_an_input_error() -> None:
    with pytest.raises(InputError, match="needs sides of 16 pixels"):
        build(ModelSpec("scattering", (3, 8, 8), 1, 16))
    with pytest.raises(InputError, match="does not read images of shape"):
        build(ModelSpec("resnet9", (1, 8, 16, 16), 1, 16))
    # A lone value per group would be normalised to nothing, and torch stops on it only once an image comes alone.
    with pytest.raises(InputError, match="does not run on one image"):
        build(ModelSpec("resnet9", (3, 8, 8), 1, 4))
    with pytest.raises(InputError, match="does not run on one image"):
        build(ModelSpec("unet", (1, 1, 1), 3, 8))
