"""Draw the phantom's pictures: a body part, what is found there, and how CT, MR or ultrasound shows it."""

from dataclasses import dataclass
from functools import cache
from typing import final

import numpy as np
from numpy.typing import NDArray

from configs.seeds import derive
from tasks.radimagenet.taxonomy import Finding

Floats = NDArray[np.floating]  # float32 all through; the stubs cannot follow it


@final
@dataclass(frozen=True)
class _Organ:
    """An ellipse, in units of half the picture's side."""

    x: float
    y: float
    width: float
    height: float
    level: float  # added to what lies under it


@final
@dataclass(frozen=True)
class _Sign:
    """How a class shows itself: a spot with stripes, at a place of its own."""

    spot: _Organ
    frequency: float
    turn: float
    stripes: float


def draw(finding: Finding, count: int, side: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Return pictures of one class, uint8 (count, side, side).

    Each body part has its anatomy and each class its sign, the same in every phantom; patients differ in size,
    place, contrast and how clear the sign is. Nothing is modelled on a real image.
    """
    grid = ((np.arange(side, dtype=np.float32) + 0.5) * 2 / side - 1).astype(np.float32)
    zoom = np.exp(_normal(generator, count, 0.05))
    x = (grid[None, None, :] - _normal(generator, count, 0.05)) / zoom
    y = (grid[None, :, None] - _normal(generator, count, 0.05)) / zoom
    scene = _body(finding.site, x, y, generator)
    if finding.name != "normal":
        _add_sign(scene, finding, x, y, generator)
    shown = {"CT": _ct, "MR": _mr, "US": _us}[finding.modality](scene, grid, generator)
    return (np.clip(shown, 0, 1) * 255 + 0.5).astype(np.uint8)


def _normal(generator: np.random.Generator, count: int, scale: float) -> Floats:
    return generator.standard_normal((count, 1, 1), dtype=np.float32) * np.float32(scale)


def _ellipse(x: Floats, y: Floats, organ: _Organ, edge: float) -> Floats:
    u, v = (x - organ.x) / np.float32(organ.width), (y - organ.y) / np.float32(organ.height)
    inside = (np.float32(1) - u * u - v * v) * np.float32(1 / edge)
    inside += np.float32(0.5)
    return np.clip(inside, 0, 1, out=inside)


@cache
def _anatomy(site: str) -> tuple[_Organ, ...]:
    # The body's outline first. Lungs are two dark fields; everything else is drawn at random, once and for all.
    generator = np.random.default_rng(derive(0, "phantom anatomy", site))
    outline = _Organ(0, 0, float(generator.uniform(0.7, 0.92)), float(generator.uniform(0.7, 0.92)), 0.5)
    if site == "US":
        outline = _Organ(0, 0, 2.5, 2.5, 0.45)  # tissue fills the sector
    if site == "CT/lung":
        return outline, _Organ(-0.38, 0, 0.3, 0.5, -0.42), _Organ(0.38, 0, 0.3, 0.5, -0.42)
    organs: list[_Organ] = []
    for k in range(4):
        x, y = generator.uniform(-0.45, 0.45, 2)
        width, height = generator.uniform(0.12, 0.32, 2)
        level = (1 if k % 2 else -1) * generator.uniform(0.1, 0.25)
        organs.append(_Organ(float(x), float(y), float(width), float(height), float(level)))
    return outline, *organs


@cache
def _sign(folder: str) -> _Sign:
    generator = np.random.default_rng(derive(0, "phantom sign", folder))
    angle, distance = generator.uniform(0, 2 * np.pi), generator.uniform(0.1, 0.5)
    # In ultrasound the class is the organ itself, so it is larger.
    low, high = (0.25, 0.45) if folder.startswith("US/") else (0.12, 0.26)
    width, height = generator.uniform(low, high, 2)
    level = (1 if generator.random() < 0.5 else -1) * generator.uniform(0.22, 0.4)
    spot = _Organ(distance * np.cos(angle), distance * np.sin(angle), width, height, level)
    return _Sign(spot, generator.uniform(8, 24), generator.uniform(0, np.pi), generator.uniform(0, 0.25))


def _body(site: str, x: Floats, y: Floats, generator: np.random.Generator) -> Floats:
    outline, *organs = _anatomy(site)
    count = len(x)
    scene = _ellipse(x, y, outline, 0.15) * np.float32(outline.level)
    for organ in organs:
        level = np.float32(organ.level) * (1 + _normal(generator, count, 0.25))
        scene += _ellipse(x, y, organ, 0.4) * level
    return scene


def _add_sign(scene: Floats, finding: Finding, x: Floats, y: Floats, generator: np.random.Generator) -> None:
    sign, count = _sign(finding.folder), len(x)
    size = np.exp(_normal(generator, count, 0.2))
    u = (x - np.float32(sign.spot.x) - _normal(generator, count, 0.05)) / size
    v = (y - np.float32(sign.spot.y) - _normal(generator, count, 0.05)) / size
    here = _Organ(0, 0, sign.spot.width, sign.spot.height, sign.spot.level)
    clear = generator.uniform(0.3, 1.2, (count, 1, 1)).astype(np.float32)  # some are hard to see
    # Stripes cos(a u + b v), from their parts along the axes: two cosines of a line instead of one of a plane.
    a, b = np.float32(sign.frequency * np.cos(sign.turn)), np.float32(sign.frequency * np.sin(sign.turn))
    stripes = np.cos(a * u) * np.cos(b * v) - np.sin(a * u) * np.sin(b * v)
    stripes *= np.float32(sign.stripes)
    stripes += np.float32(here.level)
    stripes *= _ellipse(u, v, here, 0.5)
    stripes *= clear
    scene += stripes


def _ct(scene: Floats, grid: Floats, generator: np.random.Generator) -> Floats:
    # Air is black, noise is added, and correlated from pixel to pixel as after the reconstruction's kernel.
    noise = generator.standard_normal(scene.shape, dtype=np.float32)
    noise[:, :, 1:] += noise[:, :, :-1].copy()
    scene += noise * np.float32(0.025)
    return scene * (1 + _normal(generator, len(scene), 0.05))


def _mr(scene: Floats, grid: Floats, generator: np.random.Generator) -> Floats:
    # A coil's smooth bias field, contrast that differs between sequences, noise of a magnitude image (Rice).
    slope_x, slope_y = _normal(generator, len(scene), 0.2), _normal(generator, len(scene), 0.2)
    scene = scene * (1 + slope_x * grid[None, None, :]) * (1 + slope_y * grid[None, :, None])
    scene *= np.exp(_normal(generator, len(scene), 0.2))
    scene += np.float32(0.03) * generator.standard_normal(scene.shape, dtype=np.float32)
    imaginary = np.float32(0.03) * generator.standard_normal(scene.shape, dtype=np.float32)
    return np.sqrt(scene * scene + imaginary * imaginary)


def _us(scene: Floats, grid: Floats, generator: np.random.Generator) -> Floats:
    # Fully developed speckle (Rayleigh amplitude), attenuation with depth, a sector that starts above the picture.
    speckle = np.sqrt(generator.standard_exponential(scene.shape, dtype=np.float32))
    speckle[:, :, 1:] += speckle[:, :, :-1].copy()
    depth = ((grid + 1) / 2)[None, :, None]
    scene = np.clip(scene, 0, 1) * speckle * np.float32(0.45) * np.exp(-depth * np.float32(0.7))
    scene *= np.exp(_normal(generator, len(scene), 0.15))
    across, down = grid[None, None, :], grid[None, :, None] + np.float32(1.3)
    sector = (np.abs(across) < np.float32(0.75) * down) & (across**2 + down**2 < np.float32(2.2**2))
    return np.where(sector, np.log1p(4 * scene) / np.float32(np.log(5)), np.float32(0))
