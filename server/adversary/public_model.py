"""What the adversary's own images teach it: a centre, a scale, and how images vary around them."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import scipy.fft
import scipy.linalg
import scipy.ndimage
from numpy.typing import NDArray

from server.adversary.base import PublicData
from tasks.models.build import PIXEL_MEAN, PIXEL_STD

FEWEST_IMAGES = 8
_MOST_FITTED = 2_000  # more images sharpen no component that a row can use, and cost cubic time
_MOST_VALUES = 2**27  # float32 numbers held at once while fitting: half a gigabyte
_AT_ONCE = 2**21  # values of the components that are in double precision at the same time
_SYNTHETIC = 256
_REHEARSED = 32
_SEED = 20_231  # the adversary's own constant: no seed of a hospital reaches this package


@final
@dataclass(frozen=True)
class PublicModel:
    """Images as a Gaussian around the public mean: a PCA, and for what it leaves a spectrum over frequencies.

    Everything is in the module's coordinates z = scale * (x - centre), x the flattened normalised input, in
    which the squared norm of a public image averages 1.

    Attributes:
        shape: (channels, height, width).
        centre: float32 (D,), the mean input.
        scale: factor on the centred input.
        components: float32 (r, D), orthonormal rows, most variance first.
        variances: float64 (r,), of the components on held-out public images.
        residual: float64 (D,), variances of the cosine coefficients (per channel) of what the components
            leave.
        norms: float64 (h,), squared norms of the held-out images.
        rehearsal: float32 (at most 32, D), held-out images, to try a readout on.
    """

    shape: tuple[int, ...]
    centre: NDArray[np.float32]
    scale: float
    components: NDArray[np.float32]
    variances: NDArray[np.float64]
    residual: NDArray[np.float64]
    norms: NDArray[np.float64]
    rehearsal: NDArray[np.float32]

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map uint8 images (n, channels, height, width) to z, float32 (n, D)."""
        return encode(images, self.centre, self.scale)

    def coordinates(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the coordinates of z (n, D) along the components, float64 (n, r); components are copied in parts."""
        found = np.zeros((len(z), len(self.components)))
        for part in self._parts():
            found += z[:, part] @ self.components[:, part].T
        return found

    def spanned(self, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the z (n, D) that lies in the components' span and has these coordinates (n, r), float64."""
        z = np.empty((len(coordinates), self.components.shape[1]))
        for part in self._parts():
            np.matmul(coordinates, self.components[:, part], out=z[:, part])
        return z

    def _parts(self) -> list[slice]:
        """Return slices of the dimensions, so few each that the components in double precision stay small."""
        step = max(1, _AT_ONCE // len(self.components))
        return [slice(start, start + step) for start in range(0, self.components.shape[1], step)]


def encode(
    images: NDArray[np.uint8] | NDArray[np.float32], centre: NDArray[np.float32], scale: float
) -> NDArray[np.float32]:
    """Map images (n, channels, height, width) to z = scale * (normalised - centre), float32 (n, D).

    Images are uint8, or floats in [0, 1].
    """
    flat = images.reshape(len(images), len(centre)).astype(np.float32)
    if images.dtype == np.uint8:
        flat /= np.float32(255)
    flat -= np.float32(PIXEL_MEAN)  # in place: public images at 224 pixels are half a gigabyte
    flat /= np.float32(PIXEL_STD)
    flat -= centre
    flat *= np.float32(scale)
    return flat


def decode(
    z: NDArray[np.floating], centre: NDArray[np.float32], scale: float, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Map z (n, D) back to intensities, float32 (n, channels, height, width), clipped to [0, 1]."""
    pixels = (z / scale + centre) * PIXEL_STD + PIXEL_MEAN
    return np.clip(pixels, 0, 1).astype(np.float32).reshape(len(z), *shape)


def mean_image(public: PublicData, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the mean public image, float32 `shape` in [0, 1]; mid-grey if the adversary owns none."""
    if len(public.images) == 0:
        return np.full(shape, 0.5, dtype=np.float32)
    return (public.images.mean(axis=0, dtype=np.float64) / 255).astype(np.float32)


def usable_images(images: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the public images, with fewer than 8 joined by 256 synthetic smooth fields.

    Raises:
        ValueError: the images have another shape than the model's input.
    """
    if len(images) and images.shape[1:] != shape:
        raise ValueError(f"public images have shape {images.shape[1:]}, the model's input has {shape}")
    if len(images) >= FEWEST_IMAGES:
        return images
    rng = np.random.default_rng(_SEED)
    # Grey smooth fields with a little colour: no medical prior, only that neighbouring pixels resemble each
    # other.
    noise = rng.standard_normal((_SYNTHETIC, *shape)) + 2 * rng.standard_normal((_SYNTHETIC, 1, *shape[1:]))
    fields = scipy.ndimage.gaussian_filter(noise, (0, 0, *(side / 6 for side in shape[1:])), mode="wrap")
    level = 128.0 if len(images) == 0 else images.mean(axis=0, dtype=np.float64)
    synthetic = np.clip(level + 50 * fields / fields.std(), 0, 255).astype(np.uint8)
    return np.concatenate([images.reshape(-1, *shape), synthetic])


def fit(public: PublicData, shape: tuple[int, ...], components: int) -> PublicModel:
    """Fit the model; with fewer than 8 public images smooth random fields stand in for the missing ones.

    Two thirds of the images give the components, the last third their variances: on the images that shaped
    them the components look stronger and the rest weaker than they are on an image never seen.

    Args:
        public: the adversary's images.
        shape: (channels, height, width) of the model's input.
        components: most components r.

    Raises:
        ValueError: the public images have another shape.
    """
    images = usable_images(public.images, shape)
    limit = max(FEWEST_IMAGES, min(3 * _MOST_FITTED // 2, _MOST_VALUES // int(np.prod(shape))))
    images = images[:: max(1, -(-len(images) // limit))]
    inputs = encode(images, np.zeros(int(np.prod(shape)), np.float32), 1.0)
    centre = inputs.mean(axis=0, dtype=np.float64).astype(np.float32)
    inputs -= centre
    energy = float(np.mean(np.einsum("nd,nd->n", inputs, inputs, dtype=np.float64)))
    scale = 1.0 / np.sqrt(energy) if energy > 0 else 1.0
    inputs *= np.float32(scale)
    held = np.arange(len(inputs)) % 3 == 2
    basis = _principal(inputs[~held], components)
    return _describe(inputs[held], basis, centre, scale, shape)


def cosines(flat: NDArray[np.floating], shape: tuple[int, ...], *, inverse: bool = False) -> NDArray[np.floating]:
    """Return the orthonormal cosine transform of every channel over its space (or the inverse), (n, D) to (n, D)."""
    transform = scipy.fft.idctn if inverse else scipy.fft.dctn
    changed = transform(flat.reshape(len(flat), *shape), axes=range(2, 1 + len(shape)), norm="ortho")
    return np.asarray(changed).reshape(flat.shape)


def _principal(z: NDArray[np.float32], components: int) -> NDArray[np.float32]:
    """Return orthonormal principal directions (r, D) through the smaller of the two Gram matrices."""
    n, dimension = z.shape
    r = max(1, min(components, n - 1, dimension))
    if n <= dimension:
        gram = (z @ z.T).astype(np.float64)
        values, vectors = scipy.linalg.eigh(gram, subset_by_index=(n - r, n - 1))
        directions = vectors.T[::-1].astype(np.float32) @ z
        usable = values[::-1] > 1e-6 * max(float(values[-1]), 1e-30)  # float32 Gram: nothing below means anything
        directions = directions[usable]
    else:
        covariance = (z.T @ z).astype(np.float64)
        directions = scipy.linalg.eigh(covariance, subset_by_index=(dimension - r, dimension - 1))[1].T[::-1]
    if len(directions) == 0:  # all public images are the same one
        directions = np.ones((1, dimension))
    # Orthonormal to rounding: the noise in the coordinates has to be white for the false-alarm level to hold.
    columns = directions.T.astype(np.float64, order="F")
    q: Any = scipy.linalg.qr(columns, overwrite_a=True, mode="economic", check_finite=False)[0]  # in place: it is large
    return np.ascontiguousarray(q.T, dtype=np.float32)


def _describe(
    held: NDArray[np.float32],
    basis: NDArray[np.float32],
    centre: NDArray[np.float32],
    scale: float,
    shape: tuple[int, ...],
) -> PublicModel:
    coordinates = held @ basis.T
    left = held - coordinates @ basis
    spectrum = np.zeros(held.shape[1])
    step = max(1, _AT_ONCE // held.shape[1])
    for start in range(0, len(held), step):
        spectrum += np.sum(cosines(left[start : start + step], shape).astype(np.float64) ** 2, axis=0)
    spectrum /= max(1, len(held))
    # A few held-out images say little about a single frequency, more about its neighbourhood.
    smooth = scipy.ndimage.gaussian_filter(spectrum.reshape(shape), (0, *[1.5] * (len(shape) - 1))).ravel()
    residual = (len(held) * spectrum + 10 * smooth) / (len(held) + 10)
    variances = np.mean(coordinates.astype(np.float64) ** 2, axis=0)
    return PublicModel(
        shape=shape,
        centre=centre,
        scale=float(scale),
        components=basis,
        variances=np.maximum(variances, 1e-12),
        residual=np.maximum(residual, 1e-12),
        norms=np.einsum("nd,nd->n", held, held, dtype=np.float64),
        rehearsal=held[:_REHEARSED],
    )
