"""From a hospital's own settings to its side of a secure sum: its peers' signing keys, its terms, its release."""

import functools
import itertools
import json
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from clients.round_keys import directory
from clients.secure_sum import Party
from clients.site import Site, site
from clients.sum_terms import sum_terms
from tasks.models import ModelSpec


@functools.lru_cache(maxsize=4)
def _names(settings_path: str) -> tuple[str, ...]:
    """Return the names of all hospitals of the agreed federation, from this hospital's own settings."""
    found: list[str] = []
    for partition in itertools.count():
        try:
            found.append(site(settings_path, partition).plan.hospital)
        except IndexError:
            return tuple(found)
    raise AssertionError("itertools.count() ended")


def party(settings_path: str, here: Site) -> Party:
    """Return what the hospital knows before any round."""
    experiment = here.settings.experiment
    names = _names(settings_path)
    return Party(
        hospital=here.plan.hospital,
        root=here.settings.root,
        run=here.run,
        data=here.noise_run,
        directory=directory(here.settings.root, names),
        threshold=lambda taking_part: experiment.sum_threshold(len(names), taking_part),
        terms=sum_terms(here.plan, experiment.training, experiment.privacy),
        journal=here.settings.ledgers,
    )


def released_vector(
    here: Site, round_number: int, spec: ModelSpec, weights: Mapping[str, NDArray[np.float32]], broadcast: str
) -> tuple[NDArray[np.float64], str]:
    """Return the charged release as one vector (size,), parts in the order of their names, and its layout.

    Raises:
        RefusalError: as :meth:`Site.release`.
    """
    tensors = {name: torch.from_numpy(value.copy()) for name, value in weights.items()}
    arrays = here.release(round_number, spec, tensors, broadcast).arrays
    names = sorted(arrays)
    layout = json.dumps([[name, list(arrays[name].shape)] for name in names])
    return np.concatenate([arrays[name].ravel() for name in names]), layout
