"""Scattering against its definition: convolutions written as sums over shifts, wavelets by their formula."""

import cmath
import itertools
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tasks.models import ModelSpec, build, initial_weights
from tasks.models.scattering import PER_CHANNEL, Scattering

MARGIN = 4


def gabor(size: tuple[int, int], sigma: float, theta: float, xi: float, slant: float) -> NDArray[np.complex128]:
    """Point by point in plain coordinates, over enough periods on each side."""
    rotation = np.array([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]])
    curve = rotation @ np.diag([1, slant**2]) @ rotation.T / (2 * sigma**2)
    out = np.zeros(size, dtype=np.complex128)
    reach = 40
    for y, x in itertools.product(range(-reach, reach + 1), repeat=2):
        at = np.array([y, x])
        wave = cmath.exp(1j * xi * (math.cos(theta) * y + math.sin(theta) * x))
        out[y % size[0], x % size[1]] += math.exp(-at @ curve @ at) * wave
    return out / (2 * math.pi * sigma**2 / slant)


def morlet(size: tuple[int, int], j: int, k: int) -> NDArray[np.complex128]:
    shape = (size, 0.8 * 2**j, (3 - k) * math.pi / 8)
    wave, bump = gabor(*shape, 0.75 * math.pi / 2**j, 0.5), gabor(*shape, 0.0, 0.5)
    return wave - wave.sum() / bump.sum() * bump


def convolve(image: NDArray[np.complex128], kernel: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Circular convolution as a sum over shifts."""
    total = np.zeros_like(image, dtype=np.complex128)
    for y, x in np.ndindex(kernel.shape):
        total += kernel[y, x] * np.roll(image, (y, x), axis=(0, 1))
    return total


def by_definition(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Features (81, h // 4, w // 4) of one grey image."""
    height, width = image.shape
    padded = np.pad(image, [(MARGIN, MARGIN + -height % 4), (MARGIN, MARGIN + -width % 4)], mode="reflect")
    size = padded.shape
    phi = gabor(size, 1.6, 0.0, 0.0, 1.0)
    waves = {(j, k): morlet(size, j, k) for j in range(2) for k in range(8)}

    def read(part: NDArray[np.complex128]) -> NDArray[np.float64]:
        smooth = convolve(part, phi).real
        return np.array([[smooth[4 + 4 * r, 4 + 4 * c] for c in range(width // 4)] for r in range(height // 4)])

    first = {key: np.abs(convolve(padded, wave)) for key, wave in waves.items()}
    second = [np.abs(convolve(first[0, k], waves[1, m])) for k in range(8) for m in range(8)]
    return np.stack([read(part) for part in (padded, *first.values(), *second)])


@pytest.mark.parametrize("sides", [(16, 16), (17, 22)])
def test_features_are_those_of_the_definition(sides: tuple[int, int]) -> None:
    images = np.random.default_rng(0).normal(size=(1, 2, *sides))
    got = Scattering(sides).double()(torch.from_numpy(images))[0]
    assert got.shape == (2 * PER_CHANNEL, sides[0] // 4, sides[1] // 4)
    for channel in range(2):
        expected = by_definition(images[0, channel])
        part = got[channel * PER_CHANNEL : (channel + 1) * PER_CHANNEL].numpy()
        np.testing.assert_allclose(part, expected, atol=2e-6)  # the filters are kept in float32
        assert np.abs(expected[17:]).max() > 0.01


def test_a_flat_image_has_a_mean_and_nothing_else() -> None:
    found = Scattering((20, 20)).double()(torch.full((1, 1, 20, 20), 3.0, dtype=torch.float64))[0]
    torch.testing.assert_close(found[0], torch.full((5, 5), 3.0, dtype=torch.float64), atol=1e-5, rtol=0)
    assert found[1:].abs().max() < 1e-5


def test_a_grating_answers_at_its_own_orientation() -> None:
    """A wave of the first scale's frequency along each wavelet's direction is loudest in that wavelet's map."""
    y, x = np.mgrid[:32, :32]
    for k in range(8):
        theta = (3 - k) * math.pi / 8
        wave = np.cos(0.75 * math.pi * (math.cos(theta) * y + math.sin(theta) * x))
        found = Scattering((32, 32))(torch.from_numpy(wave[None, None]).float())[0, 1:9, 2:-2, 2:-2]
        assert int(found.mean(dim=(1, 2)).argmax()) == k


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [16, 31, 32, 75])
def test_only_the_linear_layer_is_sent_and_trained(channels: int, side: int) -> None:
    spec = ModelSpec("scattering", (channels, side, side), 7, 16)
    places = min(8, side // 4) ** 2
    weights = initial_weights(spec, 0)
    assert {name: tuple(w.shape) for name, w in weights.items()} == {
        "head.weight": (7, 81 * channels * places),
        "head.bias": (7,),
    }
    assert {n for n, p in build(spec).named_parameters() if p.requires_grad} == set(weights)


def test_a_large_batch_is_worked_on_in_parts_with_the_same_features(monkeypatch: pytest.MonkeyPatch) -> None:
    transform = Scattering((16, 16))
    images = torch.randn(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    whole = transform(images)
    monkeypatch.setattr("tasks.models.scattering.AT_ONCE", 2 * 24 * 24)
    torch.testing.assert_close(transform(images), whole, atol=1e-6, rtol=1e-6)
    assert transform(images[:0]).shape == (0, 81, 4, 4)
