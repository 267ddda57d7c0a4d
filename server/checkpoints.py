"""Checkpoints and weights on disk: safetensors only, written under another name and renamed."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from configs.errors import InputError


def write_arrays(path: Path, arrays: Mapping[str, NDArray[np.generic]], metadata: Mapping[str, str]) -> None:
    """Write arrays so that the file is whole or absent, even after `kill -9`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, temporary, dict(metadata))
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def read_arrays(path: Path) -> tuple[dict[str, NDArray[np.generic]], dict[str, str]]:
    """Return (arrays, metadata) of a file.

    Raises:
        InputError: if the file is not a whole safetensors file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return arrays, dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a whole safetensors file; remove it and resume.") from error


@final
class Checkpoints:
    """A run's checkpoints: the latest state, and the weights of the rounds to be evaluated."""

    def __init__(self, folder: Path, experiment_digest: str) -> None:
        self.folder = folder
        self._digest = experiment_digest

    @property
    def latest(self) -> Path:
        """The file with the state after the latest finished round."""
        return self.folder / "latest.safetensors"

    def evaluation(self, round_number: int) -> Path:
        """The file with the weights after a round that is evaluated."""
        return self.folder / f"round-{round_number:06d}.safetensors"

    def save(self, round_number: int, state: Mapping[str, NDArray[np.float64]]) -> None:
        """Keep the state after a round."""
        write_arrays(self.latest, state, {"round": str(round_number), "experiment": self._digest})

    def load(self) -> tuple[int, dict[str, NDArray[np.float64]]] | None:
        """Return (round, state) of the latest finished round, or None before the first.

        Raises:
            InputError: if the checkpoint belongs to another experiment or is damaged.
        """
        if not self.latest.is_file():
            return None
        arrays, metadata = read_arrays(self.latest)
        if metadata.get("experiment") != self._digest:
            raise InputError(f"{self.latest}: belongs to another experiment; choose another --out.")
        return int(json.loads(metadata["round"])), {k: v.astype(np.float64) for k, v in arrays.items()}
