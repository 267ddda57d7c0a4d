"""Spends, releases and the finer points of a ledger."""

import math
from pathlib import Path

import numpy as np
import pytest

import privacy
from privacy import Ledger, LedgerError, Release, RepeatedRoundError, Spend
from privacy.ledger import verify

A = "0123456789abcdef" * 4
SPEND = Spend(0.8, 0.1, 5)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("noise_multiplier", (-1.0, 0.1, 1)),
        ("noise_multiplier", (math.inf, 0.1, 1)),
        ("noise_multiplier", ("1", 0.1, 1)),
        ("sample_rate", (1.0, 0.0, 1)),
        ("sample_rate", (1.0, math.nan, 1)),
        ("steps", (1.0, 0.1, 0)),
        ("steps", (1.0, 0.1, True)),
        ("steps", (1.0, 0.1, 2.0)),
    ],
)
def test_a_wrong_spend_is_named(name: str, values: tuple) -> None:
    with pytest.raises(ValueError, match=name):
        Spend(*values)


def test_a_release_owns_its_arrays_in_double_precision() -> None:
    mine = np.ones(3)
    release = Release({"weight": mine}, records=10, spend=SPEND)
    mine[0] = 7.0
    assert release.arrays["weight"].tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="read-only"):
        release.arrays["weight"][0] = 2.0
    with pytest.raises(ValueError, match="float64"):
        Release({"weight": np.ones(3, dtype=np.float32)}, records=10, spend=SPEND)
    with pytest.raises(ValueError, match="records"):
        Release({}, records=0, spend=None)


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


def test_a_torn_line_is_reported_and_kept_aside(tmp_path: Path) -> None:
    path = fill(tmp_path / "h.jsonl").path
    assert Ledger.open(path).repaired is False
    with path.open("ab") as file:
        file.write(b'{"run": "run", "rou')
    with pytest.raises(LedgerError, match=r"line 4: torn"):
        verify(path)
    assert Ledger.open(path).repaired is True
    assert (tmp_path / "h.jsonl.torn").read_bytes() == b'{"run": "run", "rou\n'
    assert len(verify(path)) == 3


def test_damage_is_named_by_line_and_a_shortened_file_is_noticed(tmp_path: Path) -> None:
    ledger = fill(tmp_path / "h.jsonl")
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(lines[0] + lines[1].replace(b'"steps": 5', b'"steps": 1') + lines[2])
    with pytest.raises(LedgerError, match=r"h\.jsonl, line 2: altered"):
        verify(ledger.path)
    ledger.path.write_bytes(b"".join(lines[:2]))
    with pytest.raises(LedgerError, match="shorter"):
        ledger.charge(run="run", round=7, hospital="h", broadcast=A, spend=SPEND)
