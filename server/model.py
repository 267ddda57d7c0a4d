"""The agreed model as one flat float64 vector."""

from collections.abc import Mapping
from typing import final

import numpy as np
from numpy.typing import NDArray

from tasks.models import ModelSpec, initial_weights, parameter_names

CORE = "core."


@final
class FlatModel:
    """Names, shapes and order of the agreed parameters; carries them between named arrays and one vector."""

    @staticmethod
    def fresh(spec: ModelSpec, seed: int) -> "FlatModel":
        """Return a freshly initialised model."""
        return FlatModel(spec, {name: value.numpy() for name, value in initial_weights(spec, seed).items()})

    def __init__(self, spec: ModelSpec, start: Mapping[str, NDArray[np.float32]]) -> None:
        """Take the names of a model and its first parameters.

        Args:
            spec: of the model.
            start: parameters and buffers by name; buffers are constants that every broadcast carries.
        """
        trained = parameter_names(spec)
        self.spec = spec
        self._shapes = {name: value.shape for name, value in start.items() if name in trained}
        self._constants = {name: value for name, value in start.items() if name not in trained}
        self.size = sum(int(np.prod(shape)) for shape in self._shapes.values())
        self.initial = np.concatenate([start[name].astype(np.float64).ravel() for name in self._shapes])

    def named(self, vector: NDArray[np.float64]) -> dict[str, NDArray[np.float32]]:
        """Return the vector's parts by name, rounded to float32, and the constants."""
        named: dict[str, NDArray[np.float32]] = dict(self._constants)
        start = 0
        for name, shape in self._shapes.items():
            end = start + int(np.prod(shape))
            named[name] = vector[start:end].astype(np.float32).reshape(shape)
            start = end
        return named

    def flat(self, update: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float64]:
        """Return the agreed parameters' part of an update as one vector; a block's own parameters are left out.

        Raises:
            ValueError: if a parameter is missing, or has another shape or type than float64.
        """
        agreed = self.spec.block is not None  # planted from the start: its parameters are part of the model
        prefix = CORE if not agreed and any(name.startswith(CORE) for name in update) else ""
        parts: list[NDArray[np.float64]] = []
        for name, shape in self._shapes.items():
            value = update.get(prefix + name)
            if value is None:
                raise ValueError(f"parameter '{name}' is missing")
            if value.shape != shape or value.dtype != np.float64:
                raise ValueError(f"parameter '{name}' is {value.dtype} {value.shape} where float64 {shape} is expected")
            parts.append(value.astype(np.float64).ravel())
        return np.concatenate(parts)
