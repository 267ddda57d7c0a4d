"""Decode the images once, and keep them as one uint8 array on disk that many processes can map."""

import hashlib
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import InputError
from tasks.cache import appearing, cache_folder
from tasks.decoding import decode_square
from tasks.ham10000.metadata import Metadata

# Raise it whenever `decode` would give other pixels: the cache of the older code is then left alone.
VERSION = 1
CHUNK = 256


def decode(path: Path, size: int) -> NDArray[np.uint8]:
    """Read one JPEG as uint8 (3, size, size); its aspect ratio of 4:3 is lost, as cropping could cut lesions off.

    Raises:
        InputError: the file cannot be decoded; it is named. See `tasks.decoding`.
    """
    return decode_square(path, size, kind="JPEG", mode="RGB", dataset="HAM10000")


def load_images(metadata: Metadata, size: int, *, skip: bool = False) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """Return all images in the metadata's order, and what is wrong with those that cannot be decoded.

    The first call for a dataset and size decodes everything; later ones open a file.

    Args:
        metadata: which images.
        size: side in pixels.
        skip: go on where an image cannot be decoded.

    Returns:
        (uint8 (n, 3, size, size), a read-only C-contiguous map; a sentence per row that is damaged and holds zeros).

    Raises:
        InputError: an image cannot be decoded (without `skip`), or the cache folder not written; nothing half-made
            stays.
    """
    shape = (len(metadata.paths), 3, size, size)
    key = hashlib.sha256(f"{VERSION}/{metadata.fingerprint}/{size}".encode()).hexdigest()
    file = cache_folder() / f"ham10000-{size}-{key[:32]}.npy"
    cached = _open(file, shape)
    if cached is None:
        _build(file, metadata.paths, shape, skip)
        cached = _open(file, shape)
    if cached is None:
        raise InputError(f"{file}: the cache cannot be read back; delete it and try again.")
    damaged = _damaged(file)
    if damaged and not skip:
        raise InputError(next(iter(damaged.values())))
    return cached, damaged


def _list_of(file: Path) -> Path:
    return file.with_suffix(".damaged.json")


def _damaged(file: Path) -> dict[int, str]:
    listed = _list_of(file)
    if not listed.is_file():
        return {}
    return {int(row): str(sentence) for row, sentence in json.loads(listed.read_text(encoding="utf-8")).items()}


def _open(file: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    try:
        array: Any = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # absent, or damaged by a crash of the machine: decode again
        return None
    whole = array.shape == shape and array.dtype == np.uint8 and array.flags.c_contiguous
    return array if whole else None


def _build(file: Path, paths: tuple[Path, ...], shape: tuple[int, ...], skip: bool) -> None:
    damaged: dict[int, str] = {}

    def read(row: int) -> NDArray[np.uint8]:
        try:
            return decode(paths[row], shape[-1])
        except InputError as error:
            if not skip:
                raise
            damaged[row] = str(error)
            return np.zeros(shape[1:], dtype=np.uint8)

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    # Written in pieces, not through a map: a full disk is then an error of `write` and no SIGBUS.
    with appearing(file) as draft, draft.open("wb") as out, ThreadPoolExecutor(_threads()) as pool:
        out.write(header.getvalue())
        for start in range(0, len(paths), CHUNK):
            for image in pool.map(read, range(start, min(start + CHUNK, len(paths)))):
                out.write(image.tobytes())
        out.flush()
        os.fsync(out.fileno())
        # The list is there before the images are: images without their list would pass for whole.
        _list_of(file).unlink(missing_ok=True)
        if damaged:
            with appearing(_list_of(file)) as beside:
                beside.write_text(json.dumps({str(row): damaged[row] for row in sorted(damaged)}), encoding="utf-8")


def _threads() -> int:
    return min(4, os.cpu_count() or 1)
