"""The traffic of the attacked rounds on disk: one safetensors file each, its header a JSON text; nothing is pickled.

Three kinds of files: `single` (one hospital's exchange), `sum` (what came out of a secure sum), `step` (the global
model before and after a round, or the first and the handed-out one).
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from server.adversary.base import Observation, PublicTerms
from tasks.models import ModelSpec

Kind = Literal["single", "sum", "step", "final"]

_KEY = "observation"
_SENT, _CAME = "sent/", "came/"


def save_observation(folder: Path, observation: Observation, kind: Kind = "single", **extra: object) -> Path:
    """Write one observation into the folder, bit for bit, and return the file.

    The file appears complete or not at all (temporary name, then rename); the same round and source again replaces
    it. The name carries a digest of the source's name, so that any name is safe and no two collide.
    """
    header = {
        "kind": kind,
        "round": observation.round,
        "hospital": observation.hospital,
        "members": list(observation.members),
        "rounds": list(observation.rounds),
        "spec": observation.spec.to_json(),
        "terms": asdict(observation.terms),
        "extra": extra,
    }
    tensors: dict[str, NDArray[Any]] = {
        **{_SENT + name: np.asarray(value, order="C") for name, value in observation.weights.items()},
        **{_CAME + name: np.asarray(value, order="C") for name, value in observation.release.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / file_name(kind, observation)
    partial = target.with_suffix(f".{os.getpid()}.partial")
    try:
        save_file(tensors, partial, metadata={_KEY: json.dumps(header, sort_keys=True)})
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def recorded(folder: Path, kind: Kind, hospital: str | None = None) -> list[tuple[Observation, dict[str, Any]]]:
    """Return the recorded observations of one kind (and of one source), with their extras, by round and source.

    Raises:
        ValueError: a file is not a recorded observation (it is named).
    """
    pattern = f"{kind}-*.safetensors" if hospital is None else f"{kind}-*-{_slug(hospital)}.safetensors"
    found = [read_observation(path) for path in sorted(folder.glob(pattern))]
    return sorted(found, key=lambda pair: (pair[0].round, pair[0].hospital))


def file_name(kind: Kind, observation: Observation) -> str:
    """Return the name of an observation's file; a running sum has one file per source."""
    number = "sum" if observation.rounds else f"{observation.round:06d}"
    return f"{kind}-{number}-{_slug(observation.hospital)}.safetensors"


def read_observation(path: Path) -> tuple[Observation, dict[str, Any]]:
    """Return what one file holds, and its extras.

    Raises:
        ValueError: the file is not a recorded observation.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        observation = Observation(
            round=int(header["round"]),
            hospital=str(header["hospital"]),
            spec=ModelSpec.from_json(header["spec"]),
            weights=_under(tensors, _SENT),
            release=_under(tensors, _CAME),
            terms=PublicTerms(**header["terms"]),
            members=tuple(str(name) for name in header["members"]),
            rounds=tuple(int(number) for number in header["rounds"]),
        )
        return observation, dict(header["extra"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a recorded observation: {error}") from error


def _slug(hospital: str) -> str:
    readable = re.sub(r"[^a-z0-9]+", "-", hospital.lower()).strip("-")[:40]
    digest = hashlib.sha256(hospital.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{readable}-{digest}"


def _under(tensors: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
