"""What an adversary gets for free: the public mean, and a release that is noise alone."""

import zlib
from dataclasses import replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from server.adversary.base import Attack, Observation, PublicData, PublicTerms, Reconstruction, Trace
from server.adversary.public_model import mean_image

_SEED = 20_240  # the adversary's own constant, unrelated to any hospital's noise


@final
class MeanImage(Attack):
    """The null attack: one guess, the mean of the public images, whatever was released.

    On aligned medical images it alone reaches SSIM .5 and 20 dB, so no attack is reported without it.
    """

    name = "mean_image"
    needs: frozenset[str] = frozenset()

    def reconstruct(self, trace: Trace, public: PublicData) -> Reconstruction:
        """Return the public mean as the one guess; mid-grey without public images."""
        guess = mean_image(public, trace.last.spec.shape)[None]
        return Reconstruction(guess, np.zeros(1), "mean of the public images, no release read")


def noise_std(terms: PublicTerms) -> float:
    """Return the standard deviation of the noise on each coordinate of a release, 0 without noise.

    FedSGD: s*C on the gradient sum. FedAvg with plain SGD: each of T local steps adds lr*s*C/B, B the
    expected batch, so lr*s*C*sqrt(T)/B. Where gradients are not clipped, the terms state s with C = 1.
    """
    std = terms.noise_multiplier * (1.0 if terms.clipping_norm is None else terms.clipping_norm)
    if terms.local_steps > 1:
        std *= terms.learning_rate * np.sqrt(terms.local_steps) / max(terms.expected_batch, 1e-12)
    return float(std)


def noise_only(trace: Trace) -> Trace:
    """Return the same trace with releases of pure noise, as the public terms describe it.

    The draws are fixed by a constant, the round and the source's name. Without noise the releases are zero.
    """
    return Trace(tuple(_noise_only(seen) for seen in trace.observations))


def _noise_only(observation: Observation) -> Observation:
    std = noise_std(observation.terms) * np.sqrt(len(observation.added))
    rng = np.random.default_rng([_SEED, observation.round, zlib.crc32(observation.hospital.encode())])

    def blank(shape: tuple[int, ...]) -> NDArray[np.float64]:
        if std == 0:
            return np.zeros(shape)
        noise = rng.standard_normal(shape)
        return np.multiply(noise, std, out=noise)

    release = {name: blank(value.shape) for name, value in sorted(observation.release.items())}
    return replace(observation, release=release)
