"""A hospital's side of the secure sum: keys, shares, the masked release, and what it takes to unmask the sum.

Bonawitz et al. 2017 ("Practical Secure Aggregation", figure 4, with the consistency check against a malicious
server) over all pairs of hospitals; Bell et al. 2020 (SecAgg+) differ in using fewer pairs, which pays from hundreds of
hospitals on. Flower's primitives carry the shares (Shamir, Fernet); its mask generator has a seed of 32 bits, so
masks are ours. `docs/secure-sum.md` describes the protocol.
"""

from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from cryptography.fernet import InvalidToken
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.secure_aggregation.crypto.shamir import create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt, generate_shared_key
from flwr.common.secure_aggregation.secaggplus_utils import share_keys_plaintext_concat, share_keys_plaintext_separate
from numpy.typing import NDArray

from clients.masking import add_stream, stream_key
from clients.round_keys import Advertisement, digest, identity, public_bytes, public_key, round_key, secret, verified
from clients.site import RefusalError
from clients.sum_journal import SumJournal
from clients.sum_terms import SumTerms
from privacy.fixed_point import Words, agreed_exponent, encoded

CARDS, PEERS, SURVIVORS = "cards", "peers", "survivors"


@final
@dataclass(frozen=True)
class Party:
    """What a hospital knows before any round; none of it comes from the server.

    Attributes:
        hospital: its name.
        root: the hospitals' root; whoever knows it can unmask.
        run: digest of the experiment.
        data: what its secrets are bound to beside the run: the fingerprint of the data.
        directory: every hospital's public signing key.
        threshold: (hospitals that take part) -> the fewest that may be summed.
        terms: how it enters a sum.
        journal: folder in which it writes down what it answered.
    """

    hospital: str
    root: str
    run: str
    data: str
    directory: Mapping[str, bytes]
    threshold: Callable[[int], int]
    terms: SumTerms
    journal: Path


