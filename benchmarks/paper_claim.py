"""The claim that even huge budgets stop reconstruction (Ziller et al. 2024), tested with its attack and a better one.

    python benchmarks/paper_claim.py --data /path/to/data [--json] [--arms step-64 run-1e9 ...] [--seeds 5] [--width 8]

HAM10000, one place, clipping norm 9, noise of standard deviation s*C per coordinate on the gradient sum, SSIM > .9 is a
copy, one-to-one pairing, exact 95 % intervals over all seeds' images together, and the nulls beside.

step-64, step-224: one step over 64 images at the paper's noise multipliers for "1e9" (4.06e-4) and "1e12" (1.28e-5),
    and without noise. Attacks: trap weights as a shift of the image (the paper's), the same with small weights and a
    large gain (which changes no output), the same wired to the logits, and the imprint. The scale of the trap weights
    is the one that leaves most public images alone in some row.
frozen: all releases of 300 rounds in which the server keeps its weights, added up: 34 images at a sample rate of 1/4,
    noise calibrated to each budget at delta 8e-7. With frozen weights an image's clipped gradient is the same in every
    round, so the sum is drawn directly: every image as often as it was sampled, and the noise of 300 releases.
run-EPSILON: the same through the live federation, with the imprint.

Assumed: a malicious server, hospitals that vet no architecture, freshly initialised core, public images of other
lesions, no flips. The images are HAM10000's at 200x150, so that 224 pixels are enlarged.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

import tasks
from clients.gradients import GradientEngine
from configs import Experiment
from configs.adversary import ImprintSettings, TrapWeightsSettings
from configs.sections import TaskSettings
from privacy import noise_multiplier
from server.adversary.base import Attack, Observation, PublicData, PublicTerms, Trace, Weights
from server.adversary.imprint import Imprint
from server.adversary.nulls import noise_only
from server.adversary.public_model import mean_image
from server.adversary.trap_weights import BIAS, WEIGHT, TrapWeights, trap_rows
from simulation.run import simulate
from simulation.scoring.exact_tests import clopper_pearson
from simulation.scoring.identification import Decoys
from simulation.scoring.score import AttackScore, score_reconstruction
from tasks.base import Records
from tasks.losses import loss
from tasks.models import ModelSpec, build, initial_weights, load_weights, normalise

CLIP = 9.0
NOISES = {"none": 0.0, "1e12": 1.28e-5, "1e9": 4.06e-4}
BATCH, ROWS, DECOYS = 64, 512, 19
PUBLIC = {64: 3000, 224: 900}
SCALES = (0.9, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995)
LOUDNESS = 1e-12
STEP_ATTACKS = ("trap_image", "trap_image_loud", "trap_logits", "imprint")
SIDES = {"step-64": 64, "step-224": 224}
BUDGETS = {"1e9": 1e9, "1e6": 1e6, "1e4": 1e4, "8": 8.0}
RECORDS, ROUNDS, RATE, DELTA = 34, 300, 0.25, 8e-7
FROZEN_ATTACKS = {"imprint": tuple(BUDGETS), "trap_logits": ("1e9", "1e6"), "trap_image": ("1e9",)}
FROZEN_DECOYS = 120
LIVE_ROWS = 128
RUNS = {f"run-{name}": name for name in BUDGETS}


@final
@dataclass(frozen=True)
class Images:
    """Images of disjoint lesions.

    Attributes:
        public: the adversary's.
        batches: uint8 images and labels, one per seed.
        pool: the scorer's decoys, (batch * decoys, ...).
    """

    public: PublicData
    batches: list[tuple[NDArray[np.uint8], NDArray[np.int64]]]
    pool: NDArray[np.uint8]


def load(root: Path, side: int, seeds: int, batch: int, decoys: int) -> Images:
    """Deal whole lesions to the adversary, the targets and the decoys (so many for each target of a batch)."""
    splits = tasks.get(TaskSettings(root=str(root / "ham10000"), image_size=side)).load()
    records = Records.joined([splits.train, splits.validation, splits.test])
    lesions = records.unit_rows()
    order = np.random.default_rng(0).permutation(len(lesions))
    public = np.concatenate([lesions[u] for u in order[: PUBLIC[side]]])[: PUBLIC[side]]
    rest = [int(lesions[u][0]) for u in order[PUBLIC[side] :]]  # one image of a lesion: no near-duplicates
    targets = [np.array(rest[seed * batch : (seed + 1) * batch]) for seed in range(seeds)]
    if len(rest) < (seeds + decoys) * batch:
        raise SystemExit(f"{len(rest)} lesions are too few for {seeds} seeds of {batch} images and their decoys")
    pool = np.array(rest[seeds * batch : (seeds + decoys) * batch])
    return Images(
        PublicData(records.pixels(public), "other lesions"),
        [(records.pixels(t), np.asarray(records.labels[t])) for t in targets],
        records.pixels(pool),
    )


def best_scale(public: PublicData) -> float:
    """Return the scale that leaves most public images alone in some row, in batches of 64."""
    images = public.images[: 10 * BATCH].reshape(-1, int(np.prod(public.images.shape[1:]))).astype(np.float32) / 255
    rows = trap_rows(ROWS, images.shape[1], 1.0).astype(np.float32)
    up, down = images @ np.maximum(rows, 0).T, images @ np.minimum(rows, 0).T
    counts = []
    for scale in SCALES:
        fires = (scale * up + down > 0).reshape(-1, BATCH, ROWS)
        alone = fires & (fires.sum(axis=1, keepdims=True) == 1)
        counts.append(int(alone.any(axis=2).sum()))
    return SCALES[int(np.argmax(counts))]


def planted(name: str, spec: ModelSpec, agreed: Weights, images: Images, scale: float) -> tuple[Attack, ModelSpec, Any]:
    """Return an attack and the model that it sends."""
    if name == "imprint":
        attack: Attack = Imprint(ImprintSettings(rows=ROWS))
        return attack, *attack.plant(spec, agreed, images.public)
    wiring = "logits" if name == "trap_logits" else "image"
    attack = TrapWeights(TrapWeightsSettings(rows=ROWS, scale=scale, wiring=wiring))
    sent, weights = attack.plant(spec, agreed, images.public)
    if name == "trap_image_loud" and sent.block is not None:
        sent = replace(sent, block=replace(sent.block, gain=sent.block.gain / LOUDNESS))
        weights = {**weights, WEIGHT: weights[WEIGHT] * np.float32(LOUDNESS)}
    return attack, sent, weights


@final
@dataclass(frozen=True)
class Step:
    """The clipped gradient sum of the module, and what the clipping did.

    Attributes:
        weight: float64 (K, D).
        bias: float64 (K,).
        share: float64 (n,), of the module in the energy of each image's gradient.
        clipped: share of images with a gradient beyond the clipping norm.
        alone: share of images that are alone in some row.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    share: NDArray[np.float64]
    clipped: float
    alone: float


