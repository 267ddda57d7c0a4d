"""What was made of the public images last, kept for the process: planting and reading fit the same model."""

import hashlib
import threading
from typing import final

import numpy as np
from numpy.typing import NDArray

from server.adversary.base import PublicData
from server.adversary.bins import Bins, measurement
from server.adversary.public_model import PublicModel, fit, usable_images

Fitted = tuple[PublicModel, Bins]


@final
class LastFitted:
    """The model of the public images that was asked for last, with its bins: one, as it is large."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: tuple[str, Fitted] | None = None

    def get(self, key: str, images: NDArray[np.uint8], shape: tuple[int, ...], components: int, rows: int) -> Fitted:
        """Return what is kept under the key, or fit it; others wait meanwhile.

        Raises:
            ValueError: the images have another shape than the model's input.
        """
        with self._lock:
            if self._kept is None or self._kept[0] != key:
                self._kept = None  # the old one makes room first
                model = fit(PublicData(images, ""), shape, components)
                bins = measurement(model, model.encode(usable_images(images, shape)), rows)
                self._kept = key, (model, bins)
            return self._kept[1]

    def clear(self) -> None:
        """Forget it."""
        with self._lock:
            self._kept = None


LAST = LastFitted()


def content(images: NDArray[np.uint8], shape: tuple[int, ...], components: int, rows: int) -> str:
    """Return a key of everything that a fit depends on: the images' content, and what it is asked for."""
    asked = f"{images.shape} {images.dtype} {shape} {components} {rows}"
    digest = hashlib.sha256(asked.encode())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()
