"""Masks that cancel in a sum: fixed point in integers modulo 2^64, and streams of AES in counter mode.

The other end of the same wire format is `server/unmasking.py`; `docs/secure-sum.md` describes it.
"""

import math
from collections.abc import Iterable

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

# The sum of all bounds is at most 2^62 units, which leaves one bit for the sign and one for the rounding.
BITS = 62
CHUNK = 2**14  # words of a mask that are made at once: they stay in the processor's cache


def agreed_exponent(bounds: Iterable[float]) -> int:
    """Return e: the integers count units of 2^e, the finest with which these bounds cannot wrap around.

    Args:
        bounds: the largest magnitude of a coordinate of each hospital's weighted release.

    Raises:
        ValueError: no bound, or bounds that are not positive and finite.
    """
    known = list(bounds)
    if not known or not all(math.isfinite(bound) and bound > 0 for bound in known):
        raise ValueError("the bounds of a sum must be positive and finite")
    try:
        return math.frexp(math.fsum(known))[1] - BITS
    except OverflowError as error:
        raise ValueError("the bounds of a sum must be positive and finite") from error


def encoded(values: NDArray[np.float64], bound: float, exponent: int) -> NDArray[np.uint64]:
    """Return values rounded to the nearest multiples of 2^exponent, as integers modulo 2^64, uint64 (size,).

    Raises:
        ValueError: values beyond the bound, or not finite; the text does not depend on them.
    """
    if not bool((np.abs(values) <= bound).all()):  # also false for NaN
        raise ValueError("the release is beyond the agreed range of the sum")
    return np.rint(np.ldexp(values, -exponent)).astype(np.int64).view(np.uint64)


def stream_key(secret: bytes, purpose: str, context: bytes) -> bytes:
    """Return 32 bytes of key for one purpose from a secret (HKDF-SHA256, RFC 5869).

    Args:
        secret: a hospital's own seed, or what two hospitals agreed on by Diffie-Hellman.
        purpose: other purposes, other keys.
        context: what the key is bound to: the round and everybody in it.
    """
    info = f"fedward/{purpose}/".encode() + context
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(secret)


def add_stream(total: NDArray[np.uint64], key: bytes, *, negative: bool = False) -> None:
    """Add (or subtract) the key's mask to a vector in place, modulo 2^64.

    The mask is the key stream of AES-256 in counter mode from zero, read as little-endian words. A key serves one
    vector: the caller's `context` has to differ where vectors do.
    """
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    zeros = memoryview(bytes(8 * CHUNK))
    buffer = bytearray(8 * CHUNK + 15)
    operation = np.subtract if negative else np.add
    for start in range(0, len(total), CHUNK):
        part = total[start : start + CHUNK]
        stream.update_into(zeros[: 8 * len(part)], buffer)
        operation(part, np.frombuffer(buffer, dtype="<u8", count=len(part)), out=part)
