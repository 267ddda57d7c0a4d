"""How many images of each class a release was made from, read off the last layer's gradient."""

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

_PASSES = 256  # backward passes that the adversary spends on its public images per exchange
_FORWARD = 256  # public images that predictions are averaged over
_FIRM = 1e4  # weight of the sum over classes against everything else

Floats = NDArray[np.float64]


@final
class LabelCounts(Attack):
    """Label counts from the gradient of the last layer: iDLG for one image, least squares for a batch.

    For cross entropy the logits' gradient of an image of class k is p - e_k, p its predictions (Zhao et al. 2020), and
    a release is a sum of them (Yin et al. 2021, Wainakh et al. 2022). It is read twice: from the bias, which is exact,
    and from the weights along the mean feature h of the public images, (p - e_k) h.v, which is louder against noise.
    The adversary learns what both are on average, clipped as the terms say, by asking the broadcast model about its
    public images; the counts are the non-negative ones of the known total that explain the release best, with its
    noise, the scatter over images and a broad prior around the public classes weighed against each other. FedAvg: the
    difference of weights over learning rate and steps, answered by the mean of the first and the last model. All
    rounds of a trace are explained at once.

    Weak where the model is sure and right, as p - e_k is then nothing; where the public images are predicted
    differently from the hospital's; where local steps carry the model far (40 images of 7 classes, 3 steps: a total
    error of .04 of the images at a learning rate of .002, .15 at .02); and where local optimisers are not plain SGD.
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

    response: Floats  # (classes, 2 * logits)
    seen: Floats  # (2 * logits,), of the bias, then of the weights along the mean feature
    spread: Floats  # (2 * logits,)
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
    equations = [_equations(seen, bias, public, classes) for seen, bias in usable]
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
    return _summed(seen, name)


def _summed(seen: Observation, name: str) -> Floats:
    """Return what was released of one parameter as a sum of gradients of one step."""
    found = seen.release.get(name, seen.release.get(name.removeprefix("core.")))
    if found is None:
        raise ValueError(f"'{name}' was not released, and labels are read from it")
    return np.asarray(found, dtype=np.float64) * _per_step(seen.terms) / len(seen.added)


def _per_step(terms: PublicTerms) -> float:
    """Return what turns a release into the mean gradient sum of one step."""
    return -terms.expected_batch / (terms.learning_rate * terms.local_steps) if terms.local_steps > 1 else 1.0


def _single(bias: Floats, classes: int) -> Floats:
    """Return the class of a lone image: p - e_k is negative at k alone (Zhao et al. 2020)."""
    label = int(bias[0] < 0) if len(bias) == 1 else int(np.argmin(bias))
    return np.eye(classes)[label]


def _equations(seen: Observation, bias: Floats, public: PublicData, classes: int) -> _Equations:
    terms = seen.terms
    chosen, known = _examples(seen, public, classes)
    first = _Asked(seen.spec, seen.weights, chosen)
    along = first.features.mean(axis=0)
    along /= max(float(np.linalg.norm(along)), 1e-30)
    asked = [first] if terms.local_steps == 1 else [first, _Asked(seen.spec, _after(seen), chosen)]
    found = [one.responses(along, known, terms.clipping_norm, classes) for one in asked]
    response = np.mean([mean for mean, _ in found], axis=0)
    scatter = np.mean([variance for _, variance in found], axis=0)
    noise = abs(noise_std(terms) * _per_step(terms)) / np.sqrt(len(seen.added))
    # What a finite sample of public images leaves open counts for every image of the batch alike.
    batch = terms.expected_batch
    spread = np.sqrt(noise**2 + scatter * batch * (1 + batch / max(1, min(len(public.images), len(chosen))))) + 1e-9
    fewest = np.zeros(classes)
    if noise == 0 and terms.local_steps == 1 and len(seen.added) == 1:
        longest = min(1.0, terms.clipping_norm or 1.0)  # of an image's gradient in one logit
        proven = np.ceil(np.maximum(0, -bias) / longest - 1e-4)
        fewest = proven if len(bias) > 1 else np.array([np.ceil(max(0, bias[0]) / longest - 1e-4), proven[0]])
    weight = _summed(seen, (head_of(seen.spec) or "").removesuffix("bias") + "weight")
    return _Equations(response, np.concatenate([bias, weight @ along]), spread, fewest)


def _after(seen: Observation) -> Weights:
    """Return the weights after the hospital's steps: what was sent plus what was released."""
    moved = {n: seen.release.get(n, seen.release.get(n.removeprefix("core."))) for n in seen.weights}
    return {
        n: w if (m := moved[n]) is None else (w + m / len(seen.added)).astype(np.float32)
        for n, w in seen.weights.items()
    }


