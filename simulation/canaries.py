"""Canaries for an audit: records whose gradients are orthogonal and far above the clip, and the model that sees them.

No other record can hide them from each other or from the auditor, so that nobody could do better than to read each
canary's own coordinate: the worst case that the accounting prices.
"""

from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tasks.base import Mapped, Records
from tasks.models import denormalise

# Canaries' gradients before clipping, in clipping norms: forgetting to clip cannot go unnoticed.
LOUD = 100.0
# Ordinary records share one coordinate and stay below the clip, so that a batch holds clipped and unclipped rows.
QUIET = 0.1
ORDINARY = 100
WEIGHT = "head.weight"


@final
class CanaryModel(nn.Module):
    """A linear head on the one-hot name of a record; canary i's gradient lies along coordinate i alone.

    At zero weights the loss of label 0 has slope 1/2, so the gradient's norm is `LOUD` (canaries) or `QUIET`
    (ordinary records, which share the last coordinate) clipping norms. It counts the rows that it is shown:
    batch sizes are observed where gradients are made, and not believed.
    """

    def __init__(self, canaries: int, clipping_norm: float) -> None:
        super().__init__()
        self.head = nn.Linear(canaries + 1, 1, bias=False)
        self.canaries = canaries
        self.clipping_norm = clipping_norm
        self.rows = 0

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (n, 1) of images (n, 3, 1, 1)."""
        self.rows += len(x)
        digits = torch.round(denormalise(x) * 255.0).long().flatten(1)
        name = (digits[:, :1] * 256 + digits[:, 1:2]) * 256 + digits[:, 2:]
        loud = (name < self.canaries).float()
        height = 2.0 * self.clipping_norm * (LOUD * loud + QUIET * (1.0 - loud))
        hot = torch.zeros(len(x), self.canaries + 1).scatter_(1, name, height)
        return self.head(hot)

    def zeros(self) -> dict[str, Tensor]:
        """Return the weights that the audit broadcasts."""
        return {WEIGHT: torch.zeros(1, self.canaries + 1)}

    def counted(self) -> int:
        """Return how many rows were shown since the last call."""
        rows, self.rows = self.rows, 0
        return rows


def audit_records(included: NDArray[np.bool_], ordinary: int = ORDINARY) -> Records:
    """Return the audited hospital's records: the canaries that are in, and ordinary records.

    An image is one pixel whose three bytes are the record's name, so that flips and views leave it alone.

    Args:
        included: bool (m,), the coins.
        ordinary: number of ordinary records.
    """
    names = np.concatenate([np.flatnonzero(included), np.full(ordinary, len(included))]).astype(np.int64)
    digits = np.stack([names >> 16, (names >> 8) & 255, names & 255], axis=1).astype(np.uint8)
    text = np.array([f"{i}" for i in range(len(names))], dtype=np.str_)
    return Records(
        images=Mapped(digits[:, :, None, None]),
        labels=np.zeros(len(names), dtype=np.int64),
        units=text,
        sites=text,
        ids=text,
        rows=np.arange(len(names), dtype=np.int64),
    )
