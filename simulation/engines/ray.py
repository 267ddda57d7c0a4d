"""Hospitals on Ray actors: fractions of CPUs and GPUs, dead actors replaced, an existing cluster by its address."""

import logging
import os
import socket
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any, Protocol, cast, final

import ray
import ray.exceptions
from flwr.app import ArrayRecord, ConfigRecord, Context, Message

from configs import RunStoppedError
from configs.sections import RuntimeSettings
from simulation.engines.answering import HOSPITALS_APP, HospitalWorker, Request, failed
from simulation.engines.envelope import Envelope, Parcel
from simulation.engines.memory import OUT_OF_MEMORY
from simulation.engines.schedule import Batch, Job, Schedule

KNOCK = 5.0  # seconds that a cluster has to answer at all
WAIT = 0.2  # seconds that one look waits for a reply
ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "OMP_NUM_THREADS": "1",
}


def connect(runtime: RuntimeSettings) -> None:
    """Start Ray on this machine, or join the cluster at `runtime.ray.address`; once per process and address."""
    if ray.is_initialized():
        if not _JOINED or [runtime.ray.address] == _JOINED:  # nothing: somebody else started it for us
            return
        disconnect()
    os.environ.update(ENVIRONMENT)
    quiet: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    try:
        if runtime.ray.address:
            _knock(runtime.ray.address)
            # A cluster has its own idea of its CPUs: never pass num_cpus with an address.
            ray.init(address=runtime.ray.address, runtime_env={"env_vars": ENVIRONMENT}, **quiet)
        else:
            # "local": without an address Ray would join whatever cluster somebody has started on this machine.
            ray.init(address="local", include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = runtime.ray.address or "this machine"
        raise RunStoppedError(f"Ray did not start on {where}: {str(error).splitlines()[0]}") from error
    _JOINED[:] = [runtime.ray.address]


def _knock(address: str) -> None:
    """Raise ConnectionError where nothing listens: Ray itself would wait for minutes."""
    host, colon, port = address.rpartition(":")
    if "/" not in address and colon and port.isdigit():  # not 'auto', and not 'ray://...'
        try:
            socket.create_connection((host, int(port)), timeout=KNOCK).close()
        except OSError as error:
            raise ConnectionError(
                f"nothing answers there ({error}); start its head, or set another address."
            ) from error


_JOINED: list[str | None] = []  # the address, None for a Ray of our own; nothing before the first connection

# Workers outlive a run: a study's next cell need not import torch again.
_RESTING: dict[tuple[float, float], list[Any]] = {}


def worker_options(runtime: RuntimeSettings) -> dict[str, Any]:
    """Return what Ray is asked for a worker."""
    return {
        "num_cpus": runtime.cpus_per_hospital,
        "num_gpus": runtime.gpus_per_hospital,
        "max_restarts": 0,  # a successor is ours to start: Ray would not tell whose message was lost
    }


def start_worker(runtime: RuntimeSettings, app: str = HOSPITALS_APP) -> Any:
    """Return a worker: one that rests from an earlier run, or a new one."""
    resting = _RESTING.get(_kind(runtime))
    if resting:
        return resting.pop()
    actor: Any = ray.remote(**worker_options(runtime))(HospitalWorker)
    return actor.remote(runtime.gpus_per_hospital, app)


def workers_that_fit(runtime: RuntimeSettings) -> int:
    """Return how many workers there should be.

    Raises:
        RunStoppedError: if not one fits.
    """
    resources = ray.cluster_resources()
    fit = int(resources.get("CPU", 1) / runtime.cpus_per_hospital + 1e-9)
    if runtime.gpus_per_hospital > 0:
        gpus = resources.get("GPU", 0)
        fit = min(fit, int(gpus / runtime.gpus_per_hospital + 1e-9))
        if fit < 1:
            raise RunStoppedError(
                f"runtime.gpus_per_hospital: {runtime.gpus_per_hospital:g} GPUs asked, the cluster has {gpus:g}."
            )
    if fit < 1:
        raise RunStoppedError(
            f"runtime.cpus_per_hospital: {runtime.cpus_per_hospital:g} CPUs asked, "
            f"the cluster has {resources.get('CPU', 0):g}."
        )
    return min(runtime.workers or fit, fit)


def warm_workers(runtime: RuntimeSettings, hospitals: int | None) -> None:
    """Start Ray and its workers, which then import what they need while the driver reads its data.

    On a cluster workers are started when their places are known.
    """
    connect(runtime)
    if runtime.ray.placed:
        return
    started = [start_worker(runtime) for _ in range(min(workers_that_fit(runtime), hospitals or 10**6))]
    _RESTING.setdefault(_kind(runtime), []).extend(started)


class Crew(Protocol):
    """Where a dispatcher's workers come from."""

    @property
    def size(self) -> int:
        """How many workers there may be."""
        ...

    def start(self, number: int, app: str, /) -> Any:
        """Return a worker for this place, 0..size-1; the first, or the successor of a dead one."""
        ...

    def check(self) -> None:
        """Raise RunStoppedError where a worker cannot be used after all."""
        ...

    def rest(self, worker: Any) -> None:
        """Take back a worker that has nothing to do."""
        ...


@final
class OwnCrew:
    """Workers anywhere in Ray, which rest between the runs of this process."""

    def __init__(self, runtime: RuntimeSettings) -> None:
        self._runtime = runtime

    @property
    def size(self) -> int:
        """How many workers fit."""
        return workers_that_fit(self._runtime)

    def start(self, number: int, app: str) -> Any:
        """Return a resting worker, or a new one."""
        return start_worker(self._runtime, app)

    def check(self) -> None:
        """Workers on this machine have nothing to show."""

    def rest(self, worker: Any) -> None:
        """Keep the worker for the next run."""
        _RESTING.setdefault(_kind(self._runtime), []).append(worker)


def _kind(runtime: RuntimeSettings) -> tuple[float, float]:
    return runtime.cpus_per_hospital, runtime.gpus_per_hospital


@final
class RayDispatcher:
    """Keeps every worker busy, as its schedule says; a broadcast is put into the object store once.

    A worker's reply is taken when the driver has time for it, and the worker goes on meanwhile with what it was sent
    ahead. A dead worker is replaced; the message that it died over is answered with an error.
    """

    def __init__(
        self, runtime: RuntimeSettings, hospitals: int, app: str = HOSPITALS_APP, crew: Crew | None = None
    ) -> None:
        connect(runtime)
        self._crew = OwnCrew(runtime) if crew is None else crew
        self._app = app
        self._workers = [self._crew.start(number, app) for number in range(min(hospitals, self._crew.size))]
        self._schedule = Schedule(len(self._workers))
        self._open: dict[str, tuple[Message, Context]] = {}  # sent or waiting, by message id
        self._asked: defaultdict[int, deque[Any]] = defaultdict(deque)  # by worker, in the order of its batches
        self._stored: dict[str, tuple[ArrayRecord, Any]] = {}  # the latest broadcast, and where the store has it

    def processes(self) -> list[int]:
        """Return the process ids of the workers (for tests and for `doctor`)."""
        return ray.get([worker.process.remote() for worker in self._workers])

    def submit(self, messages: Iterable[tuple[Message, Context]]) -> None:
        """Take messages; all of them before the first is sent, since the largest hospital is first."""
        for message, context in messages:
            metadata = message.metadata
            size = sum(record.count_bytes() for record in _arrays(message).values())
            self._open[metadata.message_id] = (message, context)
            self._schedule.add(Job(metadata.message_id, metadata.dst_node_id, metadata.message_type, size))
        self._send()

    def due(self) -> dict[Any, int]:
        """Return the batches that may be answered next, each with its worker."""
        return {asked[0]: worker for worker, asked in self._asked.items() if asked}

    def collect(self, wait: float = WAIT) -> list[Message]:
        """Return the replies of one batch, waiting a little for it; error replies for what a worker died over.

        Raises:
            RunStoppedError: a worker cannot be used, see :meth:`Crew.check`.
        """
        self._crew.check()
        first = self.due()
        if not first:
            return []
        done, _ = ray.wait(list(first), num_returns=1, timeout=wait)
        replies = [reply for task in done for reply in self._take(first[task], task)]
        self._send()  # before anyone looks at the replies: workers should not wait for that
        return replies

    def _take(self, worker: int, task: Any) -> list[Message]:
        try:
            answers = cast("list[tuple[Envelope, float]]", ray.get(task))
        except ray.exceptions.RayError as error:
            return self._replace(worker, error)
        self._asked[worker].popleft()
        batch = self._schedule.finished(worker, [seconds for _, seconds in answers], time.monotonic())
        replies = [envelope.open({}, shared=False) for envelope, _ in answers]
        for job, reply in zip(batch.jobs, replies, strict=True):
            del self._open[job.key]
            self._learn(job, reply)
        return replies

    def _replace(self, worker: int, error: Exception) -> list[Message]:
        ray.kill(self._workers[worker])
        self._workers[worker] = self._crew.start(worker, self._app)
        self._asked[worker].clear()
        lost = [self._open.pop(job.key)[0] for job in self._schedule.died(worker, time.monotonic())]
        return [failed(message, death_words(error)) for message in lost]

    def _learn(self, job: Job, reply: Message) -> None:
        """Take note of the units that a hospital says it has: public terms, and a measure of its work."""
        said = reply.content.get("reply") if reply.has_content() else None
        units = said.get("units") if isinstance(said, ConfigRecord) else None
        if isinstance(units, int | float):
            self._schedule.learn(job.hospital, units)

    def _send(self) -> None:
        while (batch := self._schedule.next(time.monotonic())) is not None:
            self._asked[batch.worker].append(self._sent(batch))

    def _sent(self, batch: Batch) -> Any:
        """Send a batch; what messages have in common goes along once."""
        references: list[Any] = []
        requests: list[Request] = []
        for job in batch.jobs:
            message, context = self._open[job.key]
            apart: dict[str, int] = {}
            for name, record in _arrays(message).items():
                reference = self._reference(name, record)
                if reference not in references:
                    references.append(reference)
                apart[name] = references.index(reference)
            requests.append(Request(Envelope.of(message, without=apart), context, apart))
        return self._workers[batch.worker].handle.remote(self._app, requests, *references)

    def _reference(self, name: str, record: ArrayRecord) -> Any:
        """Return where the object store has a record, which a round's messages usually share."""
        if name not in self._stored or self._stored[name][0] is not record:
            self._stored[name] = (record, ray.put(Parcel.of(record)))
        return self._stored[name][1]

    def close(self) -> None:
        """Lay the idle workers to rest for the next run of this process; end those that are still at work."""
        for number, worker in enumerate(self._workers):
            if self._asked[number]:
                ray.kill(worker)
            else:
                self._crew.rest(worker)
        self._workers, self._schedule = [], Schedule(0)
        self._open, self._stored = {}, {}
        self._asked.clear()


def death_words(error: Exception) -> str:
    """Say of what a worker died; memory that ran out on its node is told from all else, with what to set."""
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "low on memory" in str(error):
        return f"worker died: its node ran {OUT_OF_MEMORY}"
    return f"worker died: {type(error).__name__}"


def _arrays(message: Message) -> dict[str, ArrayRecord]:
    return {name: record for name, record in message.content.items() if isinstance(record, ArrayRecord)}


def count_nodes() -> int:
    """Return how many nodes are alive."""
    return sum(node["Alive"] for node in ray.nodes())


def end_resting() -> None:
    """End the resting workers: they hold CPUs that others wait for."""
    for workers in _RESTING.values():
        for worker in workers:
            ray.kill(worker)
    _RESTING.clear()


def disconnect() -> None:
    """End the resting workers and leave Ray."""
    _RESTING.clear()
    _JOINED.clear()
    if ray.is_initialized():
        ray.shutdown()
