"""How far the adversary's public images are from the images it attacks."""

import numpy as np
from numpy.typing import NDArray

from simulation.scoring.similarity import Images, squared_errors

MOST = 200  # images on either side
_SEED = 20_251  # which ones; a constant of the scorer
_EQUAL = 1e-6  # what is nearer differs by rounding only


def public_distance(targets: Images, public: Images, units: NDArray[np.str_]) -> float | None:
    """Return how much farther a target's nearest public image is than a public image's own nearest, as a ratio.

    1.0: the adversary owns images that are to the targets as they are to each other, as if drawn from the same source;
    2.0: the nearest of them is twice as far; below 1: the public images are more varied than the targets. Distance is
    the root mean squared difference of intensities, averaged over images. A public image is not compared with images
    of its own unit (lesion, scan), since no unit of a target is public; and each target is kept from the unit of one
    public image as well, so that both sides choose among as many. Computed by the scorer: no adversary can.

    The targets are as the network saw them, flips and shifts included, the public images are whole: what the attack
    has to live with. At most 200 images on either side are drawn (fixed by a constant).

    Args:
        targets: (n, channels, ...), uint8 or floats in [0, 1].
        public: (p, channels, ...).
        units: str (p,), the unit of each public image.

    Returns:
        The ratio; None without targets, with public images of fewer than two units, or where all of them are equal.

    Raises:
        ValueError: units do not fit the images.
    """
    if len(units) != len(public):
        raise ValueError(f"{len(public)} public images, but units of {len(units)}")
    _, unit = np.unique(units, return_inverse=True)
    if not len(targets) or len(np.unique(unit)) < 2:
        return None
    rng = np.random.default_rng(_SEED)
    asked = rng.permutation(len(public))[:MOST]
    shown = rng.permutation(len(targets))[:MOST]
    own = unit[asked]
    among = _nearest(public[asked], public, own[:, None] == unit)
    left_out = own[np.arange(len(shown)) % len(own)]
    from_targets = _nearest(targets[shown], public, left_out[:, None] == unit)
    return float(from_targets / among) if among > _EQUAL else None


def _nearest(images: Images, public: Images, excluded: NDArray[np.bool_]) -> float:
    """Return the mean distance of the images to their nearest public image that is not excluded."""
    errors = squared_errors(images, public)
    errors[excluded] = np.inf
    return float(np.sqrt(errors.min(axis=1)).mean())
