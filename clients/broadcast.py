"""The identity of a broadcast: what a ledger line is charged for."""

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def broadcast_digest(round_number: int, spec_json: str, weights: Mapping[str, NDArray[np.float32]]) -> str:
    """Return the sha256 of a broadcast: the round, the model's specification, and every weight's name and bytes."""
    digest = hashlib.sha256(f"{round_number}\n{spec_json}\n".encode())
    for name in sorted(weights):
        value = np.ascontiguousarray(weights[name])
        digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
