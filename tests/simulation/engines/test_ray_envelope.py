"""Messages between processes: what comes out is what Flower's own pickled message would hold, and nothing is copied."""

import pickle
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from clients.broadcast import broadcast_digest
from simulation.engines.answering import failed
from simulation.engines.envelope import Envelope, Parcel, StoredArray
from simulation.engines.grid import LocalGrid
from simulation.engines.inline import InlineDispatcher

ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "weights": np.random.default_rng(0).standard_normal((50, 40), dtype=np.float32),
    "sum": np.random.default_rng(1).standard_normal(20_000),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 3)),
    "columns": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "strided": np.arange(20.0)[::3],
    "big-endian": np.arange(5, dtype=">i8"),
    "flags": np.array([True, False]),
}


@pytest.fixture(autouse=True)
def _identity(tmp_path) -> None:
    LocalGrid(InlineDispatcher(), 1, tmp_path)  # Flower's messages ask who the sender is


def _message() -> Message:
    content = RecordDict(
        {
            "order": ConfigRecord({"round": 3, "spec": "{}", "letters": [b"a", b"b"]}),
            "weights": ArrayRecord({name: Array(value) for name, value in ARRAYS.items()}),
            "measured": MetricRecord({"loss": 0.25}),
        }
    )
    return Message(content, 7, "train", group_id="3")


def _through(envelope: Envelope, apart: dict[str, Parcel] | None = None, *, shared: bool) -> Message:
    buffers: list[pickle.PickleBuffer] = []
    text = pickle.dumps(envelope, protocol=5, buffer_callback=buffers.append)
    assert len(text) < 6000  # no array is among it
    stored = [bytes(b.raw()) for b in buffers]  # read-only, as the object store's
    return pickle.loads(text, buffers=stored).open(apart or {}, shared=shared)


@pytest.mark.parametrize("shared", [True, False])
def test_a_message_arrives_as_it_was_sent(shared: bool) -> None:
    sent = _message()
    arrived = _through(Envelope.of(sent), shared=shared)
    assert arrived.metadata == sent.metadata
    assert list(arrived.content) == list(sent.content)
    assert arrived.content["order"] == sent.content["order"]
    assert arrived.content["measured"] == sent.content["measured"]
    for name, value in ARRAYS.items():
        array = arrived.content["weights"][name]
        assert isinstance(array, Array)
        assert array == sent.content["weights"][name]  # bytes and all
        assert array.numpy().dtype == value.dtype
        np.testing.assert_array_equal(array.numpy(), value)
    digest = [
        broadcast_digest(3, "{}", {n: a.numpy() for n, a in m.content["weights"].items()}) for m in (sent, arrived)
    ]
    assert digest[0] == digest[1]
    assert pickle.loads(pickle.dumps(arrived)).content["weights"] == sent.content["weights"]


def test_a_shared_broadcast_is_read_by_each_as_a_copy_of_its_own() -> None:
    parcel = Parcel.of(ArrayRecord({"w": Array(ARRAYS["weights"])}))
    assert parcel.size == len(Array(ARRAYS["weights"]).data)
    array = parcel.record(shared=True)["w"]
    mine = array.numpy()
    mine += 1
    np.testing.assert_array_equal(array.numpy(), ARRAYS["weights"])


def test_a_release_is_read_where_it_lies_and_cannot_be_changed() -> None:
    parcel = Parcel.of(ArrayRecord({"w": Array(ARRAYS["sum"])}))
    array = parcel.record(shared=False)["w"]
    assert isinstance(array, StoredArray)
    assert np.shares_memory(array.numpy(), parcel.arrays["w"][3])
    with pytest.raises(ValueError, match="read-only"):
        array.numpy()[0] = 1.0


def test_records_that_travel_apart_come_back_in_their_place() -> None:
    sent = _message()
    envelope = Envelope.of(sent, without=["weights"])
    assert len(pickle.dumps(envelope)) < 6000
    arrived = _through(envelope, {"weights": Parcel.of(sent.content["weights"])}, shared=True)
    assert arrived.content == sent.content
    assert list(arrived.content) == list(sent.content)
    with pytest.raises(KeyError):
        envelope.open({}, shared=True)


def test_an_error_arrives_with_its_reason() -> None:
    arrived = _through(Envelope.of(failed(_message(), "worker died")), shared=False)
    assert arrived.has_error()
    assert not arrived.has_content()
    assert arrived.error.reason == "worker died"


@pytest.mark.parametrize("spoil", [lambda b: b[:-8], lambda b: b + b"\0", lambda b: b"nonsense", lambda b: b""])
def test_bytes_that_are_no_array_fail_as_flowers_own(spoil: Any) -> None:
    data = spoil(Array(ARRAYS["sum"]).data)
    own = Array("float64", (20_000,), "numpy.ndarray", data)
    stored = Parcel.of(ArrayRecord({"w": own})).record(shared=False)["w"]
    try:
        expected = own.numpy()
    except Exception as error:
        with pytest.raises(type(error)):
            stored.numpy()
    else:
        np.testing.assert_array_equal(stored.numpy(), expected)
    with pytest.raises(TypeError):
        Parcel.of(ArrayRecord({"w": Array("f", (1,), "torch", data)})).record(shared=False)["w"].numpy()
