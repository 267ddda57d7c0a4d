"""Write small grey pictures as RGB PNG files, several times faster than a general encoder."""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encode(grey: NDArray[np.uint8]) -> bytes:
    """Return the PNG file of a picture (height, width), written as 8-bit RGB with three equal channels.

    No row filter, fastest deflate: the phantom's noise does not compress, and its 200,000 files must not take an hour.
    """
    height, width = grey.shape
    rows = np.zeros((height, 1 + 3 * width), dtype=np.uint8)  # the first byte of a row says: no filter
    rows[:, 1:] = np.repeat(grey, 3, axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(rows.tobytes(), 1)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
