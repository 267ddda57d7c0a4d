"""A hospital's side of the secure sum: what it masks looks like noise, and what it must refuse it refuses."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from Crypto.Cipher import AES
from scipy import stats

from clients.masking import add_stream
from clients.planning import Plan
from clients.round_keys import Advertisement, directory, identity
from clients.secure_sum import Party, Summand
from clients.site import RefusalError
from clients.sum_terms import SumTerms, sum_terms
from configs.sections import PrivacySettings, TrainingSettings
from privacy.fixed_point import add, encoded
from server.unmasking import UnmaskingError, mask_key, mask_seed

ROOT, RUN, SENT = "r" * 64, "run", "5" * 64
NAMES = ("a", "b", "c", "d", "e")
SIZE = 20_000


def party(name: str, folder: Path, words: int = 1) -> Party:
    return Party(
        hospital=name,
        root=ROOT,
        run=RUN,
        data="data",
        directory=directory(ROOT, NAMES),
        threshold=lambda n: max(3, 2 * n // 3 + 1),
        terms=SumTerms(1.0, 8.0, 2.0**-40, words),
        journal=folder,
    )


def summand(name: str, folder: Path, round_number: int = 1, broadcast: str = SENT) -> Summand:
    """Made anew for every answer: a hospital keeps nothing in memory."""
    return Summand(party(name, folder), round_number, broadcast)


def cards(folder: Path, names: Sequence[str] = NAMES, round_number: int = 1) -> list[str]:
    return [summand(n, folder, round_number).advertise().to_json() for n in names]


def masked(name: str, folder: Path, values: np.ndarray, names: Sequence[str] = NAMES) -> np.ndarray:
    one = summand(name, folder)
    return one.mask(one.peers(cards(folder, names)), list(names), values)


# --- masks


@pytest.mark.parametrize("size", [0, 1, 2**14, 2**14 + 1, 100_003])
@pytest.mark.parametrize("words", [1, 2])
def test_masks_are_aes_in_counter_mode_by_another_library_and_come_off_again(size: int, words: int) -> None:
    key = bytes(range(32))
    start = np.arange(words * size, dtype=np.uint64).reshape(words, size)
    total = start.copy()
    add_stream(total, key)
    stream = AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=bytes(16)).encrypt(bytes(8 * words * size))
    blocks = [stream[i : i + 8 * words * 2**14] for i in range(0, len(stream), 8 * words * 2**14)]
    masks = [np.frombuffer(block, "<u8").reshape(words, -1) for block in blocks] or [start]
    expected = start.copy()
    add(expected, np.concatenate(masks, axis=1))
    assert np.array_equal(total, expected)
    add_stream(total, key, negative=True)
    assert np.array_equal(total, start)


# --- ranges, against the worst that the optimisers can do


PLAN = Plan("a", 30, 30, 0.2, 6.0, clipping_norm=1.5, noise_multiplier=2.0, added=2.0, steps=10, claims=True)


def test_the_range_of_a_gradient_sum_is_every_unit_at_the_clip_and_forty_standard_deviations() -> None:
    terms = sum_terms(PLAN, TrainingSettings(), PrivacySettings(clipping_norm=1.5))
    assert terms == SumTerms(1.0, 30 * 1.5 + 40 * 3.0, 3e-3)
    assert stats.norm.logsf(40.0) + np.log(2) < -349 * np.log(10)  # of one coordinate beyond it
    quiet = sum_terms(replace(PLAN, added=0.0), TrainingSettings(), PrivacySettings())
    assert quiet == SumTerms(1.0, 45.0, 1.5 * 2.0**-40)
    free = sum_terms(replace(PLAN, clipping_norm=None), TrainingSettings(), PrivacySettings(clipping_norm=1.5))
    assert free == SumTerms(1.0, 1.5 * 2.0**64 + 80.0, 2e-3, 2)


@pytest.mark.parametrize("kind", ["adam", "nadam"])
def test_no_gradients_take_adam_beyond_the_range(kind: str) -> None:
    rng = np.random.default_rng(0)
    steps, rate = 400, 0.1
    spikes = np.zeros((steps, 6))
    spikes[-1, 0] = 1e6  # nothing, then one gradient: the largest single step
    spikes[:, 1] = np.arange(steps) >= steps - 8
    spikes[:, 2] = 1.3 ** np.arange(steps)  # growing: each step is the largest so far
    spikes[:, 3] = 1.05 ** np.arange(steps)
    spikes[:, 4] = 1.0
    spikes[:, 5] = rng.standard_cauchy(steps)
    here = torch.nn.Parameter(torch.zeros(6, dtype=torch.float64))
    optimizer = {"adam": torch.optim.Adam, "nadam": torch.optim.NAdam}[kind]([here], lr=rate)
    largest = 0.0
    for gradient in spikes:
        before = here.detach().clone()
        here.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        largest = max(largest, float((here.detach() - before).abs().max()))
    terms = sum_terms(PLAN, TrainingSettings(local_steps=steps, optimizer=kind, learning_rate=rate), PrivacySettings())
    assert terms.weight == 30.0
    assert largest < terms.bound / (steps * terms.weight)
    assert largest > 2 * rate  # the bound is needed: a step may well be longer than the learning rate


@pytest.mark.parametrize("proximal", [0.0, 1.0, 25.0])
def test_no_gradients_take_sgd_beyond_the_range(proximal: float) -> None:
    training = TrainingSettings(local_steps=6, learning_rate=0.1, proximal=proximal)
    terms = sum_terms(PLAN, training, PrivacySettings(clipping_norm=1.5))
    reach = 30 * 1.5 + 40 * 3.0
    worst = 0.0
    for signs in np.ndindex(*[2] * 6):
        moved = 0.0
        for sign in signs:
            moved -= 0.1 * ((2 * sign - 1) * reach / 6.0 + proximal * moved)
        worst = max(worst, abs(moved))
    assert worst <= terms.bound / 30 * (1 + 1e-12)
    if proximal in (0.0, 25.0):
        assert worst == pytest.approx(terms.bound / 30)  # and it is reached


# --- what leaves


@pytest.mark.parametrize("value", [0.0, 3.0, -8.0])
@pytest.mark.parametrize("words", [1, 2])
def test_what_leaves_is_uniform_whatever_went_in(tmp_path: Path, value: float, words: int) -> None:
    one = Summand(party("b", tmp_path, words), 1, SENT)
    went = one.mask(one.peers(cards(tmp_path)), list(NAMES), np.full(SIZE, value))
    assert went.shape == (words, SIZE)
    seen = np.frombuffer(went.tobytes(), np.uint8)
    assert stats.chisquare(np.bincount(seen, minlength=256)).pvalue > 1e-3
    pairs = np.bincount(seen[:-1].astype(int) // 16 * 16 + seen[1:] // 16, minlength=256)
    assert stats.chisquare(pairs).pvalue > 1e-3
    bare = encoded(np.full(SIZE, value), 8.0, -56, 1)
    assert stats.chisquare(np.bincount(np.frombuffer(bare.tobytes(), np.uint8), minlength=256)).pvalue < 1e-9


def test_what_leaves_does_not_follow_what_went_in(tmp_path: Path) -> None:
    values = np.random.default_rng(1).uniform(-8, 8, SIZE)
    seen = masked("b", tmp_path, values)[0].view(np.int64).astype(float)
    assert stats.pearsonr(values, seen).pvalue > 1e-3
    high = (masked("b", tmp_path, values)[0] >> np.uint64(56)).astype(int)
    table = np.histogram2d(values, high, bins=(8, 16))[0]
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_a_retried_phase_gives_the_same_bytes_and_another_round_other_masks(tmp_path: Path) -> None:
    values = np.zeros(SIZE)
    assert masked("b", tmp_path, values).tobytes() == masked("b", tmp_path, values).tobytes()
    one = summand("b", tmp_path, 2)
    other = one.mask(one.peers(cards(tmp_path, round_number=2)), list(NAMES), values)
    assert not np.any(other == masked("b", tmp_path, values))
    sent = Summand(party("b", tmp_path / "elsewhere"), 1, "6" * 64)
    listed = [sent.advertise().to_json() if n == "b" else c for n, c in zip(NAMES, cards(tmp_path), strict=True)]
    assert not np.any(sent.mask(sent.peers(listed), list(NAMES), values) == masked("b", tmp_path, values))


# --- refusals


def swapped(text: str, **changes: object) -> str:
    return replace(Advertisement.from_json(text), **changes).to_json()  # type: ignore[arg-type]


def test_keys_that_are_not_the_peers_own_are_refused(tmp_path: Path) -> None:
    good = cards(tmp_path)
    other = Advertisement.from_json(cards(tmp_path, ("c",), 2)[0])
    stranger = Advertisement(RUN, 1, "mallory", SENT, other.mask_key, other.share_key, 8.0)
    forged = replace(Advertisement.from_json(good[2]), mask_key=other.mask_key).signed(identity("guess", "c"))
    lists = {
        "not signed by it": [*good[:2], swapped(good[2], mask_key=other.mask_key), *good[3:]],
        "keys of hospital 'c' are not signed": [*good[:2], forged.to_json(), *good[3:]],
        "'mallory' is not one of": [*good, stranger.signed(identity(ROOT, "mallory")).to_json()],
        "twice": [*good, good[2]],
        "another round or run": [*good[:2], other.to_json(), *good[3:]],
        "not hold this hospital's own": [good[0], *good[2:]],
        "is none": [*good[:2], "[]", *good[3:]],
        "is none ": [*good[:2], swapped(good[2], mask_key="00"), *good[3:]],
    }
    for says, listed in lists.items():
        with pytest.raises(RefusalError, match=says.strip()):
            summand("b", tmp_path).peers(listed)
    foreign = Summand(replace(party("c", tmp_path), run="another run"), 1, SENT).advertise().to_json()
    with pytest.raises(RefusalError, match="another round or run"):
        summand("b", tmp_path).peers([*good[:2], foreign, *good[3:]])


def test_too_few_are_refused_at_every_phase(tmp_path: Path) -> None:
    one = summand("b", tmp_path)
    with pytest.raises(RefusalError, match="over 2 hospitals, where 3"):
        one.peers(cards(tmp_path, NAMES[:2]))
    peers = one.peers(cards(tmp_path))
    assert peers.threshold == 4  # of five: more than two thirds
    with pytest.raises(RefusalError, match="over 3 hospitals, where 4"):
        one.mask(peers, list(NAMES[:3]), np.zeros(3))
    one.mask(peers, list(NAMES), np.zeros(3))
    with pytest.raises(RefusalError, match="3 hospitals are left to sum, where 4"):
        one.agree(peers, list(NAMES), list(NAMES[:3]))


def test_a_unit_too_coarse_for_the_noise_is_refused(tmp_path: Path) -> None:
    loud = replace(party("a", tmp_path), terms=SumTerms(1.0, 2.0**60, 1.0))
    listed = [Summand(loud, 1, SENT).advertise().to_json(), *cards(tmp_path)[1:]]
    with pytest.raises(RefusalError, match="too coarse"):
        summand("b", tmp_path).peers(listed)


def test_a_masked_round_is_never_masked_or_opened_for_others(tmp_path: Path) -> None:
    one = summand("b", tmp_path)
    peers, everybody = one.peers(cards(tmp_path)), list(NAMES)
    with pytest.raises(RefusalError, match="not answered for these peers"):
        one.agree(peers, everybody, everybody)
    one.mask(peers, everybody, np.zeros(3))
    again = summand("b", tmp_path)
    fewer = again.peers(cards(tmp_path, NAMES[:4]))
    for attempt in (
        lambda: again.admit(fewer, list(NAMES[:4])),
        lambda: again.mask(peers, list(NAMES[:4]), np.zeros(3)),
        lambda: again.agree(fewer, list(NAMES[:4]), list(NAMES[:4])),
    ):
        with pytest.raises(RefusalError, match=r"for other (cards|peers)"):
            attempt()
    one.agree(peers, everybody, list(NAMES[:4]))
    assert again.agree(peers, everybody, list(NAMES[:4])) == one.agree(peers, everybody, list(NAMES[:4]))
    with pytest.raises(RefusalError, match="for other survivors"):
        again.agree(peers, everybody, everybody)
    with pytest.raises(RefusalError, match="for other survivors"):
        again.unmask(peers, everybody, everybody, {}, {})
    with pytest.raises(RefusalError, match="not among the survivors"):
        again.agree(peers, everybody, ["a", "c", "d", "e"])
    with pytest.raises(RefusalError, match="not among the hospitals that shared"):
        again.agree(peers, everybody, [*everybody, "f"])


def test_shares_are_sent_for_one_list_of_keys_a_round(tmp_path: Path) -> None:
    """Else one list's survivors would open the mask seed, and another's, told of a dropout, the mask key: both."""
    one = summand("b", tmp_path)
    everybody = one.peers(cards(tmp_path))
    one.share(everybody)
    again = summand("b", tmp_path)
    again.share(again.peers(cards(tmp_path)))
    fewer = again.peers(cards(tmp_path, NAMES[:4]))
    for attempt in (
        lambda: again.share(fewer),
        lambda: again.admit(fewer, list(NAMES[:4])),
        lambda: again.mask(fewer, list(NAMES[:4]), np.zeros(3)),
    ):
        with pytest.raises(RefusalError, match="for other cards"):
            attempt()
    other_round = summand("b", tmp_path, round_number=2)
    other_round.share(other_round.peers(cards(tmp_path, NAMES[:4], round_number=2)))


def test_nothing_is_written_down_for_a_release_that_did_not_fit(tmp_path: Path) -> None:
    one = summand("b", tmp_path)
    peers = one.peers(cards(tmp_path))
    with pytest.raises(RefusalError, match="beyond the agreed range"):
        one.mask(peers, list(NAMES), np.array([8.1, 0.0]))
    assert [path.read_text() for path in tmp_path.rglob("*.jsonl")] == [""]


@pytest.fixture
def opened(tmp_path: Path) -> dict[str, dict[str, bytes]]:
    """Shares of a round in which `e` dropped out after sharing."""
    everybody, survivors = list(NAMES), list(NAMES[:4])
    signatures: dict[str, bytes] = {}
    letters: dict[str, dict[str, bytes]] = {}
    for name in NAMES:
        one = summand(name, tmp_path)
        peers = one.peers(cards(tmp_path))
        letters[name] = one.share(peers)
        if name in survivors:
            one.mask(peers, everybody, np.zeros(3))
    for name in survivors:
        one = summand(name, tmp_path)
        signatures[name] = one.agree(one.peers(cards(tmp_path)), everybody, survivors)
    found: dict[str, dict[str, bytes]] = {}
    for name in survivors:
        one = summand(name, tmp_path)
        peers = one.peers(cards(tmp_path))
        own = {sender: letters[sender][name] for sender in NAMES}
        found[name] = one.unmask(peers, everybody, survivors, signatures, own)
        few = dict(list(signatures.items())[:3])
        for bad in (few, {**few, "e": signatures["a"]}, {**few, "d": signatures["a"]}):
            with pytest.raises(RefusalError, match="3 hospitals signed"):
                one.unmask(peers, everybody, survivors, bad, own)
        with pytest.raises(RefusalError, match="cannot be read"):
            one.unmask(peers, everybody, survivors, signatures, {**own, "c": letters["c"]["e"]})
        with pytest.raises(RefusalError, match="not those"):
            one.unmask(peers, everybody, survivors, signatures, {"a": own["a"]})
    return found


def test_the_threshold_of_shares_opens_one_secret_a_hospital_and_fewer_none(
    opened: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    peers = summand("b", tmp_path).peers(cards(tmp_path))
    for name in NAMES:
        shares = [opened[holder][name] for holder in NAMES[:4]]
        one, card = summand(name, tmp_path), peers.cards[name]
        if name == "e":
            mask_key(shares, card.mask_key)
            with pytest.raises(UnmaskingError):
                mask_seed(shares, one.commitment(peers))
        else:
            mask_seed(shares, one.commitment(peers))
            with pytest.raises(UnmaskingError):
                mask_key(shares, card.mask_key)
        for left_out in range(4):
            below = [share for i, share in enumerate(shares) if i != left_out]
            with pytest.raises(UnmaskingError):
                (mask_key(below, card.mask_key) if name == "e" else mask_seed(below, one.commitment(peers)))
