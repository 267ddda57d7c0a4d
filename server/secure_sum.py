"""The server's side of the secure sum: five phases of messages within a round, and nothing but their sum at the end.

Masked releases are added up in fixed point as they arrive and are not kept. `docs/secure-sum.md` describes the
protocol; `clients/secure_sum.py` is its other end.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, final

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray

from privacy.fixed_point import Words, add, decoded
from server.sum_transcript import Transcript
from server.unmasking import (
    UnmaskingError,
    context_of,
    mask_key,
    mask_seed,
    take_off_pair,
    take_off_seed,
)

Ask = Callable[[Iterable[Message]], Iterator[Message]]
Note = Callable[[str, str], None]
Order = dict[str, Any]


@final
@dataclass(frozen=True)
class SecureSum:
    """What comes out of a round.

    Attributes:
        hospitals: whose weighted releases are inside, by name; empty if the round is void.
        total: their sum, float64 by parameter name.
        left: how many hospitals answered the last phase that was reached.
        needed: how many would have had to.
    """

    hospitals: tuple[str, ...]
    total: dict[str, NDArray[np.float64]]
    left: int
    needed: int


def broadcast_digest(message: Message) -> str:
    """Return the sha256 under which a hospital will know a broadcast (`clients/broadcast.py`)."""
    order = cast(ConfigRecord, message.content["order"])
    weights = cast(ArrayRecord, message.content["weights"])
    found = hashlib.sha256(f"{order['round']}\n{order['spec']}\n".encode())
    for name in sorted(weights):
        value = np.ascontiguousarray(weights[name].numpy())
        found.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        found.update(value.tobytes())
    return found.hexdigest()


@final
class SumRound:
    """One round of a secure sum. Call :meth:`run` once.

    Guarantee: no attribute ever holds a release; a masked one is added to the running sum and let go. The masks come
    off only if at least `threshold` hospitals send shares, each for one list of survivors.
    Edge cases: hospitals may drop out between any two phases; with fewer than the threshold left the round is void.
    """

    def __init__(
        self,
        broadcasts: Mapping[str, Message],
        ask: Ask,
        threshold: Callable[[int], int],
        declined: Note,
        transcript: Path | None = None,
    ) -> None:
        """Take a round's messages.

        Args:
            broadcasts: by hospital, with round, specification and weights.
            ask: sends messages and yields the replies.
            threshold: (hospitals that take part) -> the fewest that may be summed.
            declined: told (hospital, reason) of every hospital that declines a phase.
            transcript: file in which the round is kept so that a server that dies can go on with it.
        """
        self._broadcasts = broadcasts
        self._ask = ask
        self._threshold = threshold
        self._declined = declined
        self._path = transcript
        self._kept: Transcript | None = None
        self._hospitals = {message.metadata.dst_node_id: name for name, message in broadcasts.items()}
        self._digests: dict[str, str] = {}
        self._cards: dict[str, str] = {}
        self._letters: dict[str, dict[str, bytes]] = {}  # by sender, then by addressee
        self._commitments: dict[str, str] = {}
        self._signatures: dict[str, bytes] = {}
        self._shares: dict[str, dict[str, bytes]] = {}  # by hospital, then by whose share it is
        self._total: Words | None = None
        self._layout: tuple[str, int] | None = None

    def run(self) -> SecureSum:
        """Go through the phases and return the sum; of no hospitals if too few are left."""
        needed = self._advertise()
        left = len(self._cards)
        for phase in (self._share, self._collect, self._agree, self._unmask):
            if left < needed:
                return SecureSum((), {}, left, needed)
            left = phase()
        try:
            total = self._open(needed) if left >= needed else {}
        except UnmaskingError as error:
            self._declined("the sum", f"rejected: {error}")
            total = {}
        return SecureSum(self._survivors if total else (), total, left, needed)

    @property
    def _sharers(self) -> list[str]:
        return sorted(self._letters)

    @property
    def _survivors(self) -> tuple[str, ...]:
        return tuple(sorted(self._commitments))

    def _advertise(self) -> int:
        """Collect the signed keys; returns how many hospitals the round needs."""
        for hospital, message in self._broadcasts.items():
            self._digests[hospital] = broadcast_digest(message)
        if self._path is not None:
            self._kept = Transcript.load(self._path, self._number, self._digests)
        if self._kept is not None:
            self._cards = self._kept.cards
            return self._threshold(len(self._cards))
        for hospital, record, _ in self._phase("query.advertise", self._digests, lambda _: {}):
            self._cards[hospital] = str(record["card"])
        self._cards = {name: self._cards[name] for name in sorted(self._cards)}
        return self._threshold(len(self._cards))

    def _share(self) -> int:
        """Collect encrypted shares; hospitals share for one list of keys a round, so it is written down before."""
        if self._kept is None:
            self._keep(())
        elif self._kept.letters:
            self._letters = self._kept.letters
            return len(self._letters)
        for hospital, record, _ in self._phase("query.share", self._cards, lambda _: self._known()):
            names, letters = cast("list[str]", record["to"]), cast("list[bytes]", record["letters"])
            if list(names) == list(self._cards) and len(letters) == len(names):
                self._letters[hospital] = dict(zip(names, letters, strict=True))
            else:
                self._declined(hospital, "rejected: shares for other hospitals than asked")
        return len(self._letters)

    def _collect(self) -> int:
        """Ask for the masked releases and add them up."""
        settled = self._kept.survivors if self._kept is not None else ()
        self._keep(settled)
        for hospital, record, reply in self._phase("train.mask", settled or self._letters, lambda _: self._known()):
            masked = cast(ArrayRecord, reply.content["masked"])["masked"].numpy()
            layout = (str(record["layout"]), int(cast(int, record["exponent"])))
            reason = self._misfit(masked, layout)
            if reason is not None:
                self._declined(hospital, f"rejected: {reason}")
                continue
            self._layout = layout
            self._total = np.zeros(masked.shape, np.uint64) if self._total is None else self._total
            add(self._total, masked)
            self._commitments[hospital] = str(record["seed"])
        if settled and self._survivors != settled:
            self._declined(
                "the sum", "waits for hospitals whose releases it was settled with before the server stopped"
            )
            return 0
        return len(self._commitments)

    def _keep(self, survivors: tuple[str, ...]) -> None:
        """Write down what hospitals are about to bind themselves to."""
        if self._path is not None:
            Transcript(self._number, self._digests, self._cards, self._letters, survivors).save(self._path)

    @property
    def _number(self) -> int:
        order = cast(ConfigRecord, next(iter(self._broadcasts.values())).content["order"])
        return int(cast(int, order["round"]))

    def _misfit(self, masked: NDArray[Any], layout: tuple[str, int]) -> str | None:
        size = sum(math.prod(shape) for _, shape in json.loads(layout[0]))
        if masked.dtype != np.uint64 or masked.shape not in ((1, size), (2, size)):
            return f"a masked release is {masked.dtype} {masked.shape} where uint64 (words, {size}) is expected"
        if self._total is not None and (layout, masked.shape) != (self._layout, self._total.shape):
            return "a masked release of other parameters, or in other units, than the others'"
        return None

    def _agree(self) -> int:
        """Ask every survivor to sign the list of survivors."""
        survivors = list(self._survivors)
        self._keep(self._survivors)
        for hospital, record, _ in self._phase(
            "query.agree", self._commitments, lambda _: self._known(survivors=survivors)
        ):
            self._signatures[hospital] = cast(bytes, record["signature"])
        return len(self._signatures)

    def _unmask(self) -> int:
        """Ask every hospital that signed for the shares that open the sum."""

        def order(hospital: str) -> Order:
            return self._known(
                survivors=list(self._survivors),
                signers=list(self._signatures),
                signatures=list(self._signatures.values()),
                letters=[self._letters[sender][hospital] for sender in self._sharers],
            )

        for hospital, record, _ in self._phase("query.unmask", self._signatures, order):
            names, pieces = cast("list[str]", record["of"]), cast("list[bytes]", record["shares"])
            if list(names) == self._sharers and len(pieces) == len(names):
                self._shares[hospital] = dict(zip(names, pieces, strict=True))
            else:
                self._declined(hospital, "rejected: shares of other hospitals than asked")
        return len(self._shares)

    def _open(self, needed: int) -> dict[str, NDArray[np.float64]]:
        """Take every mask off the sum and return it by name."""
        assert self._total is not None  # a survivor's release was added
        assert self._layout is not None
        cards = {name: json.loads(text) for name, text in self._cards.items()}
        context = context_of(list(cards.values()), self._sharers)
        for hospital in self._sharers:
            pieces = [share[hospital] for share in list(self._shares.values())[:needed]]
            if hospital in self._commitments:
                take_off_seed(self._total, mask_seed(pieces, self._commitments[hospital]), context)
                continue
            key = mask_key(pieces, cards[hospital]["mask_key"])
            for survivor in self._survivors:
                take_off_pair(self._total, hospital, key, survivor, cards[survivor]["mask_key"], context)
        return _by_name(decoded(self._total, self._layout[1]), self._layout[0])

    def _known(self, **more: object) -> Order:
        """Return what everybody is told about the round so far."""
        sharers = {"sharers": self._sharers} if self._letters else {}
        return {"cards": list(self._cards.values()), **sharers, **more}

    def _phase(
        self, kind: str, to: Iterable[str], order: Callable[[str], Order]
    ) -> Iterator[tuple[str, ConfigRecord, Message]]:
        """Send one phase's messages and yield (hospital, record, reply) of those that answer."""
        messages: list[Message] = []
        for hospital in sorted(to):
            sent = self._broadcasts[hospital]
            base = cast(ConfigRecord, sent.content["order"])
            content = RecordDict(
                {"order": ConfigRecord({**base, "broadcast": self._digests[hospital], **order(hospital)})}
            )
            if kind.startswith("train."):
                content["weights"] = sent.content["weights"]
            node, group = sent.metadata.dst_node_id, sent.metadata.group_id
            messages.append(Message(content, dst_node_id=node, message_type=kind, group_id=group))
        open_for = set(to)
        for reply in self._ask(messages):
            record = cast(ConfigRecord, reply.content["reply"])
            hospital = self._hospitals[reply.metadata.src_node_id]
            if "declined" in record:
                self._declined(hospital, str(record["declined"]))
            elif hospital not in open_for or str(record["hospital"]) != hospital:
                self._declined(hospital, "rejected: not asked, or a second answer to a phase")
            else:
                open_for.discard(hospital)
                yield hospital, record, reply


def _by_name(vector: NDArray[np.float64], layout: str) -> dict[str, NDArray[np.float64]]:
    named: dict[str, NDArray[np.float64]] = {}
    start = 0
    for name, shape in json.loads(layout):
        end = start + math.prod(shape)
        named[str(name)] = vector[start:end].reshape(shape)
        start = end
    return named
