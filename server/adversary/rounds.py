"""Several rounds of one source: releases of one block added up, or read one by one and brought together."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from server.adversary.base import Observation, Trace, Update
from tasks.models import ModelSpec

WEIGHT, BIAS, CENTRE = "wide.units.weight", "wide.units.bias", "wide.centre"
_MOST_PER_ROW = 8  # different contents of a row that are kept
_ROUNDING = 1e-8  # of the squared length: what two float32 gradients of one image differ by


def same_block(trace: Trace) -> tuple[Observation, ...]:
    """Return the observations that were sent the last one's block; its gain may differ, which no bin depends on.

    An image falls into the same row in all of them, whatever the agreed model has become. A row that is not finite
    is taken for silent in its round.
    """
    last = trace.last
    if last.spec.block is None or len(trace.observations) == 1:
        return (last,)
    same = [
        seen
        for seen in trace.observations
        if _shape(seen.spec) == _shape(last.spec)
        and all(
            seen.weights[name] is last.weights[name] or np.array_equal(seen.weights[name], last.weights[name])
            for name in (WEIGHT, BIAS, CENTRE)
        )
        and WEIGHT in seen.release
    ]
    return tuple(replace(seen, release=_finite(seen.release)) for seen in same) if len(same) > 1 else (last,)


def added_up(observations: Sequence[Observation]) -> Observation:
    """Return the releases of one block, of all rounds, as one observation."""
    last = observations[-1]
    if len(observations) == 1:
        return last
    release = {name: sum_of([seen.release[name] for seen in observations]) for name in (WEIGHT, BIAS)}
    rounds = tuple(sorted(r for seen in observations for r in seen.added))
    return replace(last, release=release, rounds=rounds)


def sum_of(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Add arrays one by one: no copy of all of them is made."""
    total = np.array(parts[0], dtype=np.float64)
    for part in parts[1:]:
        total += part
    return total


@final
@dataclass(frozen=True)
class Found:
    """What was found in rows when rounds were read one by one.

    Attributes:
        weight: float64 (m, D), and
        bias: float64 (m,): the mean of the rounds that agree, positive bias.
        row: int64 (m,), where it was found.
        rounds: in how many rounds, the same for all.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    row: NDArray[np.intp]
    rounds: int


def brought_together(
    observations: Sequence[Observation], heard: Sequence[NDArray[np.bool_]], std: float, *, clipped: bool
) -> list[Found]:
    """Return what the rows held in single rounds, the same image seen in several rounds as one.

    Where one round tells an image on its own, adding rounds up would only lay the images of one bin over each other:
    with few of n images drawn in a round a fraction (1 - 1/K)^(qn - 1) is alone in its bin, over all rounds
    (1 - 1/K)^(n - 1). Two rounds agree if their [z, 1] differ by no more than the noise.

    Args:
        observations: of the same block, in order.
        heard: for each, bool (R,), the rows that hold something.
        std: of the noise on a coordinate of one release.
        clipped: whether an image's amplitude is the same in every round; otherwise rounds weigh by their bias.
    """
    groups: dict[int, list[tuple[NDArray[np.float64], float, int]]] = defaultdict(list)
    for row in np.flatnonzero(np.any(heard, axis=0)).tolist():
        kept: list[_Cluster] = []
        for seen in (o for o, own in zip(observations, heard, strict=True) if own[row]):
            _file(kept, seen.release[WEIGHT][row], float(seen.release[BIAS][row]), std)
        for cluster in kept:
            groups[cluster.rounds].append((*cluster.mean(clipped), row))
    return [
        Found(np.stack([w for w, _, _ in own]), np.array([b for _, b, _ in own]), np.array([r for _, _, r in own]), m)
        for m, own in sorted(groups.items())
    ]


@final
class _Cluster:
    """Rounds whose row agrees; the sign is taken out."""

    def __init__(self, weight: NDArray[np.float64], bias: float) -> None:
        self.plain = weight, bias
        self.by_bias = bias * weight
        self.squares = bias**2
        self.rounds = 1

    def add(self, weight: NDArray[np.float64], bias: float) -> None:
        self.plain = self.plain[0] + weight, self.plain[1] + bias
        self.by_bias = self.by_bias + bias * weight
        self.squares += bias**2
        self.rounds += 1

    def mean(self, clipped: bool) -> tuple[NDArray[np.float64], float]:
        """Return the row that stands for all: the plain mean, or the one that loud rounds say most about."""
        if clipped:
            return self.plain[0] / self.rounds, self.plain[1] / self.rounds
        size = float(np.sqrt(self.squares / self.rounds))
        return self.by_bias / self.squares * size, size


def _file(kept: list[_Cluster], weight: NDArray[np.float64], bias: float, std: float) -> None:
    """Put a round's row to the first cluster that it agrees with, or into one of its own."""
    if bias == 0:
        return
    weight, bias = (weight, bias) if bias > 0 else (-weight, -bias)
    z = weight / bias
    for cluster in kept:
        other = cluster.by_bias / cluster.squares
        squared = float(other @ other)
        noise = std**2 * (1 / bias**2 + 1 / cluster.squares)
        most = noise * (len(z) + squared + 6 * np.sqrt(2.0 * len(z)) + 40) + _ROUNDING * (1 + squared)
        if float(np.sum((z - other) ** 2)) <= most:
            cluster.add(weight, bias)
            return
    if len(kept) < _MOST_PER_ROW:
        kept.append(_Cluster(weight, bias))


def _shape(spec: ModelSpec) -> ModelSpec:
    return spec if spec.block is None else replace(spec, block=replace(spec.block, gain=0.0))


def _finite(release: Update) -> Update:
    """Return the block's release with zeros in the rows that are not finite."""
    weight, bias = release[WEIGHT], release[BIAS]
    bad = ~(np.isfinite(weight).all(axis=1) & np.isfinite(bias))
    if not bad.any():
        return {WEIGHT: weight, BIAS: bias}
    weight, bias = weight.copy(), bias.copy()
    weight[bad], bias[bad] = 0.0, 0.0
    return {WEIGHT: weight, BIAS: bias}
