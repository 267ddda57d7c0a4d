"""Histogram features against loops over pixels, the kernel that they stand for, and real images' gradients."""

import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clients.gradients import GradientEngine
from configs.errors import InputError
from configs.sections import TaskSettings
from tasks.losses import loss
from tasks.models import ModelSpec, build, initial_weights, normalise, parameter_names
from tasks.models.histograms import BANDWIDTH, FLOOR, Histograms, Maps, membership, rings
from tasks.models.memory import MEMORY
from tasks.registry import get

SPEC = ModelSpec("histograms", (3, 16, 16), 1, 16)
Array = NDArray[np.float64]


def pixels(count: int, sides: tuple[int, int] = (16, 16), seed: int = 0) -> torch.Tensor:
    draws = np.random.default_rng(seed).integers(0, 256, (count, 3, *sides), dtype=np.uint8)
    return torch.from_numpy(draws)


def hats(value: float, low: float, high: float, count: int) -> Array:
    """numpy's own linear interpolation of each unit vector: the hat functions."""
    centres = np.linspace(low, high, count)
    return np.array([np.interp(value, centres, row) for row in np.eye(count)])


def ring_of(y: int, x: int, sides: tuple[int, int]) -> int:
    radius = math.hypot((2 * y + 1) / sides[0] - 1, (2 * x + 1) / sides[1] - 1)
    return sum(radius > edge for edge in (0.4, 0.7, 1.0))


def averaged(image: Array, scale: int) -> Array:
    height, width = image.shape[1] // scale, image.shape[2] // scale
    return np.array(
        [
            [
                [c[y * scale : (y + 1) * scale, x * scale : (x + 1) * scale].mean() for x in range(width)]
                for y in range(height)
            ]
            for c in image
        ]
    )


def by_definition(image: Array) -> Array:
    """Shares (bins, 4) of one image (3, h, w) in 0..1, pixel by pixel."""
    sides = image.shape[1:]
    opponent = np.stack([image.mean(axis=0), image[0] - image[1], image[1] - image[2]])
    members = {k: [p for p in product(*map(range, sides)) if ring_of(*p, sides) == k] for k in range(4)}
    outer = members[2] + members[3]
    skin = np.mean([image[:, y, x] for y, x in outer], axis=0)
    skin = np.array([skin.mean(), skin[0] - skin[1], skin[1] - skin[2]])
    smooth = {scale: averaged(opponent, scale) for scale in (1, 2, 4)}

    def slope(scale: int, axis: int, y: int, x: int) -> float:
        c = smooth[scale][axis]
        y, x, last = y // scale, x // scale, (c.shape[0] - 1, c.shape[1] - 1)
        down = c[min(y + 1, last[0]), x] - c[max(y - 1, 0), x]
        across = c[y, min(x + 1, last[1])] - c[y, max(x - 1, 0)]
        return 0.5 * math.log(down**2 + across**2 + 1e-6)

    def pixel(y: int, x: int) -> Array:
        a, b, c = opponent[:, y, x]
        da, db, dc = opponent[:, y, x] - skin
        own = np.einsum("i,j,k->ijk", hats(a, 0.15, 0.85, 6), hats(b, -0.05, 0.45, 5), hats(c, -0.15, 0.25, 4))
        near = np.einsum("i,j,k->ijk", hats(da, -0.5, 0.2, 7), hats(db, -0.25, 0.25, 5), hats(dc, -0.25, 0.25, 5))
        texture = [hats(slope(s, axis, y, x), -6.0, -0.5, 8) for s in (1, 2, 4) for axis in range(3)]
        return np.concatenate([own.ravel(), near.ravel(), *texture])

    return np.stack([np.mean([pixel(*p) for p in members[k]], axis=0) for k in range(4)], axis=1)


@pytest.mark.parametrize("sides", [(8, 8), (16, 12)])
def test_shares_are_those_of_a_loop_over_pixels(sides: tuple[int, int]) -> None:
    images = pixels(2, sides, seed=3)
    images[1] = 180 + images[1] // 12  # a pale and almost flat one
    got = (Maps(sides).double()(normalise(images).double()).flatten(2) @ rings(sides).double().flatten(1).T).numpy()
    for k in range(2):
        np.testing.assert_allclose(got[k], by_definition(images[k].numpy() / 255.0), atol=2e-6)


def test_every_histogram_counts_every_pixel_once() -> None:
    maps = Maps((16, 16))(normalise(pixels(3)))
    own, near, texture = torch.split(maps, Maps.blocks, dim=1)
    assert Maps.blocks == (120, 175, 72)
    for block, histograms in ((own, 1), (near, 1), (texture, 9)):
        torch.testing.assert_close(block.sum(dim=1), torch.full((3, 16, 16), float(histograms)))
    assert maps.min() >= 0


def test_membership_shares_linearly_and_clamps_outside() -> None:
    got = membership(torch.tensor([-9.0, 0.0, 0.125, 0.5, 9.0]), (0.0, 1.0, 3))
    expected = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0.75, 0.25, 0], [0, 1, 0], [0, 0, 1]])
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("sides", [(8, 8), (9, 17), (32, 32)])
def test_rings_are_means_over_all_pixels(sides: tuple[int, int]) -> None:
    found = rings(sides)
    torch.testing.assert_close(found.sum(dim=(1, 2)), torch.ones(4))
    assert ((found > 0).sum(dim=0) == 1).all()