def step_of(
    spec: ModelSpec,
    weights: Weights,
    batch: NDArray[np.uint8],
    labels: NDArray[np.int64],
    times: NDArray[np.int64] | None = None,
) -> Step:
    """Differentiate one image at a time, each counted so many times (once), clip and add up.

    A row of the module has the gradient delta * [z, 1], so the clipped sum over images is one matrix product.
    """
    model: Any = build(spec)
    load_weights(model, {name: torch.tensor(np.asarray(value)) for name, value in weights.items()})
    kept: dict[str, torch.Tensor] = {}
    model.wide.units.register_forward_hook(lambda _, given, out: kept.update(z=given[0], out=out))
    core = list(model.core.parameters())
    deltas, inputs, rest = [], [], []
    for image, label in zip(batch, labels, strict=True):
        value = loss("binary")(model(normalise(torch.from_numpy(image[None]))), torch.tensor([label])).sum()
        delta, *others = torch.autograd.grad(value, [kept["out"], *core])
        deltas.append(delta[0].double().numpy())
        inputs.append(kept["z"][0].detach().double().numpy())
        rest.append(sum(float(part.double().square().sum()) for part in others))
    g, z = np.array(deltas), np.array(inputs)
    module = np.sum(g**2, axis=1) * (1 + np.sum(z**2, axis=1))
    norms = np.sqrt(module + np.array(rest))
    factors = np.minimum(1.0, CLIP / np.maximum(norms, 1e-300))
    fires = g != 0
    alone = (fires & (fires.sum(axis=0) == 1)).any(axis=1)
    clipped = (factors if times is None else factors * times)[:, None] * g
    return Step(
        clipped.T @ z, clipped.sum(axis=0), module / norms**2, float(np.mean(norms > CLIP)), float(alone.mean())
    )


def deviation_from_engine(spec: ModelSpec, weights: Weights, images: Images, step: Step) -> float:
    """Return how far the step is from what a hospital computes, relative."""
    engine = GradientEngine(build(spec), "binary")
    engine.load({name: torch.tensor(np.asarray(value)) for name, value in weights.items()})
    batch, labels = images.batches[0]
    total = engine.clipped_sum(torch.from_numpy(batch), torch.from_numpy(labels), torch.arange(len(batch)), CLIP)
    found = engine.by_name(total)[WEIGHT].numpy()
    return float(np.linalg.norm(found - step.weight) / np.linalg.norm(found))


