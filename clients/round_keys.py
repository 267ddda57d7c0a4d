"""Who is who in a secure sum: long-term signing keys, each round's keys, and the list of those who take part.

In a simulation every key is derived from the hospitals' root, so that the same run gives the same bits on every engine
and a hospital needs no memory between two phases. In deployment long-term keys are made once by each hospital and
handed to the others by hand, and each round's keys come from the operating system: whoever knows the root can unmask.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

CURVE = ec.SECP256R1()
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def secret(root: str, *purpose: str | int) -> bytes:
    """Return 64 secret bytes for one purpose: HMAC-SHA512 of the purpose under the hospitals' root."""
    return hmac.digest(root.encode(), json.dumps(["secure sum", *purpose]).encode(), "sha512")


def identity(root: str, hospital: str) -> Ed25519PrivateKey:
    """Return a hospital's long-term signing key (Ed25519)."""
    return Ed25519PrivateKey.from_private_bytes(secret(root, "identity", hospital)[:32])


def directory(root: str, hospitals: Iterable[str]) -> dict[str, bytes]:
    """Return the public signing key of every hospital, raw 32 bytes by name; hospitals get it, never the server."""
    return {name: identity(root, name).public_key().public_bytes_raw() for name in hospitals}


def round_key(root: str, *purpose: str | int) -> ec.EllipticCurvePrivateKey:
    """Return a Diffie-Hellman key (P-256) for one purpose."""
    number = int.from_bytes(secret(root, *purpose), "big") % (ORDER - 1) + 1
    return ec.derive_private_key(number, CURVE)


def public_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the public half as a compressed point, 33 bytes."""
    return key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)


def public_key(data: bytes) -> ec.EllipticCurvePublicKey:
    """Read a compressed point. Raises ValueError for what is none."""
    return ec.EllipticCurvePublicKey.from_encoded_point(CURVE, data)


@final
@dataclass(frozen=True)
class Advertisement:
    """What a hospital signs for a round: for which broadcast, with which keys, and in which range it will be summed.

    Attributes:
        run: the experiment's digest.
        round: from 1.
        hospital: its name.
        broadcast: sha256 of the broadcast that it was told to expect.
        mask_key: public half of the key that masks are agreed with, hexadecimal.
        share_key: public half of the key that shares are encrypted with, hexadecimal.
        bound: as in :class:`clients.sum_terms.SumTerms`.
        signature: Ed25519, over everything above, hexadecimal.
    """

    run: str
    round: int
    hospital: str
    broadcast: str
    mask_key: str
    share_key: str
    bound: float
    signature: str = ""

    def statement(self) -> bytes:
        """Return what is signed."""
        return json.dumps(asdict(replace(self, signature="")), sort_keys=True, allow_nan=False).encode()

    def signed(self, key: Ed25519PrivateKey) -> "Advertisement":
        """Return a signed copy."""
        return replace(self, signature=key.sign(self.statement()).hex())

    def to_json(self) -> str:
        """Return the JSON text."""
        return json.dumps(asdict(self), sort_keys=True, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> "Advertisement":
        """Read the JSON text. Raises ValueError for what is none."""
        try:
            content: dict[str, Any] = json.loads(text)
            found = Advertisement(**content)
        except (TypeError, ValueError) as error:
            raise ValueError("not an advertisement of keys") from error
        kinds = {"round": int, "bound": float}
        if any(type(value) is not kinds.get(name, str) for name, value in content.items()):
            raise ValueError("not an advertisement of keys")
        return found


def verified(signer: str, statement: bytes, signature: bytes, known: Mapping[str, bytes]) -> bool:
    """Whether a hospital of the directory signed a statement."""
    if signer not in known:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(known[signer]).verify(signature, statement)
    except InvalidSignature:
        return False
    return True


def digest(kind: str, *parts: object) -> bytes:
    """Return the sha256 of a kind of statement and its parts."""
    return hashlib.sha256(json.dumps([kind, *parts]).encode()).digest()
