"""The search of gradient inversion: images (and labels) whose release would look like the one that was seen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, final

import torch
from torch import Tensor

from server.adversary.inversion_release import Exchange, released
from tasks.models.build import PIXEL_MEAN, PIXEL_STD

LOWEST, HIGHEST = (0 - PIXEL_MEAN) / PIXEL_STD, (1 - PIXEL_MEAN) / PIXEL_STD
_MILESTONES = (3 / 8, 5 / 8, 7 / 8)  # of the iterations, where the step falls to a tenth (Geiping et al. 2020)
_TINY = 1e-30
FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))  # axes, as hospitals flip their views

Distance = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]


@final
@dataclass(frozen=True)
class Guess:
    """A state of the search.

    Attributes:
        inputs: float32 (n, channels, ...), normalised.
        label_logits: float32 (n, classes, ...); softmax gives the labels.
        objective: what is minimised, at this state.
    """

    inputs: Tensor
    label_logits: Tensor
    objective: float


def cosine_distance(found: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Return 1 - cosine between two releases, all parameters as one vector (Geiping et al. 2020, equation 4)."""
    dot = torch.stack([(f * t).sum() for f, t in zip(found, target, strict=True)]).sum()
    return 1 - dot / torch.sqrt(_squared(found) * _squared(target) + _TINY)


def squared_distance(found: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Return the squared distance of two releases over the target's squared norm (Zhu et al. 2019, equation 2)."""
    gap = _squared([f - t for f, t in zip(found, target, strict=True)])
    return gap / (_squared(target) + _TINY)


def total_variation(inputs: Tensor) -> Tensor:
    """Return the sum over the spatial axes of the mean absolute difference of neighbours (anisotropic)."""
    axes = [axis for axis in range(2, inputs.dim()) if inputs.shape[axis] > 1]
    steps = [torch.diff(inputs, dim=axis).abs().mean() for axis in axes]
    return torch.stack(steps).sum() if steps else inputs.new_zeros(())


@final
@dataclass(frozen=True)
class Objective:
    """What is minimised: the mean distance over exchanges of the same images, and a little total variation.

    Attributes:
        exchanges: at least one; every one was made from the same images, flipped or not.
        flips: for every exchange and image an index into `FLIPS`; empty where nothing is flipped.
        distance: between what a guess would release and what was released.
        variation: weight of the total variation.
    """

    exchanges: tuple[Exchange, ...]
    distance: Distance
    variation: float
    flips: tuple[tuple[int, ...], ...] = ()

    def __call__(self, inputs: Tensor, label_logits: Tensor) -> Tensor:
        """Return the objective, a scalar that carries gradients."""
        apart = [self.apart(k, inputs, label_logits) for k in range(len(self.exchanges))]
        return torch.stack(apart).mean() + self.variation * total_variation(inputs)

    def apart(self, k: int, inputs: Tensor, label_logits: Tensor) -> Tensor:
        """Return the distance at exchange k alone."""
        exchange, labels = self.exchanges[k], torch.softmax(label_logits, dim=1)
        if self.flips and any(self.flips[k]):
            inputs = flipped(inputs, self.flips[k])
            labels = flipped(labels, self.flips[k]) if exchange.dense else labels
        return self.distance(released(exchange, inputs, labels), exchange.target)


def flipped(images: Tensor, flips: Sequence[int]) -> Tensor:
    """Return images (n, channels, ..., height, width), each flipped as `FLIPS` says."""
    return torch.stack([torch.flip(image, FLIPS[f]) for image, f in zip(images, flips, strict=True)])


def aligned(objective: Objective, guess: Guess) -> Objective:
    """Return the objective with the flips under which a guess fits each exchange best, image after image.

    The last exchange, from which the guess was made, is left as it is.
    """
    chosen: list[tuple[int, ...]] = []
    for k in range(len(objective.exchanges) - 1):
        flips = [0] * len(guess.inputs)
        for i in range(len(flips)):
            values: list[float] = []
            for f in range(len(FLIPS)):
                flips[i] = f
                one = replace(objective, exchanges=(objective.exchanges[k],), flips=(tuple(flips),))
                values.append(float(one.apart(0, guess.inputs, guess.label_logits).detach()))
            flips[i] = min(range(len(FLIPS)), key=values.__getitem__)
        chosen.append(tuple(flips))
    return replace(objective, flips=(*chosen, (0,) * len(guess.inputs)))


def search(
    objective: Objective,
    start: Guess,
    *,
    method: Literal["signed_adam", "lbfgs"],
    iterations: int,
    learning_rate: float,
    free_labels: bool,
) -> Guess:
    """Return the best state on the way from a start; the start itself where nothing finite is better.

    Args:
        objective: to be minimised.
        start: where to begin; its objective is not looked at.
        method: signed Adam with a step that decays, pixels held in [0, 1] (Geiping et al. 2020), or L-BFGS (Zhu et al.
            2019).
        iterations: gradient evaluations.
        learning_rate: of signed Adam, in normalised intensities.
        free_labels: whether the labels are searched for as well.
    """
    inputs = start.inputs.clone().requires_grad_()
    labels = start.label_logits.clone().requires_grad_(free_labels)
    variables = [inputs, labels] if free_labels else [inputs]
    best = Guess(start.inputs, start.label_logits, float("inf"))

    def evaluate() -> Tensor:
        nonlocal best
        value = objective(inputs, labels)
        found = torch.autograd.grad(value, variables)
        for variable, gradient in zip(variables, found, strict=True):
            variable.grad = gradient.sign() if method == "signed_adam" else gradient
        if float(value.detach()) < best.objective:
            best = Guess(inputs.detach().clone(), labels.detach().clone(), float(value.detach()))
        return value.detach()

    if method == "lbfgs":
        optimizer = torch.optim.LBFGS(
            variables, max_iter=iterations, max_eval=iterations, history_size=50, line_search_fn="strong_wolfe"
        )
        optimizer.step(evaluate)
        return best
    adam = torch.optim.Adam(variables, lr=learning_rate)
    decay = torch.optim.lr_scheduler.MultiStepLR(adam, [round(m * iterations) for m in _MILESTONES], gamma=0.1)
    for _ in range(iterations):
        if not torch.isfinite(evaluate()):
            break
        adam.step()
        decay.step()
        with torch.no_grad():
            inputs.clamp_(LOWEST, HIGHEST)
    return best


def _squared(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack([part.square().sum() for part in parts]).sum()