def steps(root: Path, arm: str, seeds: int, width: int, names: list[str]) -> Iterator[dict[str, object]]:
    """Yield a row for every attack and noise of one step."""
    side = SIDES[arm]
    images = load(root, side, seeds, BATCH, DECOYS)
    scale = best_scale(images.public)
    spec = ModelSpec("resnet9", (3, side, side), 1, width)
    agreed = {name: value.numpy() for name, value in initial_weights(spec, 0).items()}
    for name in names:
        attack, sent, weights = planted(name, spec, agreed, images, scale)
        scores: dict[str, list[AttackScore]] = {noise: [] for noise in NOISES}
        made: list[Step] = []
        deviation, start = None, time.perf_counter()
        for seed, (batch, labels) in enumerate(images.batches):
            step = step_of(sent, weights, batch, labels)
            if seed == 0 and side == 64:
                deviation = deviation_from_engine(sent, weights, images, step)
            for noise, multiplier in NOISES.items():
                terms = PublicTerms(CLIP, multiplier, 1.0, 1, float(BATCH), 0.0)
                scores[noise].append(scored(attack, sent, weights, step, batch, images, terms, seed))
            made.append(replace(step, weight=np.zeros(0), bias=np.zeros(0)))
        seconds = round(time.perf_counter() - start, 1)
        for noise, found in scores.items():
            yield {
                **{"arm": arm, "attack": name, "noise_for": noise, "noise_multiplier": NOISES[noise]},
                **counted(found),
                "share_mean": float(np.mean([s.share.mean() for s in made])),
                "share_lowest_highest": [float(f([s.share for s in made])) for f in (np.min, np.max)],
                "clipped": float(np.mean([s.clipped for s in made])),
                "alone_in_a_row": round(float(np.mean([s.alone for s in made])), 4),
                "scale": scale if name.startswith("trap") else None,
                **{"rows": ROWS, "width": width, "from_engine": deviation, "seconds": seconds},
            }


def scored(
    attack: Attack,
    spec: ModelSpec,
    weights: Weights,
    step: Step,
    batch: NDArray[np.uint8],
    images: Images,
    terms: PublicTerms,
    seed: int,
    rounds: int = 1,
) -> AttackScore:
    """Add the noise of so many rounds, attack, and score."""
    rng = np.random.default_rng([7, seed])
    release = {WEIGHT: step.weight, BIAS: step.bias}
    if std := terms.noise_multiplier * CLIP * np.sqrt(rounds):
        release = {name: value + std * rng.standard_normal(value.shape) for name, value in release.items()}
    added = tuple(range(1, rounds + 1)) if rounds > 1 else ()
    trace = Trace.of(Observation(rounds, "one place", spec, weights, release, terms, (), added))
    return score_reconstruction(
        truths=batch,
        guesses=attack.reconstruct(trace, images.public).images,
        noise_guesses=attack.reconstruct(noise_only(trace), images.public).images,
        mean_image=mean_image(images.public, spec.shape),
        ranked=np.arange(len(batch)),
        decoys=Decoys(images.pool, np.arange(len(images.pool)).reshape(len(batch), -1)),
    )


def counted(found: list[AttackScore]) -> dict[str, object]:
    """Return the counts of all seeds together, with exact intervals."""
    n = sum(score.targets for score in found)
    copied = sum(round((score.recovered or 0) * score.targets) for score in found)
    first = sum(round((score.rank1 or 0) * score.ranked) for score in found)
    ssim = np.array([row.ssim for score in found for row in score.rows])
    null = np.array([row.null_ssim for score in found for row in score.rows])
    return {
        **_rates(len(found), n, copied, sum(score.ranked for score in found), first, found[0].decoys),
        "mean_ssim": round(float(ssim.mean()), 4),
        "null_mean_ssim": round(float(null.mean()), 4),
        "null_copied": int(np.sum(null > 0.9)),
        "median_psnr": round(float(np.median([row.psnr for score in found for row in score.rows])), 2),
    }


def _rates(seeds: int, n: int, copied: int, ranked: int, first: int, decoys: int) -> dict[str, object]:
    return {
        **{"seeds": seeds, "images": n, "copied": copied, "copied_share": round(copied / n, 4)},
        "copied_interval": [round(x, 4) for x in clopper_pearson(copied, n)],
        **{"ranked": ranked, "identified": first, "decoys": decoys},
        "identified_interval": [round(x, 4) for x in clopper_pearson(first, ranked)],
    }


