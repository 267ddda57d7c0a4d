"""The ledger on disk: what was charged is there, and what was altered is noticed."""

import multiprocessing
from pathlib import Path

import pytest

from privacy import Ledger, LedgerError, RepeatedRoundError, Spend

A, B = "a" * 64, "b" * 64
SPEND = Spend(1.0, 0.1, 1)


def charge(path: Path, round_number: int, broadcast: str = A) -> bool:
    ledger = Ledger.open(path)
    return ledger.charge(run="r", round=round_number, hospital="h", broadcast=broadcast, spend=SPEND)


def test_a_round_is_charged_once_and_for_one_broadcast(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    assert charge(path, 1) is True
    assert charge(path, 1) is False
    with pytest.raises(RepeatedRoundError):
        charge(path, 1, B)
    assert [e.round for e in Ledger.open(path).entries] == [1]


def test_a_torn_last_line_is_moved_aside_and_the_rest_stands(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    charge(path, 1)
    charge(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert [e.round for e in Ledger.open(path).entries] == [1]
    assert charge(path, 2) is True
    assert path.read_bytes() == whole


@pytest.mark.parametrize("damage", ["altered", "removed", "moved", "garbage"])
def test_any_other_damage_is_noticed(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "h.jsonl"
    for r in (1, 2, 3):
        charge(path, r)
    lines = path.read_text().splitlines(keepends=True)
    broken = {
        "altered": [lines[0], lines[1].replace("1.0", "9.0", 1), lines[2]],
        "removed": [lines[0], lines[2]],
        "moved": [lines[1], lines[0], lines[2]],
        "garbage": [lines[0], "{}\n", lines[2]],
    }[damage]
    assert broken != lines
    path.write_text("".join(broken))
    with pytest.raises(LedgerError, match=r"h\.jsonl"):
        Ledger.open(path)


def _many(path: Path, start: int) -> None:
    for r in range(start, start + 20):
        charge(path, r)


def test_two_processes_never_break_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_many, args=(path, start)) for start in (1, 101)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(e.round for e in Ledger.open(path).entries) == [*range(1, 21), *range(101, 121)]


def test_an_unprotected_release_leaves_no_claim(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "h.jsonl")
    ledger.charge(run="r", round=1, hospital="h", broadcast=A, spend=SPEND)
    assert ledger.price(1e-5).upper < 10
    ledger.charge(run="r", round=2, hospital="h", broadcast=A, spend=None)
    assert ledger.price(1e-5).upper == float("inf")
