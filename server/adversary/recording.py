"""Observations on disk: one safetensors file each, its header a JSON text; nothing is pickled."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from server.adversary.base import Observation, PublicTerms, View
from server.adversary.placements import placement as seat
from tasks.models import ModelSpec

_KEY = "observation"
_SENT, _CAME = "sent/", "came/"


def save_observation(folder: Path, observation: Observation) -> Path:
    """Write one observation into the folder, bit for bit, and return the file.

    The file appears complete or not at all (temporary name, then rename); the same round and hospital again
    replaces it. The name carries a digest of the hospital's name, so that any name is safe and no two
    collide.
    """
    header = {
        "round": observation.round,
        "hospital": observation.hospital,
        "spec": observation.spec.to_json(),
        "terms": asdict(observation.terms),
    }
    tensors: dict[str, NDArray[Any]] = {
        **{_SENT + name: np.asarray(value, order="C") for name, value in observation.weights.items()},
        **{_CAME + name: np.asarray(value, order="C") for name, value in observation.release.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / _file_name(observation.round, observation.hospital)
    partial = target.with_suffix(f".{os.getpid()}.partial")
    try:
        save_file(tensors, partial, metadata={_KEY: json.dumps(header, sort_keys=True)})
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def load_view(folder: Path, placement: str) -> View:
    """Return everything recorded in a folder as one placement's view, ordered by round and hospital.

    Raises:
        ValueError: the placement is not known, or a file is not a recorded observation (it is named).
    """
    capabilities = seat(placement).capabilities
    observations = [_load(path) for path in sorted(folder.glob("*.safetensors"))]
    observations.sort(key=lambda seen: (seen.round, seen.hospital))
    return View(placement, capabilities, tuple(observations))


def _file_name(round_number: int, hospital: str) -> str:
    readable = re.sub(r"[^a-z0-9]+", "-", hospital.lower()).strip("-")[:40]
    digest = hashlib.sha256(hospital.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"round-{round_number:06d}-{readable}-{digest}.safetensors"


def _load(path: Path) -> Observation:
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        return Observation(
            round=int(header["round"]),
            hospital=str(header["hospital"]),
            spec=ModelSpec.from_json(header["spec"]),
            weights=_under(tensors, _SENT),
            release=_under(tensors, _CAME),
            terms=PublicTerms(**header["terms"]),
        )
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a recorded observation: {error}") from error


def _under(tensors: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
