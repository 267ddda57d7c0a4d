"""What a server keeps of a secure sum so that a round that was cut short can go on: who takes part.

No masked value is kept. Hospitals bind themselves to one list of peers and one of survivors a round; a server that came
back and asked other ones would be refused for ever. Letters are kept as they came, encrypted for hospitals.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import final


@final
@dataclass(frozen=True)
class Transcript:
    """A round as far as it got.

    Attributes:
        round: from 1.
        broadcasts: sha256 of the broadcast, by hospital.
        cards: advertisements by hospital, as JSON.
        letters: encrypted shares by sender and addressee.
        survivors: whose masked releases arrived; empty until that is settled.
    """

    round: int
    broadcasts: dict[str, str]
    cards: dict[str, str]
    letters: dict[str, dict[str, bytes]]
    survivors: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """Write the transcript, whole or not at all; the next round's replaces it."""
        content = {
            "round": self.round,
            "broadcasts": self.broadcasts,
            "cards": self.cards,
            "letters": {s: {a: text.hex() for a, text in sent.items()} for s, sent in self.letters.items()},
            "survivors": list(self.survivors),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    @staticmethod
    def load(path: Path, round_number: int, broadcasts: dict[str, str]) -> "Transcript | None":
        """Read the transcript of this round and these broadcasts; None if there is none of them."""
        if not path.is_file():
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        if (content["round"], content["broadcasts"]) != (round_number, broadcasts):
            return None
        letters = {s: {a: bytes.fromhex(text) for a, text in sent.items()} for s, sent in content["letters"].items()}
        return Transcript(round_number, broadcasts, content["cards"], letters, tuple(content["survivors"]))
