"""What a server can do with shares: find a mask again, take it off a sum, and read the sum.

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
from numpy.typing import NDArray

CURVE = ec.SECP256R1()
CHUNK = 2**14  # words of a mask that are made at once: they stay in the processor's cache


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


def take_off_seed(total: NDArray[np.uint64], seed: bytes, context: bytes) -> None:
    """Subtract a survivor's own mask from the sum, in place."""
    _take_off(total, _stream_key(seed, "self", context), positive=True)


def take_off_pair(
    total: NDArray[np.uint64],
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


def decoded(total: NDArray[np.uint64], exponent: int) -> NDArray[np.float64]:
    """Return the sum that the integers stand for, float64 (size,): signed, in units of 2^exponent."""
    return np.ldexp(total.view(np.int64).astype(np.float64), exponent)


def _combined(shares: Sequence[bytes]) -> bytes:
    try:
        return combine_shares(list(shares))
    except (ValueError, IndexError) as error:
        raise UnmaskingError(f"{len(shares)} shares do not give a secret") from error


def _stream_key(secret: bytes, purpose: str, context: bytes) -> bytes:
    info = f"fedward/{purpose}/".encode() + context
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(secret)


def _take_off(total: NDArray[np.uint64], key: bytes, *, positive: bool) -> None:
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    zeros = memoryview(bytes(8 * CHUNK))
    buffer = bytearray(8 * CHUNK + 15)
    operation = np.subtract if positive else np.add
    for start in range(0, len(total), CHUNK):
        part = total[start : start + CHUNK]
        stream.update_into(zeros[: 8 * len(part)], buffer)
        operation(part, np.frombuffer(buffer, dtype="<u8", count=len(part)), out=part)
