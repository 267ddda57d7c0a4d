"""Features that are computed once: what a fixed trunk says about an image is remembered under the image's hash."""

import copy
import hashlib
import threading
from collections import OrderedDict
from typing import final

import numpy as np
import torch
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
class Remembering(nn.Module):
    """A trunk without trained parameters, (n, ...) to (n, features), that looks at every image once per process.

    An image's features are computed alone, in a batch of one: remembered and computed ones agree to the bit, whatever
    batch the image came in and whatever was forgotten meanwhile. The key holds the trunk's name, the input's type and
    shape and 16 bytes of BLAKE2b of its content. Where the input asks for a gradient (an image is being reconstructed,
    or an adversary's block stands in front) nothing is remembered and the whole batch runs, differentiably.

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
        pixels = x.detach().cpu().contiguous().numpy()
        rows = [self._features(kind, x[i : i + 1], pixels[i]) for i in range(len(x))]
        return torch.from_numpy(np.stack(rows)).to(x.device)

    def _features(self, kind: str, image: Tensor, pixels: NDArray[np.generic]) -> Row:
        key = kind, hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
        found = self._memory.get(key)
        if found is None:
            with torch.no_grad():
                found = self.trunk(image)[0].cpu().numpy().copy()
            self._memory.put(key, found)
        return found
