"""A model as plain JSON: what the server sends, what a hospital compares with the agreed one, what gets built."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, final, get_args

from configs.sections import ModelName

MOST_OUTPUTS = 10_000
MOST_CHANNELS = 16
MOST_PIXELS = 2**26
COLOURS = 3  # red, green, blue
MOST_ROWS = 65_536
MOST_BLOCK_FLOATS = 2**30
# Widest first layer that is built, and the shortest side that survives an architecture's pooling.
WIDEST = {"resnet9": 512, "wide_resnet": 64, "scattering": 512, "histograms": 512, "convnet": 512, "unet": 64}
SHORTEST = {"resnet9": 8, "wide_resnet": 4, "scattering": 16, "histograms": 8, "convnet": 4, "unet": 1}


@final
@dataclass(frozen=True)
class WideBlock:
    """A wide block of clamped units that reads the input image and adds to the logits, or to the image itself.

    With the wiring "logits" ``logits[:, 0] += gain * sum_k clamp(weight_k . z + bias_k, 0, ceiling)`` with
    ``z = scale * (x - centre)`` for the flattened normalised image x; with more than one logit the same amount is
    taken off the second, so that the pair (+r, -r) feels it. A dense model's logit maps take the same amount at every
    place. With the wiring "image" the same amount is added to every value of the normalised image that the rest of
    the model reads: the block then sits in front of the model, as in Boenisch et al. 2021.

    Attributes:
        rows: number of units K; weight is (K, D), bias (K,), D the flattened size of an image.
        ceiling: upper clamp of every unit; None is an ordinary ReLU.
        gain: constant factor from the sum of the units to the logit, or to the image.
        scale: factor on the centred input.
        wiring: what the block adds to.
    """

    rows: int
    ceiling: float | None
    gain: float
    scale: float
    wiring: Literal["logits", "image"] = "logits"

    def problem(self, dimension: int) -> str | None:
        """Return what keeps the block from being built over `dimension` pixels, None if nothing does."""
        if not _counts(self.rows) or self.rows > MOST_ROWS or self.rows * dimension > MOST_BLOCK_FLOATS:
            return f"a block of {self.rows!r} rows over {dimension} pixels"
        numbers = [self.gain, self.scale] + ([] if self.ceiling is None else [self.ceiling])
        if not all(_is_finite(value) for value in numbers) or (self.ceiling is not None and self.ceiling <= 0):
            return f"a block with ceiling {self.ceiling!r}, gain {self.gain!r}, scale {self.scale!r}"
        if self.wiring not in ("logits", "image"):
            return f"a block wired to {self.wiring!r}"
        return None


@final
@dataclass(frozen=True)
class ModelSpec:
    """Everything that is needed to build a model; no code travels.

    Attributes:
        kind: the architecture.
        shape: (channels, height, width) or (channels, depth, height, width) of the input.
        outputs: number of logits.
        width: channels of the first layer; the fixed features have none and ignore it.
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
        """Read the JSON text; a ValueError says what is not a model specification, or not one that can be built."""
        try:
            content: dict[str, Any] = json.loads(text)
            block = content.pop("block")
            shape = tuple(content.pop("shape"))
            spec = ModelSpec(**content, shape=shape, block=None if block is None else WideBlock(**block))
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ValueError(f"not a model specification: {error}") from error
        problem = spec.problem()
        if problem is not None:
            raise ValueError(f"not a model specification: {problem}")
        return spec

    def problem(self) -> str | None:
        """Return what keeps the model from being built, None if nothing does. Types are checked: JSON has others."""
        if self.kind not in get_args(ModelName):
            return f"kind {self.kind!r}"
        if not all(_counts(value) for value in (*self.shape, self.outputs, self.width)):
            return f"shape {self.shape}, outputs {self.outputs!r} and width {self.width!r} must be positive integers"
        sides = self.shape[1:]
        if len(sides) != 2 and not (self.dense and len(sides) == 3):
            return f"a {self.kind} does not read images of shape {self.shape}"
        if self.kind == "histograms" and self.shape[0] != COLOURS:
            return f"histograms are of colours: images need {COLOURS} channels, not {self.shape[0]}; use scattering"
        return self._too_much(sides) or (None if self.block is None else self.block.problem(math.prod(self.shape)))

    def _too_much(self, sides: tuple[int, ...]) -> str | None:
        if self.shape[0] > MOST_CHANNELS or math.prod(self.shape) > MOST_PIXELS:
            return f"images of shape {self.shape} are too large"
        if min(sides) < SHORTEST[self.kind]:
            return f"a {self.kind} needs sides of {SHORTEST[self.kind]} pixels or more, not {self.shape}"
        if self.width > WIDEST[self.kind] or self.outputs > MOST_OUTPUTS:
            return f"width {self.width} (at most {WIDEST[self.kind]}) and {self.outputs} outputs are too many"
        return None

    def digest(self) -> str:
        """Return the sha256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def _counts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
