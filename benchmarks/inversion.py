"""Gradient inversion and imprint on real images, beside breaching on the same batches.

    FEDWARD_DATA=... python benchmarks/inversion.py [--images 20] [--iterations 400] [--variation .02]
                                                    [--breaching PATH] [--json]

HAM10000 at 32x32, one image per release (q = 1, no privacy, FedSGD), images of different lesions, the public mean of
2,000 images of other lesions as the start and the null. For breaching (Geiping et al., PyPI `breaching` 0.1.2) unpack
it without its dependencies, `pip install --no-deps --target PATH breaching`, and name PATH: its attack code is run as
published on the very same gradients, labels, start and number of iterations. Without PATH that arm is left out.
"""

import argparse
import csv
import json
import os
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from clients.gradients import GradientEngine
from configs.adversary import ImprintSettings, InversionSettings
from server.adversary.base import Observation, PublicData, PublicTerms, Trace
from server.adversary.imprint import Imprint
from server.adversary.inversion import Inversion, start_of
from server.adversary.public_model import mean_image
from simulation.scoring.assignment import pair
from tasks.models import ModelSpec, build, initial_weights, load_weights

SPEC = ModelSpec("convnet", (3, 32, 32), 1, 16)
PUBLIC, BATCH, ROWS = 2_000, 64, 512
Pixels = NDArray[np.uint8]


