"""Draw the phantom's pictures: skin, a lesion that looks like its diagnosis, hairs, light, a camera."""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SITES = ("vidir_molemax", "vidir_modern", "rosendahl", "vienna_dias")
WIDTH, HEIGHT = 200, 150
MARGIN = 24  # the scene is larger than a picture: views of one lesion move within it
SCENE_WIDTH, SCENE_HEIGHT = WIDTH + 2 * MARGIN, HEIGHT + 2 * MARGIN

Floats = NDArray[np.float32]


@final
@dataclass(frozen=True)
class _Look:
    """How a diagnosis looks on average; `draw_lesion` scatters each lesion around it."""

    colour: tuple[float, float, float]  # red, green, blue in [0, 1]
    blotch: tuple[float, float, float]  # colour of the patches within
    patches: float  # how much of the lesion they cover, 0 to 1
    ragged: float  # relative amplitude of the border's waves
    edge: float  # width of the border, as a share of the radius
    radius: float  # pixels


# Planted after the textbook: melanoma dark, of several colours and ragged; the others plainer and smoother.
_LOOKS = {
    "akiec": _Look((0.70, 0.40, 0.36), (0.86, 0.68, 0.58), 0.45, 0.16, 0.40, 40),
    "bcc": _Look((0.74, 0.50, 0.48), (0.42, 0.36, 0.46), 0.35, 0.13, 0.30, 38),
    "bkl": _Look((0.58, 0.42, 0.30), (0.76, 0.64, 0.48), 0.35, 0.09, 0.15, 40),
    "df": _Look((0.62, 0.44, 0.36), (0.86, 0.74, 0.68), 0.25, 0.06, 0.45, 30),
    "mel": _Look((0.36, 0.25, 0.24), (0.42, 0.42, 0.52), 0.45, 0.18, 0.15, 46),
    "nv": _Look((0.50, 0.34, 0.25), (0.40, 0.26, 0.19), 0.30, 0.06, 0.25, 34),
    "vasc": _Look((0.58, 0.20, 0.24), (0.42, 0.12, 0.22), 0.35, 0.06, 0.15, 28),
}
# Colour of the light and darkening towards the corners of each site's camera.
_CAMERAS = {
    "vidir_molemax": ((0.98, 0.94, 1.04), 0.28),
    "vidir_modern": ((1.02, 1.00, 1.00), 0.06),
    "rosendahl": ((1.06, 0.96, 0.94), 0.12),
    "vienna_dias": ((1.02, 1.03, 0.90), 0.40),
}
# Set so that a small ResNet reaches AUROC .85 to .95 on the binary task: how far a lesion may look like
# another diagnosis, and the scatter of colours and shapes.
_ATYPICAL = 0.6
_COLOUR_SCATTER = 0.09
_SHAPE_SCATTER = 0.5

_Y, _X = np.mgrid[0:SCENE_HEIGHT, 0:SCENE_WIDTH].astype(np.float32)


