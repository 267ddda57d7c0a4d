"""The adversary's public data on disk, as the simulation prepared them."""

from pathlib import Path

import numpy as np

from server.adversary.base import PublicData
from server.checkpoints import read_arrays, write_arrays


def save_public(path: Path, public: PublicData) -> None:
    """Write public data for the coordinator to read."""
    write_arrays(path, {"images": public.images}, {"description": public.description})


def load_public(path: Path) -> PublicData | None:
    """Read public data; None if there are none."""
    if not path.is_file():
        return None
    arrays, metadata = read_arrays(path)
    return PublicData(arrays["images"].astype(np.uint8), metadata["description"])
