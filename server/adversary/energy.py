"""How much of a per-image gradient a wide block takes, measured on the adversary's own images."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from server.adversary.base import PublicData, Weights, usual_loss
from server.adversary.public_model import PublicModel
from tasks.losses import loss
from tasks.models import ModelSpec, build, load_weights, normalise

_MEASURED = 64  # public images that are differentiated, one by one


@final
@dataclass(frozen=True)
class Energies:
    """Squared norms of public images' gradients at the broadcast weights.

    Attributes:
        core: float64 (m,), of the agreed model's parameters.
        block: float64 (m,), of the block's at a gain of 1.
    """

    core: NDArray[np.float64]
    block: NDArray[np.float64]

    def gain(self, share: float) -> float:
        """Return the gain at which the block takes about this share (below 1) of the median image's energy."""
        ratio = self.core / np.maximum(self.block, 1e-300)
        return float(np.sqrt(share / (1 - share) * np.median(ratio)))

    def shares(self, gain: float) -> NDArray[np.float64]:
        """Return the share that the block takes of each image's energy, (m,)."""
        block = gain**2 * self.block
        return block / np.maximum(block + self.core, 1e-300)


def energies(spec: ModelSpec, core: Weights, public: PublicData, model: PublicModel) -> Energies:
    """Differentiate the agreed model on public images, one at a time.

    An image of the block's bin has the block's gradient gain * t * [z, 1], t the derivative of the loss along the
    pair (+r, -r) of logits. Where the adversary does not know its images' targets it takes the model's own
    predictions; with one logit the ratio of the two energies does not depend on the target.

    Args:
        spec: of the agreed model; a block in it is ignored.
        core: the agreed parameters and buffers.
        public: the adversary's images, at least one.
        model: of the public images.
    """
    agreed = ModelSpec(spec.kind, spec.shape, spec.outputs, spec.width)
    built = build(agreed)
    load_weights(built, {name: torch.tensor(np.asarray(value)) for name, value in core.items()})
    agreed_loss = loss(usual_loss(spec))
    parameters = [p for p in built.parameters() if p.requires_grad]
    chosen = np.unique(np.linspace(0, len(public.images) - 1, _MEASURED).astype(int))
    along: list[float] = []
    squares: list[float] = []
    for i in chosen:
        logits: Any = built(normalise(torch.tensor(public.images[i : i + 1])))
        if public.targets is None:
            target = (logits > 0).long()[:, 0] if spec.outputs == 1 else logits.argmax(dim=1)
        else:
            target = torch.as_tensor(np.asarray(public.targets[i : i + 1]))
        found = torch.autograd.grad(agreed_loss(logits, target).sum(), [logits, *parameters])
        sums = found[0].flatten(2).sum(dim=(0, 2)) if spec.dense else found[0][0]
        along.append(float(sums[0] - sums[1]) if spec.outputs > 1 else float(sums[0]))
        squares.append(sum(float(part.double().square().sum()) for part in found[1:]))
    z = model.encode(public.images[chosen])
    block = np.array(along) ** 2 * (1 + np.einsum("nd,nd->n", z, z, dtype=np.float64))
    return Energies(np.array(squares), block)