@final
@dataclass(frozen=True)
class Peers:
    """The hospitals of a round as one of them verified them.

    Attributes:
        cards: their advertisements by name, in the order of names.
        threshold: the fewest that may be summed.
        digest: of the advertisements.
    """

    cards: Mapping[str, Advertisement]
    threshold: int
    digest: bytes

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, sorted."""
        return tuple(self.cards)


@final
class Summand:
    """One hospital in one round of one broadcast. Every answer is derived anew: nothing is kept in memory."""

    def __init__(self, party: Party, round_number: int, broadcast: str) -> None:
        self._party = party
        self._round = round_number
        self._broadcast = broadcast
        self._journal = SumJournal(party.journal, party.hospital, party.run, round_number)
        self._purpose = (party.run, party.data, party.hospital, round_number, broadcast)

    def advertise(self) -> Advertisement:
        """Return this round's public keys, signed."""
        party = self._party
        keys = (self._key("mask"), self._key("share"))
        card = Advertisement(
            run=party.run,
            round=self._round,
            hospital=party.hospital,
            broadcast=self._broadcast,
            mask_key=public_bytes(keys[0]).hex(),
            share_key=public_bytes(keys[1]).hex(),
            bound=party.terms.bound,
        )
        return card.signed(identity(party.root, party.hospital))

    def peers(self, cards: Sequence[str]) -> Peers:
        """Verify the advertisements of a round, as JSON texts.

        Raises:
            RefusalError: a hospital that is not in the directory or stands there twice, a signature that does not
                hold, another run or round, keys of this hospital that it did not make, too few hospitals, or a
                range that is too coarse for it.
        """
        party = self._party
        found: dict[str, Advertisement] = {}
        for text in cards:
            card = self._verified(text)
            if card.hospital in found:
                raise RefusalError(f"hospital '{card.hospital}' stands in the list of the secure sum twice")
            found[card.hospital] = card
        ordered = {name: found[name] for name in sorted(found)}
        if ordered.get(party.hospital) != self.advertise():
            raise RefusalError("the list of the secure sum does not hold this hospital's own keys")
        threshold = party.threshold(len(ordered))
        if len(ordered) < threshold:
            raise RefusalError(f"a secure sum over {len(ordered)} hospitals, where {threshold} are the fewest")
        peers = Peers(ordered, threshold, digest(PEERS, [card.to_json() for card in ordered.values()]))
        self.exponent(peers)
        return peers

    def _verified(self, text: str) -> Advertisement:
        try:
            card = Advertisement.from_json(text)
            signature = bytes.fromhex(card.signature)
            holds = verified(card.hospital, card.statement(), signature, self._party.directory)
            for key in (card.mask_key, card.share_key):
                public_key(bytes.fromhex(key))
        except ValueError as error:
            raise RefusalError("what was sent as an advertisement of keys is none") from error
        if card.hospital not in self._party.directory:
            raise RefusalError(f"hospital '{card.hospital}' is not one of the federation")
        if not holds:
            raise RefusalError(f"the keys of hospital '{card.hospital}' are not signed by it")
        if (card.run, card.round) != (self._party.run, self._round):
            raise RefusalError(f"the keys of hospital '{card.hospital}' belong to another round or run")
        return card

    def exponent(self, peers: Peers) -> int:
        """Return e: the sum counts units of 2^e. Raises RefusalError where that is too coarse."""
        try:
            exponent = agreed_exponent((card.bound for card in peers.cards.values()), self._party.terms.words)
        except ValueError as error:
            raise RefusalError(str(error)) from error
        if 2.0**exponent > self._party.terms.coarsest:
            raise RefusalError(
                f"the sum would be rounded to 2^{exponent}, too coarse for this hospital's noise or clipping norm"
            )
        return exponent

    def share(self, peers: Peers) -> dict[str, bytes]:
        """Return, for every peer, encrypted Shamir shares of this hospital's own mask seed and of its mask key.

        The polynomials and the encryption are drawn from the operating system: no result depends on them.

        Guarantee: once a round, for one list of peers, which is written down before. Two lists would give both secrets
        away: one list's survivors open the seed, the other's, told that this hospital dropped out, its key.

        Raises:
            RefusalError: for another list than before.
        """
        self._journal.bind(CARDS, peers.digest)
        scalar = self._key("mask").private_numbers().private_value.to_bytes(32, "big")
        seeds = create_shares(self._seed(peers), peers.threshold, len(peers.names))
        keys = create_shares(scalar, peers.threshold, len(peers.names))
        own = peers.names.index(self._party.hospital)
        return {
            name: encrypt(self._letter_key(peers, name, to=True), share_keys_plaintext_concat(own, at, seed, key))
            for at, (name, seed, key) in enumerate(zip(peers.names, seeds, keys, strict=True))
        }

    def admit(self, peers: Peers, sharers: Sequence[str]) -> bytes:
        """Check, before anything is released, that a vector may be masked for these peers; returns the context.

        Args:
            peers: of the round.
            sharers: the hospitals that have shared their keys: masks are agreed with these.

        Raises:
            RefusalError: too few, unknown or unsorted sharers, or others than this round was answered for.
        """
        context = self._context(peers, sharers)
        self._journal.check(CARDS, peers.digest, needed=False)
        self._journal.check(PEERS, context, needed=False)
        return context

    def mask(self, peers: Peers, sharers: Sequence[str], values: NDArray[np.float64]) -> Words:
        """Return the release (n,) in fixed point under its masks, (words, n); the peers are written down before.

        Guarantee: the same peers, sharers and values give the very same bytes; other peers are refused. To whoever
        holds fewer than the threshold of shares the result is indistinguishable from uniform, as far as AES-256 and
        Diffie-Hellman on P-256 go.
        Assumes: the release was charged. Fewer than 2 t - n hospitals collude with the server (n take part, t is the
        threshold): else it could get two lists of survivors signed.

        Raises:
            RefusalError: other peers than before, or values beyond the agreed range.
        """
        context = self.admit(peers, sharers)
        exponent, terms = self.exponent(peers), self._party.terms
        try:
            total = encoded(values * terms.weight, terms.bound, exponent, terms.words)
        except ValueError as error:
            raise RefusalError(str(error)) from error
        self._journal.bind(CARDS, peers.digest)
        self._journal.bind(PEERS, context)
        own = self._party.hospital
        add_stream(total, stream_key(self._seed(peers), "self", context))
        for name in sharers:
            if name != own:
                agreed = generate_shared_key(self._key("mask"), public_key(bytes.fromhex(peers.cards[name].mask_key)))
                add_stream(total, stream_key(agreed, "pair", context), negative=own > name)
        return total

    def commitment(self, peers: Peers) -> str:
        """Return a sha256 that the server can tell a wrong mask seed from."""
        return digest("seed", self._seed(peers).hex()).hex()

    def agree(self, peers: Peers, sharers: Sequence[str], survivors: Sequence[str]) -> bytes:
        """Sign the list of the hospitals whose masked releases arrived; one list a round, written down before.

        Raises:
            RefusalError: too few or unknown survivors, this hospital not among them, another list than before, or a
                round that this hospital did not mask for.
        """
        statement = self._statement(peers, sharers, survivors)
        self._journal.bind(SURVIVORS, statement)
        return identity(self._party.root, self._party.hospital).sign(statement)

    def unmask(
        self,
        peers: Peers,
        sharers: Sequence[str],
        survivors: Sequence[str],
        signatures: Mapping[str, bytes],
        letters: Mapping[str, bytes],
    ) -> dict[str, bytes]:
        """Return one share per sharer: of the mask seed of each survivor, of the mask key of each that dropped out.

        Guarantee: never both for one hospital.

        Args:
            peers: of the round.
            sharers: as in `admit`.
            survivors: whose masked releases arrived.
            signatures: survivors' signatures under that very list.
            letters: what each sharer encrypted for this hospital.

        Raises:
            RefusalError: fewer valid signatures than the threshold, an unsigned list, or a letter that cannot be read.
        """
        statement = self._statement(peers, sharers, survivors)
        self._journal.check(SURVIVORS, statement, needed=True)
        known = self._party.directory
        signers = {n for n, s in signatures.items() if n in survivors and verified(n, statement, s, known)}
        if len(signers) < peers.threshold:
            raise RefusalError(f"{len(signers)} hospitals signed the list of survivors, {peers.threshold} are needed")
        if set(letters) != set(sharers):
            raise RefusalError("the letters with shares are not those of the hospitals that shared")
        return {name: self._share_of(peers, name, letters[name], seed=name in survivors) for name in sharers}

    def _share_of(self, peers: Peers, name: str, letter: bytes, *, seed: bool) -> bytes:
        try:
            content = decrypt(self._letter_key(peers, name, to=False), letter)
        except InvalidToken as error:
            raise RefusalError(f"the letter of hospital '{name}' cannot be read") from error
        source, target, seed_share, key_share = share_keys_plaintext_separate(content)
        if (source, target) != (peers.names.index(name), peers.names.index(self._party.hospital)):
            raise RefusalError(f"the letter of hospital '{name}' is for another hospital")
        return seed_share if seed else key_share

    def _context(self, peers: Peers, sharers: Sequence[str]) -> bytes:
        if list(sharers) != sorted(set(sharers)) or not set(sharers) <= set(peers.names):
            raise RefusalError("the hospitals that shared their keys are not those that advertised them")
        if self._party.hospital not in sharers:
            raise RefusalError("this hospital is not among those that shared their keys")
        if len(sharers) < peers.threshold:
            raise RefusalError(f"a secure sum over {len(sharers)} hospitals, where {peers.threshold} are the fewest")
        return digest("sharers", peers.digest.hex(), list(sharers))

    def _statement(self, peers: Peers, sharers: Sequence[str], survivors: Sequence[str]) -> bytes:
        context = self._context(peers, sharers)
        self._journal.check(PEERS, context, needed=True)
        if list(survivors) != sorted(set(survivors)) or not set(survivors) <= set(sharers):
            raise RefusalError("the survivors are not among the hospitals that shared their keys")
        if self._party.hospital not in survivors:
            raise RefusalError("this hospital is not among the survivors")
        if len(survivors) < peers.threshold:
            raise RefusalError(f"{len(survivors)} hospitals are left to sum, where {peers.threshold} are the fewest")
        return digest(SURVIVORS, context.hex(), list(survivors))

    def _key(self, use: str) -> ec.EllipticCurvePrivateKey:
        return round_key(self._party.root, use, *self._purpose)

    def _seed(self, peers: Peers) -> bytes:
        return secret(self._party.root, "seed", *self._purpose, peers.digest.hex())[:32]

    def _letter_key(self, peers: Peers, name: str, *, to: bool) -> bytes:
        """Return the key of a letter; each direction has its own, and other peers have others."""
        agreed = generate_shared_key(self._key("share"), public_key(bytes.fromhex(peers.cards[name].share_key)))
        pair = (self._party.hospital, name) if to else (name, self._party.hospital)
        return urlsafe_b64encode(stream_key(agreed, "letter", digest("letter", peers.digest.hex(), *pair)))
