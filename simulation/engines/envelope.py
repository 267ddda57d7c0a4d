"""Messages between processes without copies: the bytes of their arrays travel beside them, as they lie in memory."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, Metadata, MetricRecord, RecordDict
from numpy.typing import NDArray

Record = ArrayRecord | MetricRecord | ConfigRecord

NUMPY = "numpy.ndarray"  # Flower's name of the encoding of `numpy.save`


@final
class StoredArray(Array):
    """A Flower `Array` whose bytes lie in the object store, to be read there.

    To apps it is an `Array` like any other. What it saves are copies: Flower's holds `bytes`, which have to be copied
    out of the store and copied again to be an array.

    Args:
        dtype: of the array.
        shape: of the array.
        stype: how its bytes encode it.
        stored: the bytes, as uint8 (length,).
        shared: others read the same bytes (a broadcast). Then `numpy()` returns a copy of one's own, as Flower's
            does; else a view of the store, which cannot be written to.
    """

    def __init__(self, dtype: str, shape: tuple[int, ...], stype: str, stored: NDArray[np.uint8], shared: bool) -> None:
        self.dtype, self.shape, self.stype = dtype, shape, stype
        self.stored, self._shared = stored, shared

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The bytes, copied."""
        return self.stored.tobytes()

    def numpy(self) -> NDArray[Any]:
        """Return the array; ValueError for bytes that are not one, as from Flower's own."""
        if self.stype == NUMPY:
            view = _view(self.stored)
            if view is not None:
                return view.copy() if self._shared else view
        return Array(self.dtype, self.shape, self.stype, self.data).numpy()

    def __eq__(self, other: object) -> bool:
        """Compare by content, with any `Array`."""
        if not isinstance(other, Array):
            return NotImplemented
        mine, its = ((a.dtype, tuple(a.shape), a.stype, a.data) for a in (self, other))
        return mine == its

    __hash__ = None  # type: ignore[assignment]  # as Flower's


def _view(stored: NDArray[np.uint8]) -> NDArray[Any] | None:
    """Return the array that `numpy.save` wrote, where it lies; None for whatever is not written the usual way."""
    head = BytesIO(stored[:4096].tobytes())
    try:
        if np.lib.format.read_magic(head) != (1, 0):
            return None
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
    except ValueError:
        return None
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if fortran or dtype.hasobject or size == 0 or head.tell() + size != len(stored):
        return None
    view = np.frombuffer(stored, dtype, offset=head.tell()).reshape(shape)
    view.flags.writeable = False
    return view


@final
@dataclass(frozen=True)
class Parcel:
    """A record of arrays, their bytes apart: {name: (dtype, shape, encoding, bytes)}."""

    arrays: Mapping[str, tuple[str, tuple[int, ...], str, NDArray[np.uint8]]]

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(len(stored) for *_, stored in self.arrays.values())

    @staticmethod
    def of(record: ArrayRecord) -> "Parcel":
        """Take a record apart; its bytes are not copied."""
        return Parcel(
            {name: (array.dtype, tuple(array.shape), array.stype, _bytes_of(array)) for name, array in record.items()}
        )

    def record(self, *, shared: bool) -> ArrayRecord:
        """Put the record together again over the bytes where they are; `shared` as for `StoredArray`."""
        record = ArrayRecord()
        for name, (dtype, shape, stype, stored) in self.arrays.items():
            record[name] = StoredArray(dtype, shape, stype, stored, shared)
        return record


def _bytes_of(array: Array) -> NDArray[np.uint8]:
    return array.stored if isinstance(array, StoredArray) else np.frombuffer(array.data, np.uint8)


@final
@dataclass(frozen=True)
class Envelope:
    """A message taken apart: its metadata, its error or its records, those of arrays as parcels.

    `None` stands for a record that comes by another way, to be given to `open`.
    """

    metadata: Metadata
    error: Error | None
    records: Mapping[str, Record | Parcel | None]

    @staticmethod
    def of(message: Message, without: Collection[str] = ()) -> "Envelope":
        """Take a message apart, leaving out the records `without`; the message itself stays as it is."""
        if message.has_error():
            return Envelope(message.metadata, message.error, {})
        records: dict[str, Record | Parcel | None] = {}
        for name, record in message.content.items():
            packed = Parcel.of(record) if isinstance(record, ArrayRecord) and name not in without else record
            records[name] = None if name in without else packed
        return Envelope(message.metadata, None, records)

    def open(self, apart: Mapping[str, Parcel], *, shared: bool) -> Message:
        """Return the message, with the parcels that were left out; `shared` as for `StoredArray`."""
        if self.error is not None:
            return Message(error=self.error, metadata=self.metadata)  # type: ignore[call-overload]
        content = RecordDict()
        for name, record in self.records.items():
            given = apart[name] if record is None else record
            content[name] = given.record(shared=shared) if isinstance(given, Parcel) else given
        return Message(content=content, metadata=self.metadata)  # type: ignore[call-overload]
