"""CPU time of a secure round against a plain one, by model size and number of hospitals; nothing is trained.

    python benchmarks/secure_sum.py [--json] [--sizes 100000 1000000] [--hospitals 4 20] [--words 1 2] [--dropped 1]

A plain round adds the releases up exactly, as the server does without a secure sum. A secure round goes through all
five phases; `hospital_s` is one hospital's share of it (its slowest phase is masking), `server_s` is the server's. With
`--dropped` so many hospitals drop out after sharing their keys, the dearest moment: their masks come off one by one.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from clients.round_keys import directory
from clients.secure_sum import Party, Summand
from clients.sum_terms import SumTerms
from server.aggregation import FixedPointSum
from server.secure_sum import SumRound
from simulation.engines.grid import FIRST_NODE, LocalGrid
from simulation.engines.inline import InlineDispatcher

ROOT = "0" * 64


def threshold(taking_part: int) -> int:
    """Return the fewest hospitals that are summed."""
    return max(3, 2 * taking_part // 3 + 1)


class Hospitals:
    """Hospitals that answer the phases with a release of random numbers, and a clock on them."""

    def __init__(self, names: list[str], dropped: set[str], values: np.ndarray, words: int, folder: Path) -> None:
        self.names, self.dropped, self.values, self.folder = names, dropped, values, folder
        self.terms = SumTerms(1.0, 10.0, 1.0, words)
        self.known = directory(ROOT, names)
        self.seconds = 0.0

    def ask(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Answer a phase's messages."""
        for message in messages:
            name = self.names[message.metadata.dst_node_id - FIRST_NODE]
            phase = message.metadata.message_type
            if name in self.dropped and phase not in ("query.advertise", "query.share"):
                continue
            start = time.process_time()
            content = RecordDict({"reply": ConfigRecord({"hospital": name})})
            self.answer(phase, name, cast(Any, message.content["order"]), content)
            self.seconds += time.process_time() - start
            message.metadata.__dict__["_message_id"] = "m"
            yield Message(content, reply_to=message)

    def answer(self, phase: str, name: str, order: Any, content: RecordDict) -> None:
        """Fill in one answer."""
        party = Party(name, ROOT, "run", "data", self.known, threshold, self.terms, self.folder)
        one, record = Summand(party, 1, order["broadcast"]), cast(ConfigRecord, content["reply"])
        if phase == "query.advertise":
            record["card"] = one.advertise().to_json()
            return
        peers = one.peers(order["cards"])
        if phase == "query.share":
            letters = one.share(peers)
            record.update({"to": list(letters), "letters": list(letters.values())})
        elif phase == "train.mask":
            masked = one.mask(peers, order["sharers"], self.values)
            layout = json.dumps([["w", [len(self.values)]]])
            record.update({"layout": layout, "exponent": one.exponent(peers), "seed": one.commitment(peers)})
            content["masked"] = ArrayRecord({"masked": Array(masked)})
        elif phase == "query.agree":
            record["signature"] = one.agree(peers, order["sharers"], order["survivors"])
        else:
            signatures = dict(zip(order["signers"], order["signatures"], strict=True))
            letters = dict(zip(order["sharers"], order["letters"], strict=True))
            shares = one.unmask(peers, order["sharers"], order["survivors"], signatures, letters)
            record.update({"of": list(shares), "shares": list(shares.values())})


def measure(hospitals: int, size: int, words: int, dropped: int, folder: Path) -> dict[str, object]:
    """Return one row."""
    names = [f"h{i:03d}" for i in range(hospitals)]
    gone = set(names[:dropped])
    values = np.random.default_rng(0).standard_normal(size)
    start = time.process_time()
    total = FixedPointSum(size)
    for _ in range(hospitals - dropped):
        total.add(values)
    plain = total.total()
    plain_seconds = time.process_time() - start

    LocalGrid(InlineDispatcher(), hospitals, folder / "none.json")  # Message() wants Flower's identities set
    there = Hospitals(names, gone, values, words, folder)
    weights = ArrayRecord({"w": Array(np.zeros(size, np.float32))})
    order = ConfigRecord({"round": 1, "spec": "{}"})
    broadcasts = {
        name: Message(RecordDict({"order": order, "weights": weights}), FIRST_NODE + i, "train")
        for i, name in enumerate(names)
    }
    start = time.process_time()
    summed = SumRound(broadcasts, there.ask, threshold, print).run()
    seconds = time.process_time() - start
    return {
        "hospitals": hospitals,
        "dropped": dropped,
        "size": size,
        "words": words,
        "plain_s": round(plain_seconds, 3),
        "secure_s": round(seconds, 3),
        "hospital_s": round(there.seconds / hospitals, 3),
        "server_s": round(seconds - there.seconds, 3),
        "largest_difference": float(np.abs(summed.total["w"] - plain).max()),
    }


def main() -> None:
    """Print one row per number of hospitals, size and width."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON rows only")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--hospitals", type=int, nargs="+", default=[4, 20])
    parser.add_argument("--words", type=int, nargs="+", default=[1, 2], help="words of 64 bits a number")
    parser.add_argument("--dropped", type=int, default=1, help="hospitals that drop out after sharing their keys")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    for hospitals in options.hospitals:
        for size in options.sizes:
            for words in options.words:
                with tempfile.TemporaryDirectory() as folder:
                    rows.append(measure(hospitals, size, words, options.dropped, Path(folder)))
                if not options.json:
                    print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
