"""Features that are computed once: what a fixed trunk says about an image is remembered under a tag of its content."""

import copy
import math
import os
import threading
from collections import OrderedDict
from typing import final

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray
from torch import Tensor, nn

MOST_BYTES = 512 * 2**20
OVERHEAD = 200  # bytes of a key, an array's header and their places in the table

Key = tuple[str, bytes]
Row = NDArray[np.generic]


@final
class Memory:
    """Rows by key, at most `most` bytes of them: what was not asked for longest is forgotten first."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._rows: OrderedDict[Key, Row] = OrderedDict()
        self._lock = threading.Lock()
        self.size = 0

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: Key) -> Row | None:
        """Return what is kept under the key, None if nothing is."""
        with self._lock:
            row = self._rows.get(key)
            if row is not None:
                self._rows.move_to_end(key)
            return row

    def put(self, key: Key, row: Row) -> None:
        """Keep a row; one that is larger than the whole memory is not kept."""
        with self._lock:
            if key in self._rows or row.nbytes + OVERHEAD > self._most:
                return
            self._rows[key] = row
            self.size += row.nbytes + OVERHEAD
            while self.size > self._most:
                _, oldest = self._rows.popitem(last=False)
                self.size -= oldest.nbytes + OVERHEAD

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._rows.clear()
            self.size = 0


# One for the process: a hospital's engine, the evaluator and an audit meet the same images.
MEMORY = Memory()


@final
class Tagger:
    """Tags of 16 bytes for images' bytes: AES-GMAC under a key that is drawn for it and never leaves the process.

    GMAC is a polynomial in a secret point of GF(2^128), so two different images of b blocks of 16 bytes, chosen without
    the key, share a tag with a probability of at most (b + 1) / 2^128: among ten million images of 64x64 pixels below
    1e-20. A collision would give one patient another one's features. It runs at about ten times the speed of BLAKE2b.
    One nonce serves all, which GMAC forbids where tags are shown to somebody; nobody sees these.
    """

    def __init__(self, key: bytes | None = None) -> None:
        """Draw a key from the operating system, or take the given 16 bytes (for tests)."""
        self._cipher = AESGCM(os.urandom(16) if key is None else key)

    def tags(self, images: NDArray[np.generic]) -> list[bytes]:
        """Return the tag of each image's bytes; images (n, ...), C-contiguous."""
        rows = images.reshape(len(images), math.prod(images.shape[1:])).view(np.uint8)
        return [self._cipher.encrypt(_NONCE, b"", row.data) for row in rows]  # authenticated only, nothing is encrypted


_NONCE = bytes(12)
_TAGGER = Tagger()  # one key for all memories of the process


@final
class Remembering(nn.Module):
    """A trunk without trained parameters, (n, ...) to (n, features), that looks at every image once per process.

    An image's features are computed alone, in a batch of one: remembered and computed ones agree to the bit, whatever
    batch the image came in and whatever was forgotten meanwhile. The key holds the trunk's name, the input's type and
    shape and the tag of its content (:class:`Tagger`). Where the input asks for a gradient (an image is being
    reconstructed, or an adversary's block stands in front) nothing is remembered and the whole batch runs,
    differentiably.

    Nothing remembered leaves the process, and the model's outputs do not depend on it.
    """

    def __init__(self, trunk: nn.Module, name: str, memory: Memory = MEMORY) -> None:
        """Wrap a trunk.

        Args:
            trunk: a fixed function of one image; nothing in it may be trained.
            name: says which function: two trunks of one name give the same features.
            memory: where features are kept.

        Raises:
            ValueError: the trunk has parameters.
        """
        super().__init__()
        if next(trunk.parameters(), None) is not None:
            raise ValueError("a trunk with parameters changes: its features cannot be remembered")
        self.trunk = trunk
        self._name = name
        self._memory = memory

    def __deepcopy__(self, memo: dict[int, object]) -> "Remembering":
        return Remembering(copy.deepcopy(self.trunk, memo), self._name, self._memory)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, (n, features)."""
        if x.is_meta or x.requires_grad or len(x) == 0:
            return self.trunk(x)
        kind = f"{self._name} {x.device.type} {x.dtype} {tuple(x.shape[1:])}"
        tags = _TAGGER.tags(x.detach().cpu().contiguous().numpy())
        rows = [self._features((kind, tag), x, i) for i, tag in enumerate(tags)]
        return torch.from_numpy(np.stack(rows)).to(x.device)

    def _features(self, key: Key, x: Tensor, row: int) -> Row:
        found = self._memory.get(key)
        if found is None:
            with torch.no_grad():
                found = self.trunk(x[row : row + 1])[0].cpu().numpy().copy()
            self._memory.put(key, found)
        return found
