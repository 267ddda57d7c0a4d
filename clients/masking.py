"""Masks that cancel in a sum: streams of AES in counter mode, added in fixed point.

The other end of the same wire format is `server/unmasking.py`; `docs/secure-sum.md` describes it.
"""

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy.fixed_point import Words, add, subtract

CHUNK = 2**14  # numbers whose masks are made at once: they stay in the processor's cache


def stream_key(secret: bytes, purpose: str, context: bytes) -> bytes:
    """Return 32 bytes of key for one purpose from a secret (HKDF-SHA256, RFC 5869).

    Args:
        secret: a hospital's own seed, or what two hospitals agreed on by Diffie-Hellman.
        purpose: other purposes, other keys.
        context: what the key is bound to: the round and everybody in it.
    """
    info = f"fedward/{purpose}/".encode() + context
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(secret)


def add_stream(total: Words, key: bytes, *, negative: bool = False) -> None:
    """Add (or subtract) the key's mask to a vector (words, n) in place.

    The mask is the key stream of AES-256 in counter mode from zero, read as little-endian words: for every 2^14
    numbers all their low words, then all their high words. A key serves one vector: the caller's `context` has to
    differ where vectors do.
    """
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    words, size = total.shape
    zeros = memoryview(bytes(8 * CHUNK * words))
    buffer = bytearray(8 * CHUNK * words + 15)
    for start in range(0, size, CHUNK):
        part = total[:, start : start + CHUNK]
        stream.update_into(zeros[: 8 * part.size], buffer)
        mask = np.frombuffer(buffer, dtype="<u8", count=part.size).reshape(part.shape)
        (subtract if negative else add)(part, mask)
