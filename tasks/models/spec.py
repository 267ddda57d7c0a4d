"""A model as plain JSON: what the server sends, what a hospital compares with the agreed one, what gets built."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, final, get_args

from configs.sections import ModelName


@final
@dataclass(frozen=True)
class WideBlock:
    """A wide block of clamped units that reads the input image and adds to the logits.

    ``logits[:, 0] += gain * sum_k clamp(weight_k . z + bias_k, 0, ceiling_k)`` with ``z = scale * (x - centre)``
    for the flattened normalised image x; with more than one logit the same amount is taken off the second, so that
    the pair (+r, -r) feels it.

    Attributes:
        rows: number of units K; weight is (K, D), bias (K,), D the flattened size of an image.
        ceiling: upper clamp of every unit; None is an ordinary ReLU.
        gain: constant factor from the sum of the units to the logit.
        scale: factor on the centred input.
    """

    rows: int
    ceiling: float | None
    gain: float
    scale: float


@final
@dataclass(frozen=True)
class ModelSpec:
    """Everything that is needed to build a model; no code travels.

    Attributes:
        kind: the architecture.
        shape: (channels, height, width) or (channels, depth, height, width) of the input.
        outputs: number of logits.
        width: channels of the first layer.
        block: an additional wide block, None in every honest model.
    """

    kind: ModelName
    shape: tuple[int, ...]
    outputs: int
    width: int
    block: WideBlock | None = field(default=None)

    @property
    def dense(self) -> bool:
        """Whether the logits are a map over the input, (n, outputs, *spatial), and not (n, outputs)."""
        return self.kind == "unet"

    def to_json(self) -> str:
        """Return the canonical JSON text."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> "ModelSpec":
        """Read the JSON text; a ValueError says what is not a model specification."""
        try:
            content: dict[str, Any] = json.loads(text)
            block = content.pop("block")
            shape = tuple(int(side) for side in content.pop("shape"))
            spec = ModelSpec(**content, shape=shape, block=None if block is None else WideBlock(**block))  # type: ignore[arg-type]
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ValueError(f"not a model specification: {error}") from error
        if spec.kind not in get_args(ModelName) or len(shape) not in (3, 4):
            raise ValueError(f"not a model specification: kind {spec.kind!r}, shape {shape}")
        return spec

    def digest(self) -> str:
        """Return the sha256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()