def read(count: int) -> tuple[Pixels, NDArray[np.int64], Pixels]:
    """Return (public images, labels melanoma or not of the rest, the rest: one image of every other lesion)."""
    root = Path(os.environ["FEDWARD_DATA"]) / "ham10000"
    files = {path.stem: path for path in root.glob("*/*.jpg")}
    with (root / "HAM10000_metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    lesions = sorted({row["lesion_id"] for row in rows})
    place = dict(zip(np.random.default_rng(0).permutation(lesions).tolist(), range(len(lesions)), strict=True))
    rows = sorted(rows, key=lambda row: place[row["lesion_id"]])
    public, rest = rows[:PUBLIC], rows[PUBLIC:]
    known = {row["lesion_id"] for row in public}
    single = {row["lesion_id"]: row for row in rest if row["lesion_id"] not in known}
    chosen = list(single.values())[:count]

    def pixels(some: list[dict[str, str]]) -> Pixels:
        size = (SPEC.shape[2], SPEC.shape[1])
        opened = (
            Image.open(files[row["image_id"]]).convert("RGB").resize(size, Image.Resampling.BILINEAR) for row in some
        )
        return np.stack([np.asarray(image) for image in opened]).transpose(0, 3, 1, 2).copy()

    return pixels(public), np.array([int(row["dx"] == "mel") for row in chosen]), pixels(chosen)


def observed(
    spec: ModelSpec, weights: dict[str, torch.Tensor], images: Pixels, labels: NDArray[np.int64]
) -> Observation:
    """Return what a hospital sends for one step over the images: FedSGD, no clipping, no noise."""
    engine = GradientEngine(build(spec), "binary")
    engine.load(weights)
    total = engine.by_name(engine.plain_sum(torch.from_numpy(images), torch.from_numpy(labels)))
    sent = {name: value.numpy() for name, value in weights.items()}
    terms = PublicTerms(None, 0.0, 1.0, 1, float(len(images)), 0.0)
    return Observation(1, "hospital", spec, sent, {name: value.numpy() for name, value in total.items()}, terms)


def interval(values: NDArray[np.float64]) -> str:
    """Return mean, 95 % t interval, least and n."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    mean = values.mean()
    return f"{mean:.2f} [{mean - half:.2f}, {mean + half:.2f}], least {values.min():.2f}, n = {len(values)}"


class Options(dict[str, Any]):
    """A dictionary whose keys are attributes, as hydra's configurations are."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


def load_breaching(path: Path) -> None:
    """Make breaching's attacks importable without its data sets, servers and their dependencies."""
    for name in ("breaching", "breaching.cases", "breaching.cases.models", "breaching.cases.malicious_modifications"):
        module = types.ModuleType(name)
        module.__path__ = [str(path.joinpath(*name.split(".")))]
        sys.modules[name] = module


def options(**changes: Any) -> Options:
    """Return breaching's `invertinggradients` with changes."""
    implementation = Options(dtype="float", mixed_precision=False, JIT=None)
    return Options(
        type="invertinggradients",
        objective=Options(type="cosine-similarity", scale=1.0),
        restarts=Options(num_trials=1, scoring="cosine-similarity"),
        init="randn",
        normalize_gradients=False,
        label_strategy=None,
        augmentations=None,
        differentiable_augmentations=False,
        optim=Options(
            optimizer="adam",
            signed="hard",
            step_size=0.1,
            boxed=True,
            max_iterations=changes["iterations"],
            step_size_decay="step-lr",
            langevin_noise=0.0,
            warmup=0,
            grad_clip=None,
            callback=10**9,
        ),
        regularization=Options(total_variation=Options(scale=changes["variation"], inner_exp=1, outer_exp=1)),
        impl=implementation,
    )


def payload(shape: tuple[int, ...], model: torch.nn.Module, gradients: list[torch.Tensor], labels: torch.Tensor) -> Any:
    """Return (server payload, shared data) in breaching's words; its normalisation is ours."""
    metadata = Options(shape=shape, mean=[0.5] * 3, std=[0.25] * 3, modality="vision", task="classification", classes=2)
    sent = [{"parameters": list(model.parameters()), "buffers": list(model.buffers()), "metadata": metadata}]
    about = {"num_data_points": len(labels), "labels": labels, "local_hyperparams": None}
    return sent, [{"gradients": gradients, "buffers": None, "metadata": about}]


def binary_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean binary cross entropy."""
    return torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels.float())


def by_breaching(seen: Observation, label: int, start: torch.Tensor, iterations: int, variation: float) -> NDArray[Any]:
    """Return breaching's reconstruction of one release, (1, 3, h, w) in [0, 1]."""
    from breaching.attacks import prepare_attack  # type: ignore[import-not-found]

    model = build(seen.spec)
    load_weights(model, {name: torch.tensor(np.asarray(value)) for name, value in seen.weights.items()})
    gradients = [torch.tensor(seen.release[name]).float() for name, _ in model.named_parameters()]
    config = Options({**options(iterations=iterations, variation=variation), "attack_type": "optimization"})
    sent, shared = payload(seen.spec.shape, model, gradients, torch.tensor([label]))
    attacker = prepare_attack(model, binary_loss, config)
    result, _ = attacker.reconstruct(sent, shared, {}, initial_data=start)
    return (result["data"].numpy() * 0.25 + 0.5).clip(0, 1)


def invert(args: argparse.Namespace) -> dict[str, Any]:
    """Run gradient inversion on every image, both arms, and return PSNRs."""
    public_images, labels, images = read(args.images)
    public = PublicData(public_images, "other lesions")
    null = mean_image(public, SPEC.shape)
    weights = initial_weights(SPEC, 0)
    found: dict[str, list[float]] = {}
    seconds = 0.0
    for image, label in zip(images, labels, strict=True):
        seen = observed(SPEC, weights, image[None], np.array([label]))
        arms = {"null": null}
        for objective in ("cosine", "idlg", "dlg"):
            settings = {"iterations": args.iterations, "total_variation": args.variation, "objective": objective}
            before = time.perf_counter()
            guesses = Inversion(InversionSettings.model_validate(settings)).reconstruct(Trace.of(seen), public)
            seconds += (time.perf_counter() - before) * (objective == "cosine")
            arms[f"ours, {objective}"] = guesses.images[0]
        if args.breaching:
            start = start_of(seen, 1, public, 0)
            arms["breaching, cosine"] = by_breaching(seen, int(label), start, args.iterations, args.variation)[0]
        for name, guess in arms.items():
            found.setdefault(name, []).append(float(-10 * np.log10(np.mean((guess - image / 255.0) ** 2))))
        print({name: round(values[-1], 2) for name, values in found.items()}, file=sys.stderr, flush=True)
    return {"psnr": found, "seconds_per_image": seconds / len(images)}


def imprint(args: argparse.Namespace) -> dict[str, Any]:
    """Run both imprints on the same batches of 64 with 512 rows and return the share copied (SSIM > .9)."""
    public_images, labels, images = read(5 * BATCH)
    public = PublicData(public_images, "other lesions")
    null = mean_image(public, SPEC.shape)
    found: dict[str, list[float]] = {}
    for first in range(0, len(images), BATCH):
        batch, some = images[first : first + BATCH], labels[first : first + BATCH]
        ours = Imprint(ImprintSettings(rows=ROWS))
        agreed = {name: value.numpy() for name, value in initial_weights(SPEC, 0).items()}
        spec, weights = ours.plant(SPEC, agreed, public)
        seen = observed(spec, {name: torch.tensor(np.asarray(value)) for name, value in weights.items()}, batch, some)
        arms = {"ours": ours.reconstruct(Trace.of(seen), public).images}
        if args.breaching:
            arms |= {
                f"breaching, {kind}": imprint_by_breaching(batch, some, public_images, kind) for kind in STRUCTURES
            }
        for name, guesses in arms.items():
            found.setdefault(name, []).append(float(np.mean(pair(batch, guesses, null).ssim > 0.9)))
        print({name: values[-1] for name, values in found.items()}, file=sys.stderr, flush=True)
    return {"copied": found}


STRUCTURES = ("sparse", "cumulative")


def imprint_by_breaching(batch: Pixels, labels: NDArray[np.int64], public: Pixels, structure: str) -> NDArray[Any]:
    """Return what breaching's block and readout copy from the gradient of one batch.

    Its bins expect standardised images, so it is told the public images' mean and standard deviation per channel.
    """
    from breaching.attacks import prepare_attack  # type: ignore[import-not-found]
    from breaching.cases.malicious_modifications import imprint as blocks  # type: ignore[import-not-found]

    torch.manual_seed(0)
    mean = torch.from_numpy(public.mean(axis=(0, 2, 3)) / 255).float()
    std = torch.from_numpy(public.std(axis=(0, 2, 3)) / 255).float()
    kind = blocks.SparseImprintBlock if structure == "sparse" else blocks.ImprintBlock
    block = kind(SPEC.shape, ROWS, connection="linear", gain=1e-3, linfunc="fourier", mode=0)
    core = build(SPEC)
    load_weights(core, initial_weights(SPEC, 0))
    model = torch.nn.Sequential(block, core)
    x = (torch.from_numpy(batch) / 255 - mean[:, None, None]) / std[:, None, None]
    loss = binary_loss(model(x), torch.from_numpy(labels))
    gradients = [g.detach() for g in torch.autograd.grad(loss, list(model.parameters()))]
    sent, shared = payload(SPEC.shape, model, gradients, torch.from_numpy(labels))
    sent[0]["metadata"] = Options({**sent[0]["metadata"], "mean": mean.tolist(), "std": std.tolist()})
    names = [name for name, _ in model.named_parameters()]
    secret = {
        "weight_idx": names.index("0.linear0.weight"),
        "bias_idx": names.index("0.linear0.bias"),
        "shape": SPEC.shape,
        "structure": structure,
    }
    config = Options(
        attack_type="imprint-readout",
        type="analytic",
        label_strategy=None,
        normalize_gradients=False,
        sort_by_bias=False,
        breach_padding=True,
        breach_reduction=None,  # keep every row: dropping rows would only count against it
        impl=Options(dtype="float", mixed_precision=False, JIT=None),
    )
    result, _ = prepare_attack(model, binary_loss, config).reconstruct(sent, shared, {"ImprintBlock": secret})
    guesses = torch.nan_to_num(result["data"]) * std[:, None, None] + mean[:, None, None]
    return guesses.clamp(0, 1).numpy().astype(np.float32)


def main() -> None:
    """Print both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--variation", type=float, default=0.02, help="weight of the total variation, in both arms")
    parser.add_argument("--breaching", type=Path, help="folder that holds the package `breaching`")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.breaching:
        load_breaching(args.breaching)
    results = {**imprint(args), **invert(args)}
    if args.json:
        print(json.dumps(results))
        return
    if not args.breaching:
        print("breaching: left out, as --breaching names no folder (pip install --no-deps --target PATH breaching)")
    psnr = {name: np.array(values) for name, values in results["psnr"].items()}
    for name, values in psnr.items():
        print(f"PSNR in dB, {name}: {interval(values)}; above the mean image: {interval(values - psnr['null'])}")
        if (other := name.replace("ours", "breaching")) != name and other in psnr:
            print(f"  ours less breaching: {interval(values - psnr[other])}")
    print(f"seconds per image, cosine, {args.iterations} iterations: {results['seconds_per_image']:.2f}")
    for name, values in results["copied"].items():
        print(f"imprint, {BATCH} images, {ROWS} rows, share copied, {name}: {interval(np.array(values))} batches")


if __name__ == "__main__":
    main()
