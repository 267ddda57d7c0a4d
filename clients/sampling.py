"""Which records a hospital draws in a step, and how each view is made: pure functions of the hospital's root.

The scorer asks the same functions again to learn which images the adversary was after; nothing else tells it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from clients.planning import Plan
from configs.sections import TrainingSettings
from configs.seeds import derive
from tasks.views import Views, draw_views


@final
@dataclass(frozen=True)
class Draw:
    """One Poisson draw of units and the views made of their images.

    Attributes:
        units: int64 (m,), the drawn units in ascending order.
        rows: int64 (v,), one record per view; the views of an image stand side by side.
        groups: int64 (v,), for each view the position of its unit in `units`; ascending.
        views: how each view is read from its image.
        per_image: views per image.
    """

    units: NDArray[np.int64]
    rows: NDArray[np.int64]
    groups: NDArray[np.int64]
    views: Views
    per_image: int


def draw(
    root: str,
    hospital: str,
    round_number: int,
    step: int,
    *,
    unit_rows: list[NDArray[np.int64]],
    sample_rate: float,
    training: TrainingSettings,
    whole: Sequence[int],
    size: Sequence[int],
) -> Draw:
    """Draw each unit independently with probability `sample_rate` (Poisson sampling).

    Args:
        root: the hospital stream's root.
        hospital: the hospital's name.
        round_number: the round, from 1.
        step: the local step, from 0.
        unit_rows: for each unit the positions of its records.
        sample_rate: q in [0, 1].
        training: number of views, flips and shift.
        whole: spatial shape of the images.
        size: spatial shape of a view.
    """
    chooser = np.random.default_rng(derive(root, "sampling", hospital, round_number, step))
    chosen = np.flatnonzero(chooser.random(len(unit_rows)) < sample_rate).astype(np.int64)
    counts = [len(unit_rows[u]) * training.views for u in chosen]
    parts = [np.repeat(unit_rows[u], training.views) for u in chosen]
    rows = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    augmenter = np.random.default_rng(derive(root, "augmentation", hospital, round_number, step))
    return Draw(
        units=chosen,
        rows=rows.astype(np.int64),
        groups=np.repeat(np.arange(len(chosen), dtype=np.int64), counts),
        views=draw_views(augmenter, len(rows), training, whole=whole, size=size),
        per_image=training.views,
    )


def draws_of_round(
    root: str,
    plan: Plan,
    training: TrainingSettings,
    round_number: int,
    unit_rows: list[NDArray[np.int64]],
    *,
    whole: Sequence[int],
    size: Sequence[int],
) -> Iterator[Draw]:
    """Yield one draw per local step: what the hospital trains on, and what the scorer takes for the truth."""
    for step in range(training.local_steps):
        yield draw(
            root,
            plan.hospital,
            round_number,
            step,
            unit_rows=unit_rows,
            sample_rate=plan.sample_rate,
            training=training,
            whole=whole,
            size=size,
        )


def misses_round(root: str, hospital: str, round_number: int, probability: float) -> bool:
    """Whether a hospital is a straggler that misses this round."""
    return bool(np.random.default_rng(derive(root, "straggler", hospital, round_number)).random() < probability)
