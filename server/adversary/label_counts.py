"""How many images of each class a release was made from, read off the last layer's bias."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import lsq_linear
from torch import Tensor, nn

from server.adversary.base import RELEASES, Attack, Observation, PublicData, PublicTerms, Trace, Weights
from server.adversary.nulls import noise_std
from tasks.models import ModelSpec, build, load_weights, normalise

_PASSES = 512  # backward passes that the adversary spends on its public images per exchange
_FORWARD = 256  # public images that predictions are averaged over
_FIRM = 1e4  # weight of the sum over classes against everything else

Floats = NDArray[np.float64]


@final
class LabelCounts(Attack):
    """Label counts from the bias gradient of the logits: iDLG for one image, least squares for a batch.

    For cross entropy the gradient of an image of class k is p - e_k, p its predictions (Zhao et al. 2020), and a
    release is a sum of them (Yin et al. 2021, Wainakh et al. 2022). The adversary learns what p - e_k is on average,
    clipped as the terms say, by asking the broadcast model about its public images; the counts are the non-negative
    ones of the known total that explain the release best, with its noise, the scatter of p and a broad prior around
    the public classes weighed against each other. FedAvg: the difference of weights over learning rate and steps, with
    p averaged over the first and the last model. All rounds of a trace are explained at once.

    Weak where the model is sure and right, as p - e_k is then nothing, where local optimisers are not plain SGD, and
    where the public images are predicted differently from the hospital's.
    """

    name = "label_counts"
    needs = frozenset({RELEASES})
    yields = "labels"

    def label_counts(self, trace: Trace, public: PublicData) -> NDArray[np.float64]:
        """Return expected counts over the distinct images of the trace, (classes,); not whole numbers.

        Raises:
            ValueError: the model's labels are masks, or its logits have no bias that was released.
        """
        return composition(trace.observations, public) * distinct_images(trace.observations)


@final
@dataclass(frozen=True)
class _Equations:
    """Linear equations for the counts of one exchange: response.T @ counts = seen, give or take spread."""

    response: Floats  # (classes, logits)
    seen: Floats  # (logits,)
    spread: Floats  # (logits,)
    fewest: Floats  # (classes,), what the release proves; zeros where there is noise


def head_of(spec: ModelSpec) -> str | None:
    """Return the name of the bias that is added to the logits, None if the labels are masks or there is none."""
    if spec.dense:
        return None
    with torch.device("meta"):
        model = build(spec)
    heads = [n for n, layer in model.named_modules() if isinstance(layer, nn.Linear) and not n.startswith("wide")]
    biases = {name: len(value) for name, value in model.named_parameters() if name.endswith(".bias")}
    name = f"{heads[-1]}.bias" if heads else ""
    return name if biases.get(name) == spec.outputs else None


def composition(observations: Sequence[Observation], public: PublicData) -> Floats:
    """Return the estimated share of each class in the images behind exchanges of one source, (classes,), sum 1.

    Raises:
        ValueError: the model's labels are masks, or its logits have no bias that was released.
    """
    classes = max(2, observations[0].spec.outputs)
    prior = class_shares(public, classes)
    usable = [(seen, bias) for seen in observations if np.isfinite(bias := _bias(seen)).all() and bias.any()]
    if not usable:
        return prior
    total = max(1e-9, usable[-1][0].terms.expected_batch)
    if round(total) == 1 and noise_std(usable[-1][0].terms) == 0 and usable[-1][0].terms.local_steps == 1:
        return _single(usable[-1][1], classes)
    equations = [_equations(seen, bias, public, prior) for seen, bias in usable]
    fewest = np.max([e.fewest for e in equations], axis=0)
    total = max(total, fewest.sum())
    width = np.sqrt(total**2 * prior * (1 - prior) / (classes + 1) + total * prior * (1 - prior)) + 1e-9
    left = np.concatenate([(e.response / e.spread).T for e in equations] + [np.diag(1 / width)])
    right = np.concatenate([e.seen / e.spread for e in equations] + [total * prior / width])
    firm = _FIRM * np.abs(left).max()
    left, right = np.vstack([left, np.full((1, classes), firm)]), np.append(right, firm * total)
    most = np.full(classes, total) + 1e-6
    counts = np.clip(lsq_linear(left, right, bounds=(np.minimum(fewest, most - 1e-7), most)).x, 0, None)
    return counts / counts.sum()


def distinct_images(observations: Sequence[Observation]) -> float:
    """Return the expected number of distinct images behind exchanges of one source: B/q (1 - (1 - q)^steps)."""
    terms = observations[-1].terms
    steps = terms.local_steps * len({r for seen in observations for r in seen.added})
    return expected_distinct(terms, steps)


def expected_distinct(terms: PublicTerms, steps: int) -> float:
    """Return how many distinct images so many steps are expected to draw."""
    q = min(1.0, terms.sample_rate)
    return terms.expected_batch if q >= 1 or steps == 1 else terms.expected_batch / q * (1 - (1 - q) ** steps)


def class_shares(public: PublicData, classes: int) -> Floats:
    """Return the share of each class among the public images plus one image of each; equal if labels are not known."""
    if public.targets is None or public.targets.ndim != 1:
        return np.full(classes, 1 / classes)
    counts = np.bincount(public.targets.astype(np.int64), minlength=classes)[:classes] + 1.0
    return counts / counts.sum()


def _bias(seen: Observation) -> Floats:
    """Return the released bias as a sum of gradients of one step, (logits,)."""
    name = head_of(seen.spec)
    if name is None:
        raise ValueError("labels are counted for classifiers whose logits have a bias; this model's labels are masks")
    found = seen.release.get(name, seen.release.get(name.removeprefix("core.")))
    if found is None:
        raise ValueError("the bias of the logits was not released")
    terms = seen.terms
    per_step = -terms.expected_batch / (terms.learning_rate * terms.local_steps) if terms.local_steps > 1 else 1.0
    return np.asarray(found, dtype=np.float64) * per_step / len(seen.added)


def _single(bias: Floats, classes: int) -> Floats:
    """Return the class of a lone image: p - e_k is negative at k alone (Zhao et al. 2020)."""
    label = int(bias[0] < 0) if len(bias) == 1 else int(np.argmin(bias))
    return np.eye(classes)[label]


def _equations(seen: Observation, bias: Floats, public: PublicData, prior: Floats) -> _Equations:
    terms = seen.terms
    models = [seen.weights]
    if terms.local_steps > 1:
        models.append(_after(seen))
    found = [_responses(seen.spec, weights, public, terms.clipping_norm, len(prior)) for weights in models]
    response = np.mean([mean for mean, _ in found], axis=0)
    scatter = np.mean([variance for _, variance in found], axis=0)
    noise = noise_std(terms) / np.sqrt(len(seen.added))
    if terms.local_steps > 1:
        noise *= terms.expected_batch / (terms.learning_rate * terms.local_steps)
    # What a finite sample of public images leaves open counts for every image of the batch alike.
    batch = terms.expected_batch
    spread = np.sqrt(noise**2 + scatter * batch * (1 + batch / max(1, min(len(public.images), _FORWARD)))) + 1e-9
    fewest = np.zeros(len(prior))
    if noise == 0 and terms.local_steps == 1 and len(seen.added) == 1:
        longest = min(1.0, terms.clipping_norm or 1.0)  # of an image's gradient in one logit
        proven = np.ceil(np.maximum(0, -bias) / longest - 1e-4)
        fewest = proven if len(bias) > 1 else np.array([np.ceil(max(0, bias[0]) / longest - 1e-4), proven[0]])
    return _Equations(response, bias, spread, fewest)


def _after(seen: Observation) -> Weights:
    """Return the weights after the hospital's steps: what was sent plus what was released."""
    moved = {n: seen.release.get(n, seen.release.get(n.removeprefix("core."))) for n in seen.weights}
    return {n: w if (m := moved[n]) is None else (w + m / len(seen.added)).astype(np.float32)
            for n, w in seen.weights.items()}  # fmt: skip


