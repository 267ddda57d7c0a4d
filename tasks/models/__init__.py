"""Models that are safe for per-image gradients, built from plain JSON."""

from tasks.models.build import (
    build,
    check_per_image,
    denormalise,
    initial_weights,
    load_weights,
    normalise,
    parameter_names,
)
from tasks.models.spec import ModelSpec, WideBlock

__all__ = [
    "ModelSpec",
    "WideBlock",
    "build",
    "check_per_image",
    "denormalise",
    "initial_weights",
    "load_weights",
    "normalise",
    "parameter_names",
]
