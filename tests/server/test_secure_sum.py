"""The whole protocol over a network that loses and bends messages: the sum is exact, or there is none."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from clients.broadcast import broadcast_digest as digest_at_the_hospital
from clients.round_keys import directory
from clients.secure_sum import Party, Summand
from clients.site import RefusalError
from clients.sum_terms import SumTerms
from privacy.fixed_point import agreed_exponent, decoded
from server.secure_sum import SecureSum, SumRound, broadcast_digest
from simulation.engines.grid import FIRST_NODE, LocalGrid
from simulation.engines.inline import InlineDispatcher

NAMES = ("a", "b", "c", "d", "e")
PHASES = ("query.advertise", "query.share", "train.mask", "query.agree", "query.unmask")
WEIGHTS = {"a": 1.0, "b": 7.0, "c": 3.0, "d": 20.0, "e": 5.0}
LAYOUT = '[["core.w", [3, 2]], ["wide.v", [4]]]'
BOUND = 5.0

Bend = Callable[[str, str, ConfigRecord], None]


def release(name: str) -> np.ndarray:
    return np.random.default_rng(ord(name)).standard_normal(10)


class Network:
    """Hospitals without data behind messages; `gone` holds (phase, hospital) that no longer answer."""

    def __init__(
        self, folder: Path, gone: Iterable[tuple[str, str]] = (), bend: Bend | None = None, words: int = 1
    ) -> None:
        LocalGrid(InlineDispatcher(), len(NAMES), folder / "none.json")  # Message() wants Flower's identities set
        self.folder = folder
        self.gone = set(gone)
        self.bend = bend
        self.words = words
        self.refusals: list[tuple[str, str]] = []
        self.replies: list[RecordDict] = []
        self.broadcasts = {name: self._broadcast(FIRST_NODE + i, name) for i, name in enumerate(NAMES)}
        self.round = SumRound(
            self.broadcasts,
            self.ask,
            self.threshold,
            lambda who, why: self.refusals.append((who, why)),
            folder / "kept.json",
        )

    @staticmethod
    def threshold(taking_part: int) -> int:
        return max(3, 2 * taking_part // 3 + 1)

    def _broadcast(self, node: int, name: str) -> Message:
        # Weights differ by hospital, as an adversary's may.
        weights = ArrayRecord({"w": Array(np.full(2, ord(name), np.float32)), "a": Array(np.zeros(1, np.float32))})
        order = ConfigRecord({"round": 3, "spec": "{}"})
        return Message(RecordDict({"order": order, "weights": weights}), dst_node_id=node, message_type="train")

    def ask(self, messages: Iterable[Message]) -> Iterator[Message]:
        for message in messages:
            metadata = message.metadata
            name, phase = NAMES[metadata.dst_node_id - FIRST_NODE], metadata.message_type
            later = PHASES[: PHASES.index(phase) + 1]
            if any((earlier, name) in self.gone for earlier in later):
                continue
            record = ConfigRecord({"hospital": name, "round": 3})
            order = cast(ConfigRecord, message.content["order"])
            if self.bend is not None:
                self.bend(phase, name, order)
            content = RecordDict({"reply": record})
            try:
                self.answer(phase, name, message, order, content)
            except RefusalError as refusal:
                record["declined"] = str(refusal)
            metadata.__dict__["_message_id"] = f"{phase}/{name}"
            self.replies.append(content)
            yield Message(content, reply_to=message)

    def answer(self, phase: str, name: str, message: Message, order: Any, content: RecordDict) -> None:
        party = Party(
            hospital=name,
            root="r",
            run="run",
            data="data",
            directory=directory("r", NAMES),
            threshold=self.threshold,
            terms=SumTerms(WEIGHTS[name], BOUND * WEIGHTS[name], 2.0**-40, self.words),
            journal=self.folder,
        )
        one, record = Summand(party, 3, order["broadcast"]), cast(ConfigRecord, content["reply"])
        if phase == "query.advertise":
            record["card"] = one.advertise().to_json()
            return
        peers = one.peers(order["cards"])
        if phase == "query.share":
            letters = one.share(peers)
            record.update({"to": list(letters), "letters": list(letters.values())})
        elif phase == "train.mask":
            weights = {n: a.numpy() for n, a in cast(ArrayRecord, message.content["weights"]).items()}
            assert digest_at_the_hospital(3, order["spec"], weights) == order["broadcast"]
            masked = one.mask(peers, order["sharers"], release(name))
            record.update({"layout": LAYOUT, "exponent": one.exponent(peers), "seed": one.commitment(peers)})
            content["masked"] = ArrayRecord({"masked": Array(masked)})
        elif phase == "query.agree":
            record["signature"] = one.agree(peers, order["sharers"], order["survivors"])
        else:
            signatures = dict(zip(order["signers"], order["signatures"], strict=True))
            letters = dict(zip(order["sharers"], order["letters"], strict=True))
            shares = one.unmask(peers, order["sharers"], order["survivors"], signatures, letters)
            record.update({"of": list(shares), "shares": list(shares.values())})


def unit_of(taking_part: Iterable[str], words: int = 1) -> int:
    return agreed_exponent([BOUND * WEIGHTS[n] for n in taking_part], words)


def expected(survivors: Iterable[str], taking_part: Iterable[str], words: int = 1) -> np.ndarray:
    """Exact rational arithmetic: each weighted release rounded to the agreed unit, then added."""
    unit = Fraction(2) ** unit_of(taking_part, words)
    total = [Fraction(0)] * 10
    for name in survivors:
        for i, value in enumerate(release(name) * WEIGHTS[name]):
            total[i] += round(Fraction(float(value)) / unit) * unit
    return np.array([float(value) for value in total])


def flat(summed: SecureSum) -> np.ndarray:
    return np.concatenate([summed.total["core.w"].ravel(), summed.total["wide.v"]])


# Every way in which one hospital drops out, and every way in which two do.
ONE = [[(phase, "b")] for phase in PHASES]
TWO = [[(p, "a"), (q, "d")] for p, q in itertools.product(PHASES, PHASES)]


@pytest.mark.parametrize("gone", [[], *ONE, *TWO], ids=lambda gone: ",".join(f"{n}-{p[6:]}" for p, n in gone) or "all")
def test_the_sum_is_the_plain_sum_to_the_unit_or_the_round_is_void(tmp_path: Path, gone: list) -> None:
    network = Network(tmp_path, gone)
    summed = network.round.run()
    away = {name: phase for phase, name in gone}
    taking_part = [n for n in NAMES if away.get(n) != "query.advertise"]
    inside = [n for n in NAMES if away.get(n) not in ("query.advertise", "query.share", "train.mask")]
    answering = [n for n in NAMES if n not in away]
    needed = {5: 4, 4: 3, 3: 3}[len(taking_part)]
    assert summed.needed == needed
    if len(answering) < needed:
        assert summed.hospitals == ()
        assert summed.total == {}
        assert summed.left < needed
        return
    assert summed.hospitals == tuple(inside)
    assert np.array_equal(flat(summed), expected(inside, taking_part))
    # and that is the sum of the releases themselves, up to half a unit each
    unit = 2.0 ** unit_of(taking_part)
    plain = sum(release(n) * WEIGHTS[n] for n in inside)
    assert np.abs(flat(summed) - plain).max() <= len(inside) * unit / 2 + 1e-13


@pytest.mark.parametrize("gone", [[], [("train.mask", "c")]])
def test_two_words_a_number_are_summed_as_exactly(tmp_path: Path, gone: list) -> None:
    summed = Network(tmp_path, gone, words=2).round.run()
    inside = [n for n in NAMES if ("train.mask", n) not in gone]
    assert summed.hospitals == tuple(inside)
    assert np.allclose(flat(summed), expected(inside, NAMES, words=2), rtol=2**-52, atol=0)


@pytest.mark.parametrize(
    ("first", "then", "inside"),
    [
        # a void round, then others answer than before: the lists that hospitals bound themselves to stay
        ([("query.advertise", "a"), ("query.agree", "b"), ("query.agree", "c")], [], "bcde"),
        ([("query.share", "a"), ("query.agree", "b"), ("query.agree", "c")], [("query.advertise", "e")], ""),
        ([("query.share", "a"), ("train.mask", "b"), ("train.mask", "c")], [], "bcde"),
        ([("train.mask", "a"), ("query.unmask", "b")], [], "bcde"),
        ([("train.mask", "a"), ("query.unmask", "b")], [("train.mask", "e")], ""),
    ],
)
def test_a_round_that_was_cut_short_goes_on_with_whom_it_began(
    tmp_path: Path, first: list, then: list, inside: str
) -> None:
    assert Network(tmp_path, first).round.run().hospitals == ()
    again = Network(tmp_path, then)
    summed = again.round.run()
    assert summed.hospitals == tuple(inside)
    if inside:
        taking_part = [n for n in NAMES if ("query.advertise", n) not in first]
        assert np.array_equal(flat(summed), expected(inside, taking_part))
    else:
        assert "waits for hospitals" in again.refusals[-1][1]
    assert Network(tmp_path).round.run().hospitals == tuple(inside or "bcde")


def arrays_of(value: object, depth: int = 0) -> Iterator[object]:
    """Every array, number and byte string that hangs on an object."""
    if depth > 6:
        return
    if isinstance(value, (np.ndarray, bytes, str)):
        yield value
    elif isinstance(value, dict):
        for inner in itertools.chain(value, value.values()):
            yield from arrays_of(inner, depth + 1)
    elif isinstance(value, (list, tuple, set)):
        for inner in value:
            yield from arrays_of(inner, depth + 1)
    elif isinstance(value, (Message, RecordDict, ArrayRecord)) or hasattr(value, "__dict__"):
        yield from arrays_of(vars(value), depth + 1)


def test_the_server_holds_the_sum_and_no_single_release(tmp_path: Path) -> None:
    network = Network(tmp_path, [("query.agree", "b")])
    summed = network.round.run()
    assert summed.hospitals == NAMES
    # The closures lead back to the hospitals of this test, which a server has not.
    held = {k: v for k, v in vars(network.round).items() if k not in ("_ask", "_threshold", "_declined")}
    arrays = [v for v in arrays_of(held) if isinstance(v, np.ndarray) and v.size == 10]
    assert len(arrays) == 1  # the running sum
    assert np.array_equal(decoded(arrays[0], unit_of(NAMES)), flat(summed))
    unit = unit_of(NAMES)
    texts = [v for v in arrays_of(held) if isinstance(v, bytes)]
    assert texts
    for name in NAMES:
        alone = release(name) * WEIGHTS[name]
        assert not np.isclose(flat(summed), alone).any()
        bare = np.rint(np.ldexp(alone, -unit)).astype(np.int64).tobytes()
        assert not any(bare[:8] in v or release(name).tobytes()[:8] in v for v in texts)


def test_masked_releases_add_up_to_noise_until_they_are_opened(tmp_path: Path) -> None:
    network = Network(tmp_path, [("query.unmask", "a"), ("query.unmask", "b")])  # one share too few: never opened
    assert network.round.run().hospitals == ()
    (total,) = [v for v in arrays_of(vars(network.round)["_total"]) if isinstance(v, np.ndarray)]
    seen = decoded(total, unit_of(NAMES))
    plain = sum(release(n) * WEIGHTS[n] for n in NAMES)
    assert np.abs(seen - plain).min() > 1e-6  # of a range of 180


def test_a_server_that_swaps_keys_or_invents_a_hospital_is_refused_by_all(tmp_path: Path) -> None:
    def swap(phase: str, name: str, order: ConfigRecord) -> None:
        if phase == "query.share":
            cards = [json.loads(card) for card in cast("list[str]", order["cards"])]
            cards[0]["mask_key"] = cards[1]["share_key"]
            order["cards"] = [json.dumps(card, sort_keys=True) for card in cards]

    network = Network(tmp_path / "swapped", bend=swap)
    assert network.round.run().hospitals == ()
    assert [why for _, why in network.refusals] == ["the keys of hospital 'a' are not signed by it"] * 5

    def invent(phase: str, name: str, order: ConfigRecord) -> None:
        if phase == "query.share":
            cards = cast("list[str]", order["cards"])
            cards.append(cards[0].replace('"hospital": "a"', '"hospital": "sybil"'))

    network = Network(tmp_path / "invented", bend=invent)
    assert network.round.run().hospitals == ()
    assert [why for _, why in network.refusals] == ["hospital 'sybil' is not one of the federation"] * 5


def test_two_lists_of_survivors_open_nothing(tmp_path: Path) -> None:
    """The server tells some hospitals that `e` dropped out, to get both of its secrets."""

    def lie(phase: str, name: str, order: ConfigRecord) -> None:
        if phase in ("query.agree", "query.unmask") and name in "ab":
            order["survivors"] = ["a", "b", "c", "d"]

    network = Network(tmp_path, bend=lie)
    assert network.round.run().hospitals == ()
    opened = [r for r in network.replies if "shares" in cast(ConfigRecord, r["reply"])]
    assert not opened
    assert any("signed the list of survivors, 4 are needed" in why for _, why in network.refusals)


@pytest.mark.parametrize("what", ["layout", "short", "seed", "share"])
def test_bent_replies_are_left_out_or_void_the_round(tmp_path: Path, what: str) -> None:
    network = Network(tmp_path)
    honest = network.answer

    def bent(phase: str, name: str, message: Message, order: Any, content: RecordDict) -> None:
        honest(phase, name, message, order, content)
        record = cast(ConfigRecord, content["reply"])
        if name == "b" and phase == "train.mask":
            if what == "layout":
                record["layout"] = '[["core.w", [10]]]'
            elif what == "short":
                content["masked"] = ArrayRecord({"masked": Array(np.zeros((1, 9), np.uint64))})
            elif what == "seed":
                record["seed"] = "0" * 64
        if name == "b" and phase == "query.unmask" and what == "share":
            record["shares"] = [bytes(s[:4]) + bytes(len(s) - 4) for s in cast("list[bytes]", record["shares"])]

    network.answer = bent  # type: ignore[method-assign]
    summed = network.round.run()
    if what in ("layout", "short"):
        assert summed.hospitals == ("a", "c", "d", "e")
        assert np.array_equal(flat(summed), expected("acde", NAMES))
        assert any(who == "b" and "rejected" in why for who, why in network.refusals)
    else:
        assert summed.hospitals == ()
        assert network.refusals[-1][0] == "the sum"


def test_both_sides_know_a_broadcast_by_the_same_name(tmp_path: Path) -> None:
    message = Network(tmp_path).broadcasts["c"]
    weights = {n: a.numpy() for n, a in cast(ArrayRecord, message.content["weights"]).items()}
    assert broadcast_digest(message) == digest_at_the_hospital(3, "{}", weights)
    assert broadcast_digest(message) != broadcast_digest(Network(tmp_path).broadcasts["d"])