def test_features_have_norm_1_and_their_products_are_a_gaussian_kernel() -> None:
    images = torch.cat([pixels(3), 128 + pixels(3, seed=1) // 4, 60 + pixels(3, seed=2) // 8])
    trunk, x = Histograms((16, 16)), normalise(images)
    features = trunk(x)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(9))
    roots = ((trunk.maps(x).flatten(2) @ trunk.rings).flatten(1) + FLOOR).sqrt() * trunk.weights
    kernel = (-(BANDWIDTH**2) * torch.cdist(roots, roots) ** 2 / 2).exp()
    # 1024 frequencies: the error's standard deviation is at most 1/sqrt(2 * 1024) = .022.
    assert (features @ features.T - kernel).abs().max() < 0.1
    assert kernel.min() < 0.8, "the images are told apart"


@pytest.mark.parametrize("side", [16, 32])
def test_flips_and_quarter_turns_change_nothing(side: int) -> None:
    x = normalise(pixels(2, (side, side)))
    trunk = Histograms((side, side))
    for turned in (x.flip(2), x.flip(3), x.rot90(1, (2, 3))):
        torch.testing.assert_close(trunk(turned), trunk(x), atol=2e-5, rtol=0)


def test_only_the_head_is_trained_and_sent() -> None:
    assert set(initial_weights(SPEC, 0)) == parameter_names(SPEC) == {"head.weight"}
    assert sum(p.numel() for p in build(SPEC).parameters()) == 2048


def test_frequencies_are_the_same_with_every_version_of_numpy() -> None:
    # A hospital and a server with other frequencies would train two models: the numbers are written down here.
    drawn = Histograms((8, 8)).frequencies
    assert drawn.shape == (1468, 1024)
    torch.testing.assert_close(drawn[0, :3], torch.tensor([-0.0839422, 0.9691294, 1.1449027]), atol=1e-6, rtol=0)
    assert float(drawn.std()) == pytest.approx(1.2, rel=0.005)


@pytest.mark.parametrize("shape", [(1, 16, 16), (4, 16, 16)])
def test_other_than_colour_images_are_refused_in_words(shape: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="3 channels, not"):
        build(ModelSpec("histograms", shape, 1, 16))


def test_sides_below_8_are_refused_and_8_runs() -> None:
    with pytest.raises(InputError, match="8 pixels"):
        build(ModelSpec("histograms", (3, 7, 8), 1, 16))
    assert build(ModelSpec("histograms", (3, 8, 8), 4, 16))(normalise(pixels(2, (8, 8)))).shape == (2, 4)


def test_images_can_be_differentiated_through_the_features() -> None:
    x = normalise(pixels(1, (8, 8), seed=5)).double().requires_grad_()
    model: Any = build(ModelSpec("histograms", (3, 8, 8), 1, 16)).double()
    (slope,) = torch.autograd.grad(model(x).sum(), x)
    assert slope.isfinite().all()
    direction = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ahead, back = (float(model.head(model.features.trunk(x + s * 1e-6 * direction))) for s in (1, -1))
    assert (ahead - back) / 2e-6 == pytest.approx(float((slope * direction).sum()), rel=1e-4)


def test_a_black_image_has_finite_gradients() -> None:
    x = torch.full((1, 3, 8, 8), -2.0).requires_grad_()
    build(ModelSpec("histograms", (3, 8, 8), 1, 16))(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_no_image_has_a_gradient_beyond_1_so_that_clipping_at_1_does_nothing(real_data: Path) -> None:
    records = get(TaskSettings(root=str(real_data / "ham10000"), image_size=32)).load().train
    rows = np.random.default_rng(0).choice(len(records), 60, replace=False)
    images, labels = torch.from_numpy(records.pixels(rows)), torch.from_numpy(records.labels[rows])
    spec = ModelSpec("histograms", (3, 32, 32), 1, 16)
    model: Any = build(spec)
    with torch.no_grad():
        model.head.weight.copy_(50 * torch.randn(1, 2048, generator=torch.Generator().manual_seed(2)))
    norms = []
    for image, label in zip(normalise(images), labels, strict=True):
        value = loss("binary")(model(image[None]), label[None]).sum()
        norms.append(float(torch.autograd.grad(value, model.head.weight)[0].norm()))
    assert 0.9 < max(norms) <= 1 + 1e-5
    engine = GradientEngine(model, "binary")
    plain = engine.plain_sum(images, labels)
    torch.testing.assert_close(engine.clipped_sum(images, labels, torch.arange(60), 1.0), plain, atol=1e-4, rtol=1e-5)


def test_remembered_gradients_are_the_first_ones_to_the_bit() -> None:
    engine = GradientEngine(build(SPEC), "binary")
    images, labels = pixels(9), torch.arange(9) % 2
    MEMORY.clear()
    first = engine.clipped_sum(images, labels, torch.arange(9), 0.3)
    assert torch.equal(engine.clipped_sum(images, labels, torch.arange(9), 0.3), first)
