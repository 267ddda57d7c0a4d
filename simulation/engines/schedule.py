"""Which hospital's message goes to which worker next: largest first, small ones together, nobody left waiting.

Nothing here changes a result: it decides where and when a hospital answers, never what. It knows neither Ray nor
Flower nor a clock, so that it can be tested by itself.
"""

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import final

SECONDS = 0.05  # of expected work in one batch: what sending it costs is then a few percent of it
TOGETHER = 64  # messages in one batch at most
BYTES = 8_000_000  # of broadcasts in one batch at most: its answers come, and lie in memory, at once
AHEAD = 2  # batches that a worker holds: the one it works on, and one to go on with while the driver is busy


@final
@dataclass(frozen=True)
class Job:
    """A message to one hospital, as far as scheduling goes.

    Attributes:
        key: of the message; no two are open at a time.
        hospital: who answers it.
        kind: of message; one kind takes a hospital about the same time whenever it comes.
        size: of its broadcast in bytes.
        alone: must not share a batch: it may be what killed a worker.
    """

    key: str
    hospital: int
    kind: str
    size: int = 0
    alone: bool = False


@final
@dataclass(frozen=True)
class Batch:
    """Jobs that a worker does one after the other, and answers together."""

    worker: int
    jobs: tuple[Job, ...]


@final
@dataclass
class _Load:
    """What a worker holds, the batch that it works on first."""

    batches: deque[Batch] = field(default_factory=deque[Batch])
    since: float = 0.0  # when it began the first of them


@final
class Schedule:
    """Deals jobs to workers; every job is handed out until it is either finished or given up.

    Expected times come from the last time that a hospital answered the same kind of message; until it did, from its
    size and from how long others took per size; before anyone answered, sizes alone say who is first, and every
    worker holds a single job.

    Assumes: a worker does its batches in the order in which they were handed out.
    Edge cases: a worker that dies over a single job gives that job up, and whoever counts the tries decides about
    another. Over a batch nobody knows which job it was: each is handed out again, alone. What only waited behind is
    handed out again as it was.
    """

    def __init__(self, workers: int) -> None:
        self._loads = [_Load() for _ in range(workers)]
        self._waiting: list[tuple[float, int, Job]] = []
        self._numbers = itertools.count()
        self._sizes: dict[int, float] = {}
        self._seconds: dict[tuple[int, str], float] = {}
        self._rates: dict[str, float] = {}

    @property
    def waiting(self) -> int:
        """How many jobs no worker has."""
        return len(self._waiting)

    def learn(self, hospital: int, size: float) -> None:
        """Take a hospital's size, in any unit that is the same for all: records, lesions, scans."""
        self._sizes[hospital] = size

    def expected(self, job: Job) -> float | None:
        """Return the seconds that a job should take; None before anyone answered a message of its kind."""
        known = self._seconds.get((job.hospital, job.kind))
        if known is not None:
            return known
        rate = self._rates.get(job.kind)
        return None if rate is None else rate * self._size(job.hospital)

    def add(self, job: Job) -> None:
        """Take a job."""
        expected = self.expected(job)
        heapq.heappush(self._waiting, (-(expected or self._size(job.hospital)), next(self._numbers), job))

    def next(self, now: float) -> Batch | None:
        """Hand out a batch, or None while no worker should get one.

        A job goes to the worker that is free first, as far as anyone can tell: so that the largest jobs, which come
        first, are not bound behind one another.

        Args:
            now: seconds on a clock that never goes back.
        """
        if not self._waiting or not self._loads:
            return None
        worker = min(range(len(self._loads)), key=lambda w: (self._due(w, now), w))
        load = self._loads[worker]
        busy = bool(load.batches)
        if len(load.batches) >= AHEAD or (busy and self.expected(self._waiting[0][2]) is None):
            return None
        batch = Batch(worker, self._batch())
        load.batches.append(batch)
        if not busy:
            load.since = now
        return batch

    def finished(self, worker: int, seconds: Sequence[float], now: float) -> Batch:
        """Take note that a worker answered its first batch, and of the seconds that each job took."""
        load = self._loads[worker]
        batch = load.batches.popleft()
        load.since = now
        for job, took in zip(batch.jobs, seconds, strict=True):
            self._seconds[job.hospital, job.kind] = took
            rate = took / self._size(job.hospital)
            # The first answers hold a process's imports and its reading of the data: what is newer counts as much as
            # all before.
            self._rates[job.kind] = (self._rates.get(job.kind, rate) + rate) / 2
        return batch

    def died(self, worker: int, now: float) -> list[Job]:
        """Take back what a dead worker held, whose number its successor has now; return the jobs that are given up."""
        load = self._loads[worker]
        held, load.batches, load.since = list(load.batches), deque(), now
        given_up: list[Job] = []
        for place, batch in enumerate(held):
            if place == 0 and len(batch.jobs) == 1:
                given_up.extend(batch.jobs)
                continue
            for job in batch.jobs:
                self.add(replace(job, alone=True) if place == 0 else job)
        return given_up

    def held(self) -> Counter[int]:
        """Return how many batches each worker holds."""
        return Counter({number: len(load.batches) for number, load in enumerate(self._loads)})

    def _size(self, hospital: int) -> float:
        return max(self._sizes.get(hospital, 1.0), 1e-9)

    def _due(self, worker: int, now: float) -> float:
        """Return when a worker should be done with what it holds; one that holds nothing is free before all others."""
        load = self._loads[worker]
        if not load.batches:
            return float("-inf")
        times = [sum(self.expected(job) or 0.0 for job in batch.jobs) for batch in load.batches]
        return max(load.since + times[0], now) + sum(times[1:])

    def _batch(self) -> tuple[Job, ...]:
        """Take the largest job, and more where they are small; fewer towards the end, so that all end together."""
        most = min(TOGETHER, len(self._waiting) // (AHEAD * len(self._loads)))
        first = heapq.heappop(self._waiting)[2]
        jobs, seconds, size = [first], self.expected(first), first.size
        if first.alone or seconds is None:
            return (first,)
        while self._waiting and len(jobs) < most:
            job = self._waiting[0][2]
            expected = self.expected(job)
            if job.alone or expected is None or seconds + expected > SECONDS or size + job.size > BYTES:
                break
            jobs.append(heapq.heappop(self._waiting)[2])
            seconds, size = seconds + expected, size + job.size
        return tuple(jobs)
