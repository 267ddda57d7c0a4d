"""What a server can do with shares: find a mask again and take it off a sum.

The other end of the same wire format is `clients/masking.py`; `docs/secure-sum.md` describes it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key

from privacy.fixed_point import Words, add, subtract

CURVE = ec.SECP256R1()
CHUNK = 2**14  # numbers whose masks are made at once: they stay in the processor's cache


class UnmaskingError(ValueError):
    """Shares that do not give the secret that was promised."""


def digest(kind: str, *parts: object) -> bytes:
    """Return the sha256 of a kind of statement and its parts."""
    return hashlib.sha256(json.dumps([kind, *parts]).encode()).digest()


def context_of(cards: Sequence[Mapping[str, object]], sharers: Sequence[str]) -> bytes:
    """Return what all masks of a round are bound to: the advertisements, in order of names, and who shared."""
    peers = digest("peers", [json.dumps(dict(card), sort_keys=True) for card in cards])
    return digest("sharers", peers.hex(), list(sharers))


def mask_seed(shares: Sequence[bytes], commitment: str) -> bytes:
    """Return a survivor's mask seed from its shares.

    Raises:
        UnmaskingError: they do not give the seed that was committed to.
    """
    seed = _combined(shares)
    if digest("seed", seed.hex()).hex() != commitment:
        raise UnmaskingError("the shares do not give the mask seed that was committed to")
    return seed


def mask_key(shares: Sequence[bytes], advertised: str) -> ec.EllipticCurvePrivateKey:
    """Return the mask key of a hospital that dropped out from its shares.

    Raises:
        UnmaskingError: they do not give the key that was advertised.
    """
    try:
        key = ec.derive_private_key(int.from_bytes(_combined(shares), "big"), CURVE)
    except ValueError as error:
        raise UnmaskingError("the shares do not give a mask key") from error
    point = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    if point.hex() != advertised:
        raise UnmaskingError("the shares do not give the mask key that was advertised")
    return key


def take_off_seed(total: Words, seed: bytes, context: bytes) -> None:
    """Subtract a survivor's own mask from the sum, in place."""
    _take_off(total, _stream_key(seed, "self", context), positive=True)


def take_off_pair(
    total: Words,
    dropped: str,
    key: ec.EllipticCurvePrivateKey,
    survivor: str,
    advertised: str,
    context: bytes,
) -> None:
    """Subtract the mask that a survivor agreed with a hospital that dropped out, in place."""
    public = ec.EllipticCurvePublicKey.from_encoded_point(CURVE, bytes.fromhex(advertised))
    agreed = generate_shared_key(key, public)
    # The hospital that comes first by name added the mask, the other one subtracted it.
    _take_off(total, _stream_key(agreed, "pair", context), positive=survivor < dropped)


def _combined(shares: Sequence[bytes]) -> bytes:
    try:
        return combine_shares(list(shares))
    except (ValueError, IndexError) as error:
        raise UnmaskingError(f"{len(shares)} shares do not give a secret") from error


def _stream_key(secret: bytes, purpose: str, context: bytes) -> bytes:
    info = f"fedward/{purpose}/".encode() + context
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(secret)


def _take_off(total: Words, key: bytes, *, positive: bool) -> None:
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    words, size = total.shape
    zeros = memoryview(bytes(8 * CHUNK * words))
    buffer = bytearray(8 * CHUNK * words + 15)
    for start in range(0, size, CHUNK):
        part = total[:, start : start + CHUNK]
        stream.update_into(zeros[: 8 * part.size], buffer)
        mask = np.frombuffer(buffer, dtype="<u8", count=part.size).reshape(part.shape)
        (subtract if positive else add)(part, mask)
