"""Scheduling: every message gets exactly one answer whoever dies, the largest first, the small ones together."""

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulation.engines.schedule import AHEAD, BYTES, SECONDS, TOGETHER, Batch, Job, Schedule


def _drain(schedule: Schedule, now: float = 0.0) -> list[Batch]:
    return list(iter(lambda: schedule.next(now), None))


def _run(schedule: Schedule, workers: int, seconds: dict[int, float]) -> tuple[float, list[Batch]]:
    """Let workers do what they are handed, each job in its own time; return when the last ends, and the batches."""
    queues: list[list[Batch]] = [[] for _ in range(workers)]
    ends = [0.0] * workers
    now, handed = 0.0, []
    while True:
        for batch in _drain(schedule, now):
            handed.append(batch)
            if not queues[batch.worker]:
                ends[batch.worker] = now + sum(seconds[j.hospital] for j in batch.jobs)
            queues[batch.worker].append(batch)
        at_work = [w for w in range(workers) if queues[w]]
        if not at_work:
            return now, handed
        worker = min(at_work, key=lambda w: ends[w])
        now = ends[worker]
        done = queues[worker].pop(0)
        schedule.finished(worker, [seconds[j.hospital] for j in done.jobs], now)
        if queues[worker]:
            ends[worker] = now + sum(seconds[j.hospital] for j in queues[worker][0].jobs)


def _jobs(hospitals: int, turn: int = 0, size: int = 0) -> list[Job]:
    return [Job(f"{turn}-{h}", h, "train", size) for h in range(hospitals)]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_message_gets_exactly_one_answer_whoever_dies(data: st.DataObject) -> None:
    workers, hospitals = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 40))
    schedule = Schedule(workers)
    held: list[list[Batch]] = [[] for _ in range(workers)]
    answers, lost, runs = Counter[str](), Counter[str](), Counter[str]()
    for turn in range(3):  # in later turns times are known, so that batches are large
        jobs = _jobs(hospitals, turn)
        for job in jobs:
            schedule.add(job)
        while True:
            for batch in _drain(schedule):
                held[batch.worker].append(batch)
            open_keys = [j.key for batches in held for b in batches for j in b.jobs]
            assert len(open_keys) == len(set(open_keys))
            assert all(len(batches) <= AHEAD for batches in held)
            at_work = [w for w in range(workers) if held[w]]
            if not at_work:
                break
            worker = data.draw(st.sampled_from(at_work))
            first = held[worker][0]
            runs.update(j.key for j in first.jobs)
            if data.draw(st.integers(0, 4)) == 0:
                given_up = schedule.died(worker, 0.0)
                assert [j.key for j in given_up] == ([j.key for j in first.jobs] if len(first.jobs) == 1 else [])
                lost.update(j.key for j in given_up)
                held[worker] = []
            else:
                assert schedule.finished(worker, [1e-3] * len(first.jobs), 0.0) == first
                answers.update(j.key for j in first.jobs)
                held[worker].pop(0)
        assert schedule.waiting == 0
        keys = {j.key for j in jobs}
        assert {k: answers[k] + lost[k] for k in keys} == dict.fromkeys(keys, 1)
        assert all(runs[k] <= 2 for k in keys)  # once among others, once alone


def test_what_waited_behind_a_dead_batch_is_not_suspected() -> None:
    schedule = Schedule(1)
    for job in _jobs(40):
        schedule.add(job)
    _run(schedule, 1, dict.fromkeys(range(40), 1e-3))
    for job in _jobs(40, turn=1):
        schedule.add(job)
    first, _ = _drain(schedule)
    assert len(first.jobs) > 1
    assert schedule.died(0, 0.0) == []
    _, handed = _run(schedule, 1, dict.fromkeys(range(40), 1e-3))
    alone = {batch.jobs[0].key for batch in handed if batch.jobs[0].alone}
    assert alone == {job.key for job in first.jobs}
    assert all(len(batch.jobs) == 1 for batch in handed if any(job.alone for job in batch.jobs))
    assert sorted(j.key for b in handed for j in b.jobs) == sorted(j.key for j in _jobs(40, turn=1))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.lists(st.integers(1, 40), min_size=1, max_size=7))
def test_the_largest_first_ends_within_grahams_bound_of_the_best_of_all_deals(workers: int, tenths: list[int]) -> None:
    seconds = {h: t / 10 for h, t in enumerate(tenths)}
    schedule = Schedule(workers)
    for job in _jobs(len(tenths)):
        schedule.add(job)
    _run(schedule, workers, seconds)
    for job in _jobs(len(tenths), turn=1):
        schedule.add(job)
    end, handed = _run(schedule, workers, seconds)
    best = min(
        max(sum(seconds[h] for h in seconds if deal[h] == w) for w in range(workers))
        for deal in itertools.product(range(workers), repeat=len(tenths))
    )
    assert end <= best * (4 / 3 - 1 / (3 * workers)) + 1e-9  # Graham (1969), Bounds on multiprocessing timing anomalies
    assert [seconds[b.jobs[0].hospital] for b in handed] == sorted(seconds.values(), reverse=True)


def test_before_anyone_answered_sizes_say_who_is_first_and_nobody_is_bound() -> None:
    schedule = Schedule(2)
    for hospital, units in enumerate([5, 70, 3, 40]):
        schedule.learn(hospital, units)
    for job in _jobs(4):
        schedule.add(job)
    assert [b.jobs[0].hospital for b in _drain(schedule)] == [1, 3]
    schedule.finished(0, [7.0], 7.0)
    assert schedule.expected(Job("x", 3, "train")) == pytest.approx(4.0)  # 7 s for 70 units: .1 s a unit
    assert schedule.expected(Job("x", 3, "query")) is None


def test_small_hospitals_go_together_and_all_workers_end_together() -> None:
    seconds = {h: 0.002 + 0.00001 * (h % 7) for h in range(400)}
    schedule = Schedule(2)
    for job in _jobs(400):
        schedule.add(job)
    _run(schedule, 2, seconds)
    for job in _jobs(400, turn=1):
        schedule.add(job)
    end, handed = _run(schedule, 2, seconds)
    spent = [sum(seconds[j.hospital] for j in b.jobs) for b in handed]
    assert len(handed) < 40
    assert max(spent) <= SECONDS + 1e-9
    assert max(len(b.jobs) for b in handed) <= TOGETHER
    assert end <= sum(seconds.values()) / 2 + SECONDS / 2
    assert len(handed[-1].jobs) == 1


def test_large_broadcasts_are_not_sent_together() -> None:
    schedule = Schedule(1)
    for turn in range(2):
        for job in _jobs(40, turn, size=BYTES // 3):
            schedule.add(job)
        _, handed = _run(schedule, 1, dict.fromkeys(range(40), 1e-4))
    assert max(len(b.jobs) for b in handed) == 3


def test_a_batch_must_be_answered_whole() -> None:
    schedule = Schedule(1)
    schedule.add(Job("a", 0, "train"))
    schedule.next(0.0)
    with pytest.raises(ValueError, match=r"zip\(\) argument 2 is shorter"):
        schedule.finished(0, [], 0.0)


def test_no_worker_gets_nothing() -> None:
    schedule = Schedule(0)
    schedule.add(Job("a", 0, "train"))
    assert schedule.next(0.0) is None
