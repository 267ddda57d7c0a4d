"""Draw the phantom's abdomens: organs as wavy ellipsoids with the Hounsfield units of portal-venous CT."""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tasks.msd_liver.nifti import LIVER, TUMOUR

Floats = NDArray[np.float32]

AIR, LUNG, FAT = -1000.0, -830.0, -100.0
# Set so that a small U-Net finds the liver but not for nothing: spleen and muscle come close to it, noise covers it.
_NOISE = (14.0, 26.0)  # standard deviation, HU
_WAVES = 0.10  # of an organ's border, as a share of its radius


@final
@dataclass(frozen=True)
class Grid:
    """Where voxel centres lie, in mm: x to the patient's left, y to the back, z upwards; 0 is mid-liver height."""

    shape: tuple[int, int, int]  # slices, rows, columns
    spacing: tuple[float, float, float]  # mm

    def axes(self) -> tuple[Floats, Floats, Floats]:
        """Return x (1, 1, w), y (1, h, 1) and z (d, 1, 1), each centred."""
        z, y, x = (
            ((np.arange(n) - (n - 1) / 2) * step).astype(np.float32)
            for n, step in zip(self.shape, self.spacing, strict=True)
        )
        return x[None, None, :], y[None, :, None], z[:, None, None]


@final
@dataclass(frozen=True)
class _Organ:
    """An ellipsoid: centre and radii in mm (x, y, z), mean and scatter of its Hounsfield units over patients."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    hounsfield: tuple[float, float]


# From back to front: what stands later covers what stands before.
_ORGANS = (
    _Organ((0, 0, 0), (152, 98, 900), (58, 6)),  # wall of muscle
    _Organ((0, -12, 0), (132, 74, 900), (-85, 25)),  # fat and bowel inside it
    _Organ((0, 62, 0), (24, 22, 900), (230, 50)),  # spine
    _Organ((8, 32, 0), (11, 11, 900), (150, 20)),  # aorta
    _Organ((62, 45, -55), (28, 27, 52), (165, 25)),  # left kidney
    _Organ((-62, 45, -60), (28, 27, 52), (165, 25)),  # right kidney
    _Organ((98, 28, 15), (29, 40, 50), (112, 15)),  # spleen
    _Organ((58, -28, 10), (40, 38, 46), (30, 15)),  # stomach
)
_LIVER = (_Organ((-72, -8, 0), (64, 72, 82), (104, 16)), _Organ((-12, -34, 24), (62, 38, 40), (104, 16)))


def draw_body(grid: Grid, tumours: int, generator: np.random.Generator) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return one patient: Hounsfield units int16 and classes uint8, both (slices, rows, columns).

    Args:
        grid: the scan's voxels.
        tumours: how many lie in the liver, each of one voxel or more.
        generator: of all draws.
    """
    size = float(generator.normal(1, 0.06))
    place = generator.normal(0, 6, 3)
    body = _inside(grid, _Organ((0, 0, 0), (165, 112, 900), (0, 0)), size, place, generator)
    values = np.where(body, np.float32(FAT), np.float32(AIR))
    for organ in _ORGANS:
        values[_inside(grid, organ, size, place, generator) & body] = generator.normal(*organ.hounsfield)
    _, _, z = grid.axes()
    lungs = _inside(grid, _Organ((0, -5, 190), (128, 82, 120), (0, 0)), size, place, generator) & (z > 20)
    values[lungs] = LUNG
    liver = np.zeros(grid.shape, dtype=np.bool_)
    for lobe in _LIVER:
        liver |= _inside(grid, lobe, size, place + generator.normal(0, 3, 3), generator)
    liver &= body
    tone = float(generator.normal(*_LIVER[0].hounsfield))
    values[liver] = tone
    mask = liver.astype(np.uint8) * np.uint8(LIVER)
    for _ in range(tumours):
        _grow(values, mask, liver, grid, tone, generator)
    return _scanned(values, generator), mask


def _inside(
    grid: Grid, organ: _Organ, size: float, place: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.bool_]:
    radii = size * np.array(organ.radii) * np.exp(generator.normal(0, 0.07, 3))
    centre = size * np.array(organ.centre) + place
    squares = [((p - c) / r) ** 2 for p, c, r in zip(grid.axes(), centre, radii, strict=True)]
    distance = np.sqrt(squares[0] + squares[1] + squares[2])
    return distance + _WAVES * _field(grid.shape, (4, 5, 5), generator) < 1


def _field(shape: tuple[int, int, int], cells: tuple[int, int, int], generator: np.random.Generator) -> Floats:
    """Return smooth noise of about unit scale from a grid of so many cells."""
    coarse = generator.standard_normal(cells, dtype=np.float32)
    factors = [n / c for n, c in zip(shape, cells, strict=True)]
    return np.asarray(ndimage.zoom(coarse, factors, order=1, grid_mode=True, mode="nearest"), dtype=np.float32)


def _grow(
    values: Floats,
    mask: NDArray[np.uint8],
    liver: NDArray[np.bool_],
    grid: Grid,
    tone: float,
    generator: np.random.Generator,
) -> None:
    # Radii as in LiTS: many small, few large. The seed is itself tumour, so that a small one does not vanish.
    seeds = np.flatnonzero(liver)
    seed = np.unravel_index(int(seeds[generator.integers(len(seeds))]), grid.shape)
    radius = float(np.clip(np.exp(generator.normal(2.3, 0.6)), 4, 45))
    x, y, z = grid.axes()
    squares = (x - x[0, 0, seed[2]]) ** 2 + (y - y[0, seed[1], 0]) ** 2 + (z - z[seed[0], 0, 0]) ** 2
    lump = liver & (np.sqrt(squares) / radius + _WAVES * _field(grid.shape, (6, 8, 8), generator) < 1)
    lump[seed] = True
    values[lump] = tone - generator.uniform(30, 65)
    mask[lump] = TUMOUR


def _scanned(values: Floats, generator: np.random.Generator) -> NDArray[np.int16]:
    # A voxel averages over its neighbourhood; noise is grainy and of the scanner's dose.
    blurred = ndimage.gaussian_filter(values, 0.5)
    noise = generator.uniform(*_NOISE) * generator.standard_normal(values.shape, dtype=np.float32)
    return np.clip(np.rint(blurred + noise), -1024, 3071).astype(np.int16)