def draw_lesion(diagnosis: str, site: str, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Return the scene of one lesion on its skin, uint8 (HEIGHT + 2 MARGIN, WIDTH + 2 MARGIN, 3)."""
    look = _look(diagnosis, generator)
    mask = _shape(look, generator)[..., None]
    scene = _skin(generator) * (1 - mask) + _inside(look, generator) * mask
    scene *= _light(site, generator)
    picture = Image.fromarray((np.clip(scene, 0, 1) * 255).astype(np.uint8))
    _hairs(picture, generator)
    return np.asarray(picture)


def _look(diagnosis: str, generator: np.random.Generator) -> _Look:
    # No lesion is all textbook: each borrows a share, often small, of the look of some other one.
    own, other = _LOOKS[diagnosis], list(_LOOKS.values())[int(generator.integers(len(_LOOKS)))]
    share = generator.uniform(0, _ATYPICAL)

    def between(a: float, b: float) -> float:
        return (1 - share) * a + share * b

    red, green, blue = map(between, own.colour, other.colour)
    blotch_red, blotch_green, blotch_blue = map(between, own.blotch, other.blotch)
    return _Look(
        (red, green, blue),
        (blotch_red, blotch_green, blotch_blue),
        between(own.patches, other.patches),
        between(own.ragged, other.ragged),
        between(own.edge, other.edge),
        between(own.radius, other.radius),
    )


def photograph(scene: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Return one view of a scene, uint8 (HEIGHT, WIDTH, 3): a little moved, turned, zoomed, lit; noisy."""
    angle, zoom = generator.normal(0, 0.06), np.exp(generator.normal(0, 0.03))
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    centre_x, centre_y = (
        SCENE_WIDTH / 2 + generator.normal(0, 2.5),
        SCENE_HEIGHT / 2 + generator.normal(0, 2.5),
    )
    matrix = (
        cos, sin, centre_x - cos * WIDTH / 2 - sin * HEIGHT / 2,
        -sin, cos, centre_y + sin * WIDTH / 2 - cos * HEIGHT / 2,
    )  # fmt: skip
    view = Image.fromarray(scene).transform((WIDTH, HEIGHT), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    pixels = np.asarray(view, dtype=np.float32) * np.float32(1 + generator.normal(0, 0.03))
    pixels += 3 * generator.standard_normal(pixels.shape, dtype=np.float32)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _field(rows: int, columns: int, generator: np.random.Generator) -> Floats:
    """Return smooth noise (SCENE_HEIGHT, SCENE_WIDTH) of about unit scale from a grid of so many cells."""
    grid = Image.fromarray(generator.standard_normal((rows, columns), dtype=np.float32))
    return np.asarray(grid.resize((SCENE_WIDTH, SCENE_HEIGHT), Image.Resampling.BICUBIC))


def _skin(generator: np.random.Generator) -> Floats:
    tone = generator.beta(2, 2)  # pale to tanned
    colour = np.array([0.90, 0.74, 0.68]) * (1 - tone) + np.array([0.76, 0.54, 0.44]) * tone
    colour += generator.normal(0, 0.03, 3)
    skin = np.broadcast_to(colour.astype(np.float32), (SCENE_HEIGHT, SCENE_WIDTH, 3)).copy()
    mottling = 0.05 * _field(5, 7, generator) + 0.045 * _field(11, 15, generator) + 0.025 * _field(40, 52, generator)
    redness = 0.035 * _field(5, 7, generator)
    skin *= (1 + mottling)[..., None]
    skin[..., 1] -= redness
    skin[..., 2] -= redness
    return skin


def _shape(look: _Look, generator: np.random.Generator) -> Floats:
    """Return the lesion's opacity (SCENE_HEIGHT, SCENE_WIDTH) in [0, 1]."""
    x = _X - (SCENE_WIDTH / 2 + generator.normal(0, 18))
    y = _Y - (SCENE_HEIGHT / 2 + generator.normal(0, 12))
    turn, stretch = generator.uniform(0, np.pi), float(np.exp(generator.normal(0, 0.2)))
    cos, sin = float(np.cos(turn)), float(np.sin(turn))
    u, v = (cos * x + sin * y) * stretch, (cos * y - sin * x) / stretch
    # The border's distance from the centre, as a share of the radius, tabulated over the angle.
    angles = np.linspace(-np.pi, np.pi, 721)
    orders = np.arange(2, 8)[:, None]
    waves = generator.normal(0, 1, (6, 1)) / orders**0.5 * np.cos(orders * angles + generator.uniform(0, 7, (6, 1)))
    ragged = look.ragged * np.exp(generator.normal(0, _SHAPE_SCATTER))
    border = (1 + ragged * waves.sum(axis=0)).astype(np.float32)
    radius = float(look.radius * np.exp(generator.normal(0, 0.3)))
    width = float(look.edge * np.exp(generator.normal(0, _SHAPE_SCATTER)))
    angle = ((np.arctan2(v, u) + np.float32(np.pi)) * np.float32(720 / (2 * np.pi))).astype(np.int32)
    depth = np.clip((border[angle] - np.hypot(u, v) / radius) / width + 0.5, 0, 1)
    return depth * depth * (3 - 2 * depth) * generator.uniform(0.7, 1.0)


def _inside(look: _Look, generator: np.random.Generator) -> Floats:
    colour = (np.array(look.colour) + _scattered(generator)).astype(np.float32)
    blotch = (np.array(look.blotch) + _scattered(generator)).astype(np.float32)
    field = _field(9, 12, generator)
    share = np.clip(look.patches + generator.normal(0, 0.15), 0.02, 0.98)
    patches = np.clip((field - np.quantile(field[::4, ::4], 1 - share)) * 1.5 + 0.5, 0, 1)[..., None]
    pigment = 1 + 0.08 * _field(30, 40, generator)[..., None]
    return ((colour * (1 - patches) + blotch * patches) * pigment).astype(np.float32)


def _scattered(generator: np.random.Generator) -> NDArray[np.float64]:
    # Brightness varies more than hue, as pigment does.
    return generator.normal(0, _COLOUR_SCATTER) + generator.normal(0, _COLOUR_SCATTER / 3, 3)


def _light(site: str, generator: np.random.Generator) -> Floats:
    cast, vignette = _CAMERAS[site]
    x, y = _X / SCENE_WIDTH - 0.5, _Y / SCENE_HEIGHT - 0.5
    gradient = generator.normal(0, 0.14) * x + generator.normal(0, 0.14) * y + generator.normal(0, 0.05)
    corners = vignette * generator.uniform(0.6, 1.4) * 2 * (x * x + y * y)
    tint = (np.array(cast) * np.exp(generator.normal(0, 0.02, 3))).astype(np.float32)
    return (1 + gradient - corners)[..., None] * tint


def _hairs(picture: Image.Image, generator: np.random.Generator) -> None:
    pen = ImageDraw.Draw(picture)
    steps = np.linspace(0, 1, 12)[:, None]
    lightness = int(generator.uniform(20, 90))
    for _ in range(generator.poisson(1.5) * int(generator.integers(0, 4))):
        start = generator.uniform(0, 1, 2) * (SCENE_WIDTH, SCENE_HEIGHT)
        bend, end = start + generator.normal(0, 50, 2), start + generator.normal(0, 90, 2)
        curve = (1 - steps) ** 2 * start + 2 * steps * (1 - steps) * bend + steps**2 * end
        pen.line(
            [(float(a), float(b)) for a, b in curve],
            fill=(lightness, lightness * 3 // 4, lightness // 2),
            width=1,
        )