def frozen(root: Path, seeds: int, width: int) -> Iterator[dict[str, object]]:
    """Yield a row for every attack and budget of a whole run with frozen weights."""
    images = load(root, 64, seeds, RECORDS, FROZEN_DECOYS)
    scale = best_scale(images.public)
    spec = ModelSpec("resnet9", (3, 64, 64), 1, width)
    agreed = {name: value.numpy() for name, value in initial_weights(spec, 0).items()}
    noises = {
        name: noise_multiplier(epsilon=epsilon, delta=DELTA, sample_rate=RATE, steps=ROUNDS)
        for name, epsilon in BUDGETS.items()
    }
    for name, budgets in FROZEN_ATTACKS.items():
        attack, sent, weights = planted(name, spec, agreed, images, scale)
        scores: dict[str, list[AttackScore]] = {budget: [] for budget in budgets}
        start = time.perf_counter()
        for seed, (batch, labels) in enumerate(images.batches):
            times = np.random.default_rng([8, seed]).binomial(ROUNDS, RATE, len(batch))
            step = step_of(sent, weights, batch, labels, times)
            for budget in budgets:
                terms = PublicTerms(CLIP, noises[budget], RATE, 1, RATE * len(batch), 0.0)
                scores[budget].append(scored(attack, sent, weights, step, batch, images, terms, seed, ROUNDS))
        seconds = round(time.perf_counter() - start, 1)
        for budget, found in scores.items():
            yield {
                **{"arm": "frozen", "attack": name, "noise_for": budget, "noise_multiplier": noises[budget]},
                **counted(found),
                "identified_by_seed": [round((score.rank1 or 0) * score.ranked) for score in found],
                **{"rows": ROWS, "width": width, "seconds": seconds},
            }


def experiment(root: Path, arm: str, seed: int, width: int) -> Experiment:
    """Return the settings of one whole run."""
    content = {
        "task": {"root": str(root / "ham10000"), "image_size": 64, "width": width},
        "hospitals": {"partition": "iid", "count": 1, "max_records": RECORDS},
        "training": {"rounds": ROUNDS, "batch_size": RATE * RECORDS, "flips": 0.0, "evaluate_every": ROUNDS},
        "privacy": {"mechanism": "local", "epsilon": BUDGETS[RUNS[arm]], "delta": DELTA, "clipping_norm": CLIP},
        "adversary": {
            **{"placement": "malicious_server", "rounds": "all", "frozen": True, "keep": "sum"},
            "imprint": {"rows": LIVE_ROWS},
        },
    }
    return Experiment.model_validate({**content, "seed": seed})


def whole_runs(root: Path, arm: str, seeds: int, width: int) -> dict[str, object]:
    """Return the row of a whole run's arm."""
    start, rows, noises = time.perf_counter(), [], []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            run = simulate(experiment(root, arm, seed, width), Path(folder) / "run", report=False)
            rows.append(run.summary["attacks"][0])
            noises.append(run.summary["hospitals"][0].get("noise_multiplier"))
    n, ranked = sum(row["targets"] for row in rows), sum(row["ranked"] for row in rows)
    copied = sum(round(row["recovered"] * row["targets"]) for row in rows)
    first = [round(row["rank1"] * row["ranked"]) for row in rows]
    shown = [row["identified_informed"] for row in rows]
    return {
        **{"arm": arm, "attack": "imprint", "noise_for": RUNS[arm], "noise_multiplier": noises[0]},
        **_rates(len(rows), n, copied, ranked, sum(first), min(row["decoys"] for row in rows)),
        "identified_by_seed": first,
        "copied_by_seed": [round(row["recovered"] * row["targets"]) for row in rows],
        "identified_informed": None if None in shown else round(float(np.mean(shown)), 4),
        "mean_ssim": round(float(np.mean([row["mean_ssim"] for row in rows])), 4),
        "null_mean_ssim": round(float(np.mean([row["null_mean_ssim"] for row in rows])), 4),
        "readout": rows[0]["readout"],
        **{"rows": LIVE_ROWS, "width": width, "seconds": round(time.perf_counter() - start, 1)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arms = [*SIDES, "frozen", *RUNS]
    parser.add_argument("--data", type=Path, required=True, help="folder that holds ham10000/")
    parser.add_argument("--arms", nargs="*", choices=arms, default=arms)
    parser.add_argument("--attacks", nargs="*", choices=STEP_ATTACKS, default=list(STEP_ATTACKS), help="of one step")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--width", type=int, default=8, help="of the ResNet-9; the paper's is 64")
    parser.add_argument("--json", action="store_true", help="print JSON rows only, at the end")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for arm in options.arms:
        if arm in SIDES:
            found = steps(options.data, arm, options.seeds, options.width, options.attacks)
        elif arm == "frozen":
            found = frozen(options.data, options.seeds, options.width)
        else:
            found = iter([whole_runs(options.data, arm, options.seeds, options.width)])
        for row in found:
            rows.append(row)
            print(row, flush=True, file=sys.stderr if options.json else sys.stdout)
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
