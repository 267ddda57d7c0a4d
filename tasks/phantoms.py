"""Where phantoms are written: once in the cache, or to a folder of somebody's choice."""

from collections.abc import Callable
from pathlib import Path

from configs.errors import InputError
from tasks.cache import cache_folder

Write = Callable[[Path, int, int], None]  # folder, images, seed: makes the folder appear when it is whole


def cached_phantom(name: str, version: int, images: int, seed: int, write: Write) -> Path:
    """Return the folder of a dataset's phantom in the cache, written at the first call.

    Raises:
        InputError: the cache folder cannot be written, or the phantom would have too few images.
    """
    folder = cache_folder() / f"{name}-phantom-v{version}-{images}-{seed}"
    if not folder.is_dir():
        # No `new_folder`: a process that writes the same at the same time, and is first, is no error here.
        write(folder, images, seed)
    return folder


def new_folder(out: Path) -> Path:
    """Return a folder for a phantom after making sure that it is new or empty; its parents are made.

    Raises:
        InputError: it has content already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists already; give an empty or a new folder for the phantom.")
    out.parent.mkdir(parents=True, exist_ok=True)
    return out
