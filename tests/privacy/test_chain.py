"""The ledger on disk: what was charged is there, and what was altered is noticed."""

import multiprocessing
from pathlib import Path

import pytest

import privacy
from privacy import Ledger, LedgerError, RepeatedRoundError, Spend
from privacy.ledger import verify

A, B = "a" * 64, "b" * 64
SPEND = Spend(0.8, 0.1, 5)


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
    assert Ledger.open(path).repaired is False
    path.write_bytes(whole[:-20])
    with pytest.raises(LedgerError, match=r"line 2: torn"):
        verify(path)
    ledger = Ledger.open(path)
    assert ledger.repaired is True
    torn = whole[:-20].splitlines(keepends=True)[-1]
    assert (tmp_path / "h.jsonl.torn").read_bytes() == torn + b"\n"
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
        "altered": [lines[0], lines[1].replace('"steps": 5', '"steps": 1'), lines[2]],
        "removed": [lines[0], lines[2]],
        "moved": [lines[1], lines[0], lines[2]],
        "garbage": [lines[0], "{}\n", lines[2]],
    }[damage]
    assert broken != lines
    path.write_text("".join(broken))
    with pytest.raises(LedgerError, match=r"h\.jsonl, line [123]: "):
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


def fill(path: Path, rounds: int = 3) -> Ledger:
    ledger = Ledger.open(path)
    for r in range(rounds):
        ledger.charge(run="run", round=r, hospital='St "Éloi"\n/', broadcast=A, spend=SPEND)
    return ledger


def test_what_was_charged_is_found_and_priced(tmp_path: Path) -> None:
    ledger = fill(tmp_path / "deep" / "h.jsonl")
    entry = ledger.find("run", 1)
    assert entry is not None
    assert (entry.hospital, entry.spend, entry.broadcast) == ('St "Éloi"\n/', SPEND, A)
    assert ledger.find("run", 3) is None
    assert ledger.find("other", 1) is None
    assert ledger.steps() == ledger.steps("run") == 15
    assert ledger.steps("other") == 0
    whole = privacy.epsilon(noise_multiplier=0.8, sample_rate=0.1, steps=15, delta=1e-5)
    assert ledger.price(1e-5).estimate == pytest.approx(whole.estimate, rel=1e-9)
    assert [e.digest for e in verify(ledger.path)] == [e.digest for e in ledger.entries]


def test_an_open_ledger_sees_what_others_append(tmp_path: Path) -> None:
    first = fill(tmp_path / "h.jsonl", 1)
    second = Ledger.open(tmp_path / "h.jsonl")
    assert second.charge(run="run", round=9, hospital="h", broadcast=A, spend=SPEND)
    with pytest.raises(RepeatedRoundError, match="round 9"):
        first.charge(run="run", round=9, hospital="h", broadcast="f" * 64, spend=SPEND)
    assert [e.round for e in first.entries] == [0, 9]


def test_another_spend_for_a_charged_round_is_refused(tmp_path: Path) -> None:
    ledger = fill(tmp_path / "h.jsonl")
    with pytest.raises(RepeatedRoundError, match="spend"):
        ledger.charge(run="run", round=0, hospital='St "Éloi"\n/', broadcast=A, spend=Spend(0.9, 0.1, 5))
    for broadcast in ("A" * 64, "a" * 63):
        with pytest.raises(ValueError, match="broadcast"):
            ledger.charge(run="run", round=5, hospital="h", broadcast=broadcast, spend=SPEND)
    assert len(ledger.entries) == 3


def test_a_shortened_file_is_noticed_by_whoever_had_it_open(tmp_path: Path) -> None:
    ledger = fill(tmp_path / "h.jsonl")
    ledger.path.write_bytes(b"".join(ledger.path.read_bytes().splitlines(keepends=True)[:2]))
    with pytest.raises(LedgerError, match="shorter"):
        ledger.charge(run="run", round=7, hospital="h", broadcast=A, spend=SPEND)
