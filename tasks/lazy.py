"""Pictures that are decoded when first asked for, and kept in one sparse file that many processes share."""

import errno
import os
import weakref
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from configs.errors import InputError
from tasks.base import Pictures

CHUNK = 256
MARK = 4  # bytes of a picture's checksum


@final
class Lazy(Pictures):
    """Pictures of a dataset too large to be decoded beforehand: uint8 (count, *shape).

    The store is one sparse file of `count` records, each the pixels and a checksum over them and the row. A record
    is believed only if its checksum holds, so that nothing torn is ever taken for a picture: not by a reader beside
    a writer, not after a kill, a full disk or a power cut, in whatever order the system wrote the pages. Two
    processes that decode the same picture write the same bytes. The file is read by `preadv` and not through a
    map: pages of a map would count as resident memory, and a file cut short would be a SIGBUS instead of an error.

    An object holds no picture, may be pickled, and survives a fork.

    Args:
        store: the folder of the store; made at the first read. Its name must change with whatever changes a pixel.
        decode: gives the picture of a row, uint8 `shape`; raises InputError naming the file. Must be picklable if
            the object is, and callable from several threads.
        count: number of rows.
        shape: of one picture.
    """

    def __init__(
        self, store: Path, decode: Callable[[int], NDArray[np.uint8]], *, count: int, shape: tuple[int, ...]
    ) -> None:
        self._store = store
        self._decode = decode
        self._count = count
        self._shape = shape
        self._bytes = int(np.prod(shape))
        self._descriptor: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one picture."""
        return self._shape

    def __len__(self) -> int:
        return self._count

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptor": None}

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the pictures of these rows, uint8 (m, *shape); decode and keep those that are not kept yet.

        Raises:
            InputError: naming the file that cannot be decoded, or the store that cannot be written.
            IndexError: a row is not in [0, count).
        """
        wanted = [int(row) for row in rows]
        if wanted and not 0 <= min(wanted) <= max(wanted) < self._count:
            raise IndexError(f"rows {min(wanted)}..{max(wanted)} of {self._count} pictures")
        descriptor = self._open()
        flat = np.empty((len(wanted), self._bytes), dtype=np.uint8)
        mark = bytearray(MARK)
        missing: dict[int, list[int]] = {}
        for place, row in enumerate(wanted):
            got = os.preadv(descriptor, [flat[place], mark], row * (self._bytes + MARK))
            if got < self._bytes + MARK or int.from_bytes(mark, "little") != _checksum(flat[place], row):
                missing.setdefault(row, []).append(place)
        for row, pixels in self._decoded(list(missing), descriptor):
            flat[missing[row]] = pixels.reshape(-1)
        return flat.reshape(len(wanted), *self._shape)

    def faults(self, rows: NDArray[np.int64]) -> list[tuple[int, str]]:
        """Return (row, sentence) of every one of these rows whose file cannot be decoded; all others are then kept."""
        found: list[tuple[int, str]] = []
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            try:
                self.read(part)
            except InputError:
                found += self._singly(int(row) for row in part)
        return found

    def known_faults(self) -> list[tuple[int, str]]:
        """Return (row, sentence) of the rows that failed at some earlier read and still do."""
        folder = self._store / "faults"
        if not folder.is_dir():
            return []
        rows = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
        return self._singly(row for row in rows if row < self._count)

    def _singly(self, rows: Iterable[int]) -> list[tuple[int, str]]:
        found: list[tuple[int, str]] = []
        for row in rows:
            try:
                self._one(row, self._open())
            except InputError as error:
                found.append((row, str(error)))
            else:
                (self._store / "faults" / str(row)).unlink(missing_ok=True)
        return found

    def _decoded(self, rows: list[int], descriptor: int) -> Iterable[tuple[int, NDArray[np.uint8]]]:
        if len(rows) < 2:
            yield from ((row, self._one(row, descriptor)) for row in rows)
            return
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for start in range(0, len(rows), CHUNK):  # an error or an interrupt then waits for one chunk only
                part = rows[start : start + CHUNK]
                yield from zip(part, pool.map(lambda row: self._one(row, descriptor), part), strict=True)

    def _one(self, row: int, descriptor: int) -> NDArray[np.uint8]:
        try:
            pixels = np.ascontiguousarray(self._decode(row), dtype=np.uint8)
        except InputError:
            self._remember(row)
            raise
        if pixels.shape != self._shape:
            raise ValueError(f"decode gave {pixels.shape} for row {row}, not {self._shape}")
        mark = _checksum(pixels, row).to_bytes(MARK, "little")
        try:
            written = os.pwritev(descriptor, [pixels.reshape(-1).data, mark], row * (self._bytes + MARK))
            if written < self._bytes + MARK:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise self._unwritable(error) from error
        return pixels

    def _remember(self, row: int) -> None:
        # A hint for the next start only: where it cannot be written the file is found out again.
        try:
            (self._store / "faults").mkdir(parents=True, exist_ok=True)
            (self._store / "faults" / str(row)).touch()
        except OSError:
            return

    def _open(self) -> int:
        if self._descriptor is None:
            try:
                self._store.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(self._store / "pictures", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise self._unwritable(error) from error
            self._descriptor = descriptor
            weakref.finalize(self, os.close, descriptor)
        return self._descriptor

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"{self._store}: decoded pictures cannot be kept ({error.strerror or error}); free some space "
            f"(all {self._count} take {self._count * (self._bytes + MARK) / 1e9:.1f} GB) or set FEDWARD_CACHE to "
            "another folder."
        )


def _checksum(pixels: NDArray[np.uint8], row: int) -> int:
    # Never 0: a hole of the sparse file, all zero, is no picture, not even a black one.
    return zlib.crc32(pixels.data, row + 1) or 1
