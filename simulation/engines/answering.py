"""A hospital's app answers a message, whatever happens in it; in this process, or in a worker's."""

import contextlib
import ctypes
import importlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from configs import FedwardError
from simulation.engines.envelope import Envelope, Parcel
from simulation.engines.memory import cap_gpu_memory, free_memory, memory_words

HOSPITALS_APP = "clients.app:app"
HOSPITAL_FAILED = 1

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt(3)
KEPT = 512 << 20  # freed bytes that a worker keeps at most


def load_app(name: str) -> ClientApp:
    """Return the app that a name like `package.module:attribute` means."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def failed(message: Message, reason: str) -> Message:
    """Return the error reply to a message."""
    return Message(Error(code=HOSPITAL_FAILED, reason=reason), reply_to=message)


def answer(app: ClientApp, message: Message, context: Context) -> Message:
    """Return the app's reply; the error reply where it raises."""
    try:
        return app(message, context)
    except FedwardError as error:
        return failed(message, str(error))
    except Exception as error:
        out_of_memory = memory_words(error)
        reason = out_of_memory or f"{type(error).__name__}: {error}"
    if out_of_memory is not None:
        free_memory()  # out here the error is gone, and the frames that held on to tensors
        if message.metadata.message_type == "query.introduce":  # later the coordinator knows the name
            reason = f"hospital {int(context.node_config['partition-id']) + 1} of the deal is {reason}"
    return failed(message, reason)


@final
@dataclass(frozen=True)
class Request:
    """A message for a hospital on its way to a worker.

    Attributes:
        envelope: the message.
        context: of the hospital's node.
        apart: its records that come through the object store, and the places of theirs among the arguments.
    """

    envelope: Envelope
    context: Context
    apart: Mapping[str, int]


def keep_freed_memory() -> None:
    """Let this process use freed memory again instead of giving it back: the next release is as large as the last.

    Otherwise the C library maps every array of megabytes anew, and half of the time that it takes to pack a release is
    spent on the kernel's clearing of its pages. Where the library is not glibc nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, KEPT)


@final
class HospitalWorker:
    """What an actor is: it plays any hospital of the run, one after the other."""

    def __init__(self, gpu_fraction: float, app: str) -> None:
        import torch

        torch.set_num_threads(1)
        keep_freed_memory()
        cap_gpu_memory(gpu_fraction)
        load_app(app)  # what it imports is there before the first message

    def process(self) -> int:
        """Return the worker's process id."""
        return os.getpid()

    def handle(self, app: str, requests: Sequence[Request], *parcels: Parcel) -> list[tuple[Envelope, float]]:
        """Return the replies, in the order of the requests, and the seconds that each took."""
        loaded = load_app(app)
        replies: list[tuple[Envelope, float]] = []
        for request in requests:
            start = time.perf_counter()
            apart = {name: parcels[place] for name, place in request.apart.items()}
            reply = answer(loaded, request.envelope.open(apart, shared=True), request.context)
            replies.append((Envelope.of(reply), time.perf_counter() - start))
        return replies
