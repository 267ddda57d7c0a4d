"""Seeds derived from what a draw is for, so that any draw can be made again and none depends on another.

There are two streams. The *hospital root* feeds sampling, augmentation and noise inside hospitals and is known to
hospitals and the scorer only; the *server root* feeds the initial weights and the cohorts. Neither can be computed
from the other, unless the run's seed is guessed, as small ones can be: both are hashes of it. Whoever knows the
hospital root can subtract the noise, so seeds are for simulations and never for the release of real patients' data.
"""

import hashlib

HOSPITALS = "hospitals"
SERVER = "server"


def derive(root: str | int, *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose, by hashing the root and the purpose.

    Args:
        root: a run's seed, or a root made by :func:`root_of`.
        purpose: what the draw is for, e.g. ``("noise", "rosendahl", 17)``. Different purposes, different streams.

    Returns:
        An integer in [0, 2^63), fit for numpy and torch generators alike.
    """
    text = "\x1f".join([str(root), *(f"{type(part).__name__}:{part}" for part in purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def root_of(seed: int, stream: str) -> str:
    """Return the root of one stream (``HOSPITALS`` or ``SERVER``) as 64 hex digits."""
    return hashlib.sha256(f"fedward/{stream}/{seed}".encode()).hexdigest()
