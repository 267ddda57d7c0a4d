"""Local training: one gradient sum (FedSGD) or several local steps (FedAvg, FedProx), as one function."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clients.gradients import GradientEngine
from clients.planning import Plan
from clients.sampling import Draw, draws_of_round
from configs.sections import TrainingSettings
from configs.seeds import derive
from tasks.base import Records
from tasks.views import view

NOISE_AT_ONCE = 2**22  # numbers
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "nadam": torch.optim.NAdam}


def local_update(
    *,
    engine: GradientEngine,
    weights: dict[str, Tensor],
    records: Records,
    unit_rows: list[NDArray[np.int64]],
    plan: Plan,
    training: TrainingSettings,
    root: str,
    run: str,
    round_number: int,
    broadcast: str,
    size: Sequence[int],
) -> dict[str, NDArray[np.float64]]:
    """Return what the hospital releases, float64 by parameter name.

    FedSGD (`local_steps` 1): the sum of the drawn units' gradients, clipped and noised as the plan says.
    Otherwise: the difference of the weights, after minus before, accumulated in float64.

    Guarantee: with a claiming plan, every step touches the records only through a sum of Poisson-drawn units of
    sensitivity C plus Gaussian noise of standard deviation s*C per coordinate; the release is computed from these
    sums alone. Empty draws take the same noisy step.
    Assumes: `plan` was charged to the ledger, for `local_steps` steps, before the release leaves.
    Edge cases: zero noise releases the clipped sum itself, and claims nothing.

    Args:
        engine: of the broadcast architecture.
        weights: the broadcast parameters and buffers.
        records: the hospital's records.
        unit_rows: positions of each unit's records.
        plan: the hospital's terms.
        training: steps, views and optimiser.
        root: the hospital stream's root.
        run: the run and its data; two runs of one seed draw alike and never share noise, which their difference
            would cancel.
        round_number: from 1.
        broadcast: sha256 of the broadcast; another broadcast never meets the same noise.
        size: spatial shape of what the model is trained on: the image's, or a crop's.
    """
    engine.load(weights)

    def steps() -> Iterator[Tensor]:
        whole = records.images.shape[1:]
        draws = draws_of_round(root, plan, training, round_number, unit_rows, whole=whole, size=size)
        for step, drawn in enumerate(draws):
            noise_seed = derive(root, "noise", run, plan.hospital, round_number, step, broadcast)
            yield noisy_sum(engine, records, drawn, plan, noise_seed)

    if training.local_steps == 1:
        return _arrays(engine.by_name(next(steps())))
    return _arrays(engine.by_name(_descend(engine, steps(), plan, training)))


def noisy_sum(engine: GradientEngine, records: Records, drawn: Draw, plan: Plan, noise_seed: int) -> Tensor:
    """Return the gradient sum of one draw, clipped and noised as the plan says: float64 (size,)."""
    images = view(torch.from_numpy(records.pixels(drawn.rows)).to(engine.device), drawn.views)
    targets = torch.from_numpy(records.targets(drawn.rows)).to(engine.device)
    if records.masks is not None:
        targets = view(targets, drawn.views)
    if plan.clipping_norm is None:
        # An image's gradient is the mean over its views: without clipping the scale is that of one view.
        total = engine.plain_sum(images, targets) / drawn.per_image
    else:
        total = engine.clipped_sum(images, targets, torch.from_numpy(drawn.groups), plan.clipping_norm)
    if plan.added > 0:
        rng = np.random.default_rng(noise_seed)
        for part in total.split(NOISE_AT_ONCE):  # the same draws in the same order as all at once
            part.add_(plan.noise_std * torch.from_numpy(rng.standard_normal(len(part))))
    return total


def _descend(engine: GradientEngine, sums: Iterator[Tensor], plan: Plan, training: TrainingSettings) -> Tensor:
    """Take the local steps on a float64 copy of the weights and return after minus before."""
    before = engine.read()
    here = torch.nn.Parameter(before.clone())
    kind: Any = OPTIMIZERS[training.optimizer]
    optimizer = kind([here], lr=training.learning_rate)
    for total in sums:
        here.grad = total / max(plan.expected_batch, 1e-12)
        if training.proximal:
            here.grad = here.grad + training.proximal * (here.detach() - before)
        optimizer.step()
        engine.write(here.detach())
    return here.detach() - before


def _arrays(parts: dict[str, Tensor]) -> dict[str, NDArray[np.float64]]:
    return {name: np.ascontiguousarray(part.numpy()) for name, part in parts.items()}