def _responses(
    spec: ModelSpec, weights: Weights, public: PublicData, norm: float | None, classes: int
) -> tuple[Floats, Floats]:
    """Return what an image of each class adds to the bias, (classes, logits), and how that scatters, (logits,)."""
    model = build(spec)
    load_weights(model, {name: torch.tensor(np.asarray(value)) for name, value in weights.items()})
    pixels = public.images if len(public.images) else np.full((1, *spec.shape), 128, dtype=np.uint8)
    count = _FORWARD if norm is None else max(2, _PASSES // (1 if spec.outputs == 1 else classes))
    chosen = np.unique(np.linspace(0, len(pixels) - 1, min(len(pixels), count)).astype(np.int64))
    known = public.targets[chosen] if public.targets is not None and public.targets.ndim == 1 else None
    inputs = normalise(torch.from_numpy(pixels[chosen]))
    pulls = _pulls(model, inputs, classes)
    if norm is not None:
        pulls *= _clipping(model, inputs, pulls, norm)[..., None]
    means, variances = np.zeros(pulls.shape[1:]), np.zeros(pulls.shape[1:])
    for k in range(classes):
        own = pulls[:, k] if known is None or not np.any(known == k) else pulls[known == k, k]
        means[k] = own.mean(axis=0)
        variances[k] = own.var(axis=0) if len(own) > 1 else pulls[:, k].var(axis=0)
    return means, variances.mean(axis=0)


def _pulls(model: nn.Module, inputs: Tensor, classes: int) -> Floats:
    """Return p - e_k of every image for every class k, (n, classes, logits)."""
    with torch.no_grad():
        logits = torch.cat([model(part) for part in inputs.split(32)]).double()
    if logits.shape[1] == 1:
        return torch.sigmoid(logits).numpy()[:, None] - np.arange(2.0)[None, :, None]
    return torch.softmax(logits, dim=1).numpy()[:, None] - np.eye(classes)[None]


def _clipping(model: nn.Module, inputs: Tensor, pulls: Floats, norm: float) -> Floats:
    """Return the factor by which clipping shortens each image's gradient, for every class, (n, classes)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    factors = np.ones(pulls.shape[:2])
    for i, image in enumerate(inputs):
        logits = model(image[None])[0]
        if pulls.shape[2] == 1:  # one logit: the gradient is (p - k) times that of the logit
            lengths = np.abs(pulls[i, :, 0]) * _length(torch.autograd.grad(logits[0], parameters))
        else:
            lengths = np.array(
                [
                    _length(torch.autograd.grad(logits @ torch.from_numpy(pull).float(), parameters, retain_graph=True))
                    for pull in pulls[i]
                ]
            )
        factors[i] = np.minimum(1.0, norm / np.maximum(lengths, 1e-30))
    return factors


def _length(gradients: Sequence[Tensor]) -> float:
    return float(torch.sqrt(torch.stack([g.double().square().sum() for g in gradients]).sum()))
