"""Decode the images once, and keep them as one uint8 array on disk that many processes can map."""

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from configs.errors import InputError
from tasks.cache import appearing, cache_folder
from tasks.ham10000.metadata import Metadata

# Raise it whenever `decode` would give other pixels: the cache of the older code is then left alone.
VERSION = 1
# HAM10000 images have 600 x 450 pixels; a file that claims far more is an accident or an attack.
MAX_PIXELS = 30_000_000
CHUNK = 256


def decode(path: Path, size: int) -> NDArray[np.uint8]:
    """Read one JPEG as uint8 (3, size, size).

    The picture is squeezed into the square, its aspect ratio of 4:3 is lost: cropping could cut lesions off.
    Reduction is antialiased (bilinear with its support widened to the scale).

    Raises:
        InputError: the file is truncated, not a JPEG, or claims more than MAX_PIXELS pixels; it is named.
    """
    try:
        with Image.open(path, formats=("JPEG",)) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise InputError(
                    f"{path}: claims {picture.width}x{picture.height} pixels, more than {MAX_PIXELS}; "
                    "it is no HAM10000 image, so replace it."
                )
            square = picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        reason = "it is no JPEG" if isinstance(error, UnidentifiedImageError) else str(error)
        raise InputError(f"{path}: cannot be decoded ({reason}); download this image again.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path}: {error}; it is no HAM10000 image, so replace it.") from error
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def load_images(metadata: Metadata, size: int) -> NDArray[np.uint8]:
    """Return all images in the metadata's order, uint8 (n, 3, size, size), a read-only C-contiguous map.

    The first call for a dataset and size decodes everything; later ones open a file.

    Raises:
        InputError: an image cannot be decoded, or the cache folder not written; nothing half-made stays.
    """
    shape = (len(metadata.paths), 3, size, size)
    key = hashlib.sha256(f"{VERSION}/{metadata.fingerprint}/{size}".encode()).hexdigest()
    file = cache_folder() / f"ham10000-{size}-{key[:32]}.npy"
    cached = _open(file, shape)
    if cached is None:
        _build(file, metadata.paths, shape)
        cached = _open(file, shape)
    if cached is None:
        raise InputError(f"{file}: the cache cannot be read back; delete it and try again.")
    return cached


def _open(file: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    try:
        array: Any = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # absent, or damaged by a crash of the machine: decode again
        return None
    whole = array.shape == shape and array.dtype == np.uint8 and array.flags.c_contiguous
    return array if whole else None


def _build(file: Path, paths: tuple[Path, ...], shape: tuple[int, ...]) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    # Written in pieces, not through a map: a full disk is then an error of `write` and no SIGBUS.
    with appearing(file) as draft, draft.open("wb") as out, ThreadPoolExecutor(_threads()) as pool:
        out.write(header.getvalue())
        for start in range(0, len(paths), CHUNK):
            for image in pool.map(lambda path: decode(path, shape[-1]), paths[start : start + CHUNK]):
                out.write(image.tobytes())
        out.flush()
        os.fsync(out.fileno())


def _threads() -> int:
    return min(4, os.cpu_count() or 1)
