"""The adversary's public data on disk, as the simulation prepared them."""

from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from server.adversary.base import PublicData
from server.checkpoints import read_arrays, write_arrays


def save_public(path: Path, public: PublicData) -> None:
    """Write public data for the coordinator to read."""
    arrays: dict[str, NDArray[np.generic]] = {"images": public.images}
    if public.targets is not None:
        arrays["targets"] = public.targets
    write_arrays(path, arrays, {"description": public.description})


def load_public(path: Path) -> PublicData | None:
    """Read public data; None if there are none."""
    if not path.is_file():
        return None
    arrays, metadata = read_arrays(path)
    targets = cast("NDArray[np.integer] | None", arrays.get("targets"))
    return PublicData(arrays["images"].astype(np.uint8), metadata["description"], targets)