def _examples(seen: Observation, public: PublicData, classes: int) -> tuple[Tensor, NDArray[np.integer] | None]:
    """Return public images as the model's input (n, channels, ...), mid-grey if there are none, and their labels."""
    pixels = public.images if len(public.images) else np.full((1, *seen.spec.shape), 128, dtype=np.uint8)
    clips = seen.terms.clipping_norm is not None
    count = max(2, _PASSES // (1 if seen.spec.outputs == 1 else classes)) if clips else _FORWARD
    chosen = np.unique(np.linspace(0, len(pixels) - 1, min(len(pixels), count)).astype(np.int64))
    known = public.targets[chosen] if public.targets is not None and public.targets.ndim == 1 else None
    return normalise(torch.from_numpy(pixels[chosen])), known


@final
class _Asked:
    """A model's answers to the adversary's images: logits (n, logits) and features of the last layer (n, f)."""

    def __init__(self, spec: ModelSpec, weights: Weights, inputs: Tensor) -> None:
        self.model = build(spec)
        load_weights(self.model, {name: torch.tensor(np.asarray(value)) for name, value in weights.items()})
        self.inputs = inputs
        seen: list[Tensor] = []
        head = self.model.get_submodule((head_of(spec) or "").removesuffix(".bias"))
        hook = head.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
        with torch.no_grad():
            self.logits = torch.cat([self.model(part) for part in inputs.split(32)]).double()
        hook.remove()
        self.features = torch.cat(seen).double().numpy()

    def responses(
        self, along: Floats, known: NDArray[np.integer] | None, norm: float | None, classes: int
    ) -> tuple[Floats, Floats]:
        """Return what an image of each class adds, (classes, 2 * logits), and how that scatters, (2 * logits,)."""
        pulls = self._pulls(classes)
        both = np.concatenate([pulls, pulls * (self.features @ along)[:, None, None]], axis=2)
        if norm is not None:
            both *= self._clipping(pulls, norm)[..., None]
        means, variances = np.zeros(both.shape[1:]), np.zeros(both.shape[1:])
        for k in range(classes):
            own = both[:, k] if known is None or not np.any(known == k) else both[known == k, k]
            means[k] = own.mean(axis=0)
            variances[k] = own.var(axis=0) if len(own) > 1 else both[:, k].var(axis=0)
        return means, variances.mean(axis=0)

    def _pulls(self, classes: int) -> Floats:
        """Return p - e_k of every image for every class k, (n, classes, logits)."""
        if self.logits.shape[1] == 1:
            return torch.sigmoid(self.logits).numpy()[:, None] - np.arange(2.0)[None, :, None]
        return torch.softmax(self.logits, dim=1).numpy()[:, None] - np.eye(classes)[None]

    def _clipping(self, pulls: Floats, norm: float) -> Floats:
        """Return the factor by which clipping shortens each image's gradient, for every class, (n, classes)."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        factors = np.ones(pulls.shape[:2])
        for i, image in enumerate(self.inputs):
            logits = self.model(image[None])[0]
            if pulls.shape[2] == 1:  # one logit: the gradient is (p - k) times that of the logit
                lengths = np.abs(pulls[i, :, 0]) * _length(torch.autograd.grad(logits[0], parameters))
            else:
                pulled = [logits @ torch.from_numpy(pull).float() for pull in pulls[i]]
                lengths = np.array([_length(torch.autograd.grad(x, parameters, retain_graph=True)) for x in pulled])
            factors[i] = np.minimum(1.0, norm / np.maximum(lengths, 1e-30))
        return factors


def _length(gradients: Sequence[Tensor]) -> float:
    return float(torch.sqrt(torch.stack([g.double().square().sum() for g in gradients]).sum()))
