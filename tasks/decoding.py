"""Decode one picture file into a small square, with limits, and errors that name the file."""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from configs.errors import InputError

# Far above what the datasets hold (HAM10000 600x450, RadImageNet 224x224): a file that claims more is an accident
# or an attack.
MAX_PIXELS = 30_000_000
# What `convert` maps to grey or colour without loss of meaning; 16 bit pictures it would clip in silence.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def decode_square(
    path: Path, size: int, *, kind: Literal["JPEG", "PNG"], mode: Literal["L", "RGB"], dataset: str
) -> NDArray[np.uint8]:
    """Read one file of the given kind as uint8 (channels, size, size), channels 1 (grey, ITU-R 601 luma) or 3.

    The picture is squeezed into the square. Reduction is antialiased (bilinear, support widened to the scale).

    Args:
        path: the file.
        size: side in pixels.
        kind: the only format that is tried, whatever the file's name.
        mode: "L" for grey, "RGB" for colour.
        dataset: its name, for the sentences.

    Raises:
        InputError: the file is missing, truncated, of another kind, not of 8 bits, or claims more than MAX_PIXELS
            pixels; it is named.
    """
    try:
        with Image.open(path, formats=(kind,)) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise InputError(
                    f"{path}: claims {picture.width}x{picture.height} pixels, more than {MAX_PIXELS}; "
                    f"it is no {dataset} image, so replace it."
                )
            if picture.mode not in _MODES:
                raise InputError(f"{path}: is no picture of 8 bits (mode {picture.mode}); replace it by the original.")
            square = picture.convert(mode).resize((size, size), Image.Resampling.BILINEAR)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        reason = f"it is no {kind}" if isinstance(error, UnidentifiedImageError) else _reason(error)
        raise InputError(f"{path}: cannot be decoded ({reason}); download this image again.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path}: {error}; it is no {dataset} image, so replace it.") from error
    pixels = np.asarray(square)
    return np.ascontiguousarray(pixels[None] if mode == "L" else pixels.transpose(2, 0, 1))


def _reason(error: Exception) -> str:
    # An OSError of the system says the path once more; its own words are enough.
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
