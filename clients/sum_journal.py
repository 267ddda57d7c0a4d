"""What a hospital bound itself to in a secure sum, on disk: of each round one list of keys, sharers and survivors."""

from pathlib import Path
from typing import final

from clients.site import RefusalError, ledger_file
from privacy import Ledger, RepeatedRoundError

FOLDER = "secure-sum"


@final
class SumJournal:
    """The first answer of a round binds; the same again is allowed, another is refused.

    Two masked vectors over different peers, or shares for two lists of survivors, would give single releases away.
    The file is a ledger's (append-only, locked, chained), beside the hospital's own ledger.
    """

    def __init__(self, ledgers: Path, hospital: str, run: str, round_number: int) -> None:
        self._path = ledger_file(ledgers / FOLDER, hospital)
        self._hospital = hospital
        self._run = run
        self._round = round_number

    def bind(self, what: str, digest: bytes) -> None:
        """Write down what the hospital binds itself to.

        Raises:
            RefusalError: if it bound itself to something else.
        """
        try:
            Ledger.open(self._path).charge(
                run=f"{self._run}/{what}",
                round=self._round,
                hospital=self._hospital,
                broadcast=digest.hex(),
                spend=None,
            )
        except RepeatedRoundError as error:
            raise RefusalError(f"round {self._round} was answered for other {what}; twice would unmask it") from error

    def check(self, what: str, digest: bytes, *, needed: bool) -> None:
        """Refuse what contradicts an earlier answer of the round, or (`needed`) what was never answered."""
        found = Ledger.open(self._path).find(f"{self._run}/{what}", self._round)
        if found is None and needed:
            raise RefusalError(f"round {self._round} was not answered for these {what}")
        if found is not None and found.broadcast != digest.hex():
            raise RefusalError(f"round {self._round} was answered for other {what}; twice would unmask it")
