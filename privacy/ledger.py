"""A hospital's ledger: what it released, written before it leaves.

One JSON line per charged round, each holding the digest of the line before it, so that a missing, altered
or moved line is noticed. The chain shows damage, not malice: who can rewrite the whole file can rewrite
its digests; keep the last digest elsewhere to notice that too.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import math
import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, final

from privacy import checks
from privacy.accounting import Epsilon, compose
from privacy.release import Spend

GENESIS = "0" * 64
"""``previous`` of the first line."""


class LedgerError(Exception):
    """A ledger that cannot be believed, or a charge that it refuses. Names the file, and the line if any."""


@final
class BudgetExhaustedError(Exception):
    """A charge would go beyond the planned number of noisy steps; nothing was charged."""


class RepeatedRoundError(LedgerError):
    """A round that was charged already is asked for again with another broadcast or another spend.

    Refused because the difference of two releases of one round cancels the noise.
    """


@final
@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One charged round. ``broadcast`` is the sha256 (hex) of what the server sent.

    ``spend`` None is an unprotected release: recorded, claiming nothing. ``previous`` and ``digest`` chain
    the lines: digest = sha256 of the line's other fields as canonical JSON.
    """

    run: str
    round: int
    hospital: str
    broadcast: str
    spend: Spend | None
    previous: str
    digest: str


def _digest(fields: dict[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _fields(run: str, round: int, hospital: str, broadcast: str, spend: Spend | None, previous: str) -> dict[str, Any]:
    return {
        "run": run,
        "round": round,
        "hospital": hospital,
        "broadcast": broadcast,
        "spend": None if spend is None else dataclasses.asdict(spend),
        "previous": previous,
    }


def _parsed(line: bytes, previous: str, where: str) -> LedgerEntry:
    """Return the entry of a complete line that continues the chain. Raises ``LedgerError`` at ``where``."""
    try:
        fields = json.loads(line)
        digest = fields.pop("digest")
        spend = fields["spend"]
        entry = LedgerEntry(
            run=fields["run"],
            round=fields["round"],
            hospital=fields["hospital"],
            broadcast=fields["broadcast"],
            spend=None if spend is None else Spend(**spend),
            previous=fields["previous"],
            digest=digest,
        )
        expected = _digest(fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LedgerError(f"{where}: not a ledger line ({error})") from error
    if entry.previous != previous:
        raise LedgerError(f"{where}: does not continue the line before it; a line is missing or moved")
    if digest != expected:
        raise LedgerError(f"{where}: altered, its digest does not match")
    return entry


def _complete_lines(data: bytes) -> tuple[list[bytes], bytes]:
    """Split into complete lines and a torn rest (empty if none)."""
    *lines, rest = data.split(b"\n")
    return lines, rest


def verify(path: str | os.PathLike[str]) -> tuple[LedgerEntry, ...]:
    """Return the entries of a ledger file without touching it.

    Raises ``LedgerError`` naming file and line at the first line that was altered, removed, moved or torn.
    """
    file = Path(path)
    lines, rest = _complete_lines(file.read_bytes())
    entries = _chain(lines, file, GENESIS, 1)
    if rest:
        raise LedgerError(f"{file}, line {len(lines) + 1}: torn, it was not written to its end")
    return tuple(entries)


def _chain(lines: list[bytes], file: Path, previous: str, first: int) -> list[LedgerEntry]:
    entries: list[LedgerEntry] = []
    for number, line in enumerate(lines, first):
        entries.append(_parsed(line, previous, f"{file}, line {number}"))
        previous = entries[-1].digest
    return entries


@final
class Ledger:
    """Append-only history of one hospital, kept in a file. Open it with ``Ledger.open``.

    Several processes may hold one file: every charge takes an exclusive lock and reads what others
    appended. ``repaired`` says that a torn last line was moved aside to ``<file>.torn``: its charge had not
    returned, so its release had not left.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: list[LedgerEntry] = []
        self._rounds: dict[tuple[str, int], LedgerEntry] = {}
        self._read = 0
        self.repaired = False

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Ledger":
        """Open or start a ledger; folders are made. Raises ``LedgerError`` where the chain is broken."""
        ledger = cls(Path(path))
        ledger._path.parent.mkdir(parents=True, exist_ok=True)
        with ledger._locked() as file:
            ledger._catch_up(file)
        return ledger

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def entries(self) -> tuple[LedgerEntry, ...]:
        """Every charged round known to this object, oldest first."""
        return tuple(self._entries)

    def find(self, run: str, round: int) -> LedgerEntry | None:
        """Return the entry of a round, or None."""
        return self._rounds.get((run, round))

    def charge(
        self,
        *,
        run: str,
        round: int,
        hospital: str,
        broadcast: str,
        spend: Spend | None,
        most_steps: int | None = None,
    ) -> bool:
        """Charge a round before its release leaves; the line is on disk when this returns.

        True: newly charged. False: this round was charged for the same broadcast and spend, so the very
        same release may be made again. Raises ``RepeatedRoundError`` where it was charged for another
        broadcast or spend, ``BudgetExhaustedError`` where the ledger, all runs together, would hold more than
        ``most_steps`` noisy steps, ``ValueError`` for a wrong argument, ``LedgerError`` for a broken chain.
        """
        checks.whole("round", round, low=0)
        if len(broadcast) != 64 or not set(broadcast) <= set("0123456789abcdef"):
            raise ValueError(f"broadcast must be a sha256 in lower-case hex, not {broadcast!r}")
        with self._locked() as file:
            self._catch_up(file)
            known = self.find(run, round)
            if known is None:
                asked, spent = (spend.steps if spend else 0), self.steps()
                if most_steps is not None and spent + asked > most_steps:
                    raise BudgetExhaustedError(
                        f"{spent} of {most_steps} priced steps are spent and this round asks {asked}"
                    )
                previous = self._entries[-1].digest if self._entries else GENESIS
                self._append(file, _fields(run, round, hospital, broadcast, spend, previous))
                return True
        if (known.hospital, known.broadcast, known.spend) == (hospital, broadcast, spend):
            return False
        what = "broadcast" if known.broadcast != broadcast else "spend or hospital"
        raise RepeatedRoundError(
            f"{self._path}: round {round} of run {run!r} was charged for another {what}; "
            "releasing it again would cancel the noise"
        )

    def spends(self) -> tuple[Spend, ...]:
        """Every protected spend, oldest first. Unprotected releases are left out: see ``price``."""
        return tuple(entry.spend for entry in self._entries if entry.spend is not None)

    def steps(self, run: str | None = None) -> int:
        """Noisy steps charged, in one run or in all."""
        chosen = (e.spend for e in self._entries if run is None or e.run == run)
        return sum(spend.steps for spend in chosen if spend is not None)

    def price(self, delta: float, records: int = 1) -> Epsilon:
        """Price the whole history at ``delta``; inf, method ``none``, once anything left unprotected.

        ``records`` above 1 prices a unit of so many images, each drawn and clipped by itself.
        """
        if any(entry.spend is None for entry in self._entries):
            checks.probability(delta)
            return Epsilon(math.inf, math.inf, math.inf, "none", math.inf)
        return compose(self.spends(), delta=delta, records=records)

    @contextlib.contextmanager
    def _locked(self) -> Generator[BinaryIO, None, None]:
        fresh = not self._path.exists()
        with self._path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if fresh:
                _sync_folder(self._path.parent)
            yield file

    def _catch_up(self, file: BinaryIO) -> None:
        """Read what was appended since the last look, under the lock; move a torn last line aside."""
        size = file.seek(0, os.SEEK_END)
        if size < self._read:
            raise LedgerError(f"{self._path}: shorter than before; lines were removed")
        file.seek(self._read)
        lines, rest = _complete_lines(file.read())
        previous = self._entries[-1].digest if self._entries else GENESIS
        for entry in _chain(lines, self._path, previous, len(self._entries) + 1):
            if (entry.run, entry.round) in self._rounds:
                raise LedgerError(
                    f"{self._path}, line {len(self._entries) + 1}: round {entry.round} of run "
                    f"{entry.run!r} is charged twice"
                )
            self._remember(entry)
        self._read = size - len(rest)
        if rest:
            with Path(f"{self._path}.torn").open("ab") as aside:
                aside.write(rest + b"\n")
            file.truncate(self._read)
            os.fsync(file.fileno())
            self.repaired = True

    def _append(self, file: BinaryIO, fields: dict[str, Any]) -> None:
        digest = _digest(fields)
        line = json.dumps({**fields, "digest": digest}, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
        self._read += len(line)
        self._remember(_parsed(line, fields["previous"], str(self._path)))

    def _remember(self, entry: LedgerEntry) -> None:
        self._entries.append(entry)
        self._rounds[entry.run, entry.round] = entry


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
