"""The imprint against noise: copies, likeness and identification over epsilon, beside both formal bounds.

    python benchmarks/imprint_curve.py /path/to/HAM10000 [--seeds 5] [--batch 100] [--rows 512] [--figure f.png]

FedSGD releases (T = 1, q = 1, delta 1e-5) of real images at 64x64, clipped and noised as a hospital does, with 3,000
public images of other lesions. Two ways to count, both printed:

- as the run scores it: the adversary shows every row that it believes in, and the candidate next to any of them counts.
  Near-mean decoys lie near some blurred image, so that identification dies early;
- `row_`: one dominated row. Only targets alone in their row, each against the one image read from it, as if the
  adversary knew which row is asked about.

Ranks are among 999 decoys of the target's site where there are so many: the dataset has too few for decoys of its own
for every target, so targets share them; the ranks of one release then depend on each other a little, and a p-value
holds for each target, not exactly for their count.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from clients.gradients import engine
from clients.planning import calibrated
from configs import Experiment
from configs.adversary import ImprintSettings
from privacy import reconstruction_bound
from server.adversary.base import Candidates, Observation, PublicData, PublicTerms, Trace
from server.adversary.imprint import BIAS, WEIGHT, Imprint
from server.adversary.levels import level
from server.adversary.nulls import noise_only
from server.adversary.public_model import PublicModel, decode
from server.adversary.readout import Rows, prefers_denoised, read_denoised, read_raw
from server.adversary.showing import rows_of
from simulation.pools import make_pools
from simulation.scoring.assignment import pair
from simulation.scoring.exact_tests import binomial_p, clopper_pearson
from simulation.scoring.similarity import squared_errors, ssim
from simulation.setup import prepare
from tasks.models import initial_weights

DELTA, DECOYS, COPIED = 1e-5, 999, 0.9
EPSILONS = (1.0, 8.0, 20.0, 50.0, 100.0, 300.0, 1e3, 1e4, 1e5, 1e6, 1e7, 1e9)
PAPER = (1.0, 8.0, 1e9, 1e12)


@dataclass(frozen=True)
class Release:
    """One hospital's clipped sum without noise, and who is to be told from whom.

    Attributes:
        clean: what came back, without noise.
        imprint: the attack that planted.
        public: its images.
        truths: uint8 (n, 3, 64, 64).
        home: int64 (n,), the row that each falls into.
        alone: bool (n,), whether no other image of the release is in the row.
        pool: uint8 (p, 3, 64, 64), decoys.
        dealt: int64 (n, m), the decoys of each truth.
    """

    clean: Observation
    imprint: Imprint
    public: PublicData
    truths: NDArray[np.uint8]
    home: NDArray[np.intp]
    alone: NDArray[np.bool_]
    pool: NDArray[np.uint8]
    dealt: NDArray[np.int64]


def releases(root: Path, seed: int, batch: int, targets: int, rows: int) -> Iterator[Release]:
    """Yield releases of `batch` images each, of `targets` images in all."""
    setup = prepare(
        Experiment.model_validate(
            {
                "task": {"root": str(root), "image_size": 64},
                "hospitals": {"partition": "iid", "count": 1, "max_records": 100},
                "adversary": {"placement": "malicious_server", "public_images": 3000},
                "seed": seed,
            }
        )
    )
    pools = make_pools(setup)
    records = setup.deal.hospitals[0].records
    images, labels, sites = records.pixels(), records.labels, records.sites
    imprint = Imprint(ImprintSettings(rows=rows))
    agreed = {name: value.numpy() for name, value in initial_weights(setup.task.spec, seed).items()}
    spec, weights = imprint.plant(setup.task.spec, agreed, pools.public)
    hospital = engine(spec, setup.task.loss)
    hospital.load({name: torch.tensor(np.asarray(value)) for name, value in weights.items()})
    pool, rng = pools.decoys.pixels(), np.random.default_rng(seed)
    own = {site: np.flatnonzero(pools.decoys.sites == site) for site in np.unique(sites)}
    most = min(DECOYS, *(len(index) for index in own.values()))
    for start in range(0, min(len(images), targets), batch):
        part = slice(start, start + batch)
        truths = images[part]
        total = hospital.clipped_sum(
            torch.from_numpy(truths), torch.from_numpy(labels[part]), torch.arange(len(truths)), 1.0
        )
        found = hospital.by_name(total)
        sent = {name: found[name].numpy() for name in (WEIGHT, BIAS)}
        terms = PublicTerms(1.0, 0.0, 1.0, 1, len(truths), 0.0)
        home = home_of(truths, imprint, pools.public, weights)
        dealt = np.stack([rng.permutation(own[site])[:most] for site in sites[part]])
        clean = Observation(1, "hospital", spec, weights, sent, terms)
        used, place = np.unique(dealt, return_inverse=True)
        alone = np.bincount(home)[home] == 1
        yield Release(clean, imprint, pools.public, truths, home, alone, pool[used], place.reshape(dealt.shape))


def home_of(images: NDArray[np.uint8], imprint: Imprint, public: PublicData, weights: Any) -> NDArray[np.intp]:
    """Return the row that each image fires, by the planted weights alone."""
    z = imprint.public_model(public, images.shape[1:]).encode(images)
    inside = (z.astype(np.float64) @ weights[WEIGHT].T.astype(np.float64) + weights[BIAS]) / 1e-12
    return np.argmin(np.abs(inside - 0.5), axis=1)


def noised(clean: Observation, noise: float, seed: int) -> Observation:
    """Return the release with noise of `noise` on every coordinate (C = 1)."""
    rng = np.random.default_rng([seed, 77])
    sent = {name: value + noise * rng.standard_normal(value.shape) for name, value in clean.release.items()}
    terms = PublicTerms(1.0, noise, 1.0, 1, clean.terms.expected_batch, 0.0)
    return Observation(1, clean.hospital, clean.spec, clean.weights, sent, terms)


def measure(release: Release, noise: float, seed: int) -> dict[str, Any]:
    """Attack one release with noise and return what happened to every truth."""
    trace = Trace.of(noised(release.clean, noise, seed))
    imprint, public = release.imprint, release.public
    guesses = imprint.reconstruct(trace, public)
    mean = (public.images.astype(np.float64).mean(axis=0) / 255).astype(np.float32)
    null = imprint.reconstruct(noise_only(trace), public).images
    shown = np.concatenate([release.truths, release.pool])
    informed = imprint.informed(trace, public, Candidates(shown))
    assert informed is not None
    count = len(release.truths)
    errors = squared_errors(guesses.images, shown).min(axis=0) if len(guesses.images) else np.zeros(len(shown))
    nulls = pair(release.truths, null, mean).ssim
    return {
        "ssim": pair(release.truths, guesses.images, mean).ssim,
        "null_ssim": np.maximum(nulls, pair(release.truths, null[:0], mean).ssim),
        "rank": _ranks(errors[:count], errors[count:][release.dealt]),
        "informed": _ranks(-informed[:count], -informed[count:][release.dealt]),
        "alone": release.alone,
        **dominated(release, trace),
        "guesses": np.array([len(guesses.images)]),
        "raw": np.array(["raw" in guesses.readout]),
    }


def dominated(release: Release, trace: Trace) -> dict[str, NDArray[Any]]:
    """Read the one row of every target that is alone in it; others are not counted."""
    seen, model = trace.last, release.imprint.public_model(release.public, release.truths.shape[1:])
    at, rows = level(seen.terms, model), rows_of(seen).take(release.home[release.alone])
    z = read_denoised(rows, model, at) if prefers_denoised(rows, model, at) else read_raw(rows, at)
    images = decode(z, model.centre, model.scale, model.shape)
    truths, dealt = release.truths[release.alone], release.dealt[release.alone]
    decoys = squared_errors(images, release.pool)
    own = np.diag(squared_errors(images, truths))
    return {
        "row_ssim": ssim(truths, images),
        "row_rank": _ranks(own, np.take_along_axis(decoys, dealt, axis=1)),
        "row_filter": _ranks(*_filtered(rows, model, truths, release.pool, dealt)),
    }


def _filtered(
    rows: Rows, model: PublicModel, truths: NDArray[np.uint8], pool: NDArray[np.uint8], dealt: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return minus the row's length along each unit gradient: of the truths (n,) and of their decoys (n, m)."""

    def units(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        z = model.encode(images)
        ends = np.concatenate([z, np.ones((len(z), 1), np.float32)], axis=1)
        return ends / np.linalg.norm(ends, axis=1, keepdims=True)

    held = np.concatenate([rows.weight, rows.bias[:, None]], axis=1).astype(np.float32)
    own = np.einsum("nd,nd->n", units(truths), held)
    others = np.concatenate([units(part) @ held.T for part in np.array_split(pool, 16)]).T
    return -np.abs(own).astype(np.float64), -np.abs(np.take_along_axis(others, dealt, axis=1)).astype(np.float64)


def _ranks(own: NDArray[np.float64], decoys: NDArray[np.float64]) -> NDArray[np.int64]:
    ties = np.random.default_rng(0).integers(0, np.count_nonzero(decoys == own[:, None], axis=1) + 1)
    return 1 + np.count_nonzero(decoys < own[:, None], axis=1) + ties


def summary(epsilon: float, noise: float, found: Sequence[dict[str, Any]], decoys: int) -> dict[str, Any]:
    """Return one row of the curve."""
    whole = {key: np.concatenate([one[key] for one in found]) for key in found[0]}
    bar = float(np.quantile(whole["null_ssim"], 0.95))
    n, alone = len(whole["ssim"]), whole["alone"]
    row: dict[str, Any] = {"epsilon": epsilon, "noise": noise, "n": n, "alone": int(alone.sum()), "decoys": decoys}
    hits = {
        "copied": whole["ssim"] > COPIED,
        "null_copied": whole["null_ssim"] > COPIED,
        "visible": whole["ssim"] > bar,
        "identified": whole["rank"] == 1,
        "informed": whole["informed"] == 1,
    }
    for name, hit in hits.items():
        row[name] = round(float(hit.mean()), 4)
        row[f"{name}_ci"] = [round(x, 4) for x in clopper_pearson(int(hit.sum()), n)]
    own = {
        "row_copied": whole["row_ssim"] > COPIED,
        "row_visible": whole["row_ssim"] > bar,
        "row_identified": whole["row_rank"] == 1,
        "row_filter": whole["row_filter"] == 1,
    }
    for name, hit in own.items():
        row[name] = round(float(hit.mean()), 4)
        row[f"{name}_ci"] = [round(x, 4) for x in clopper_pearson(int(hit.sum()), len(hit))]
    row["row_identified_p"] = binomial_p(int(own["row_identified"].sum()), int(alone.sum()), 1 / (decoys + 1))
    row["identified_p"] = binomial_p(int(hits["identified"].sum()), n, 1 / (decoys + 1))
    row["mean_ssim"] = round(float(whole["ssim"].mean()), 4)
    row["null_mean_ssim"] = round(float(whole["null_ssim"].mean()), 4)
    row["null_p95_ssim"], row["null_max_ssim"] = round(bar, 4), round(float(whole["null_ssim"].max()), 4)
    row["guesses"], row["raw"] = round(float(whole["guesses"].mean()), 1), float(whole["raw"].mean())
    for threat in ("worst_case", "relaxed"):
        row[f"bound_{threat}"] = reconstruction_bound(
            noise_multiplier=noise, sample_rate=1.0, steps=1, prior=1 / (decoys + 1), threat=threat
        )
    return row


def curve(
    root: Path, *, seeds: int, batch: int, targets: int, rows: int, epsilons: Sequence[float] = EPSILONS
) -> list[dict[str, Any]]:
    """Return one row for every epsilon, pooled over the seeds; at most 100 targets per seed."""
    found: dict[float, list[dict[str, Any]]] = {epsilon: [] for epsilon in epsilons}
    decoys = DECOYS
    for seed in range(seeds):
        for number, release in enumerate(releases(root, seed, batch, targets, rows)):
            decoys = min(decoys, release.dealt.shape[1])
            for epsilon in epsilons:
                noise = calibrated(epsilon, DELTA, 1.0, 1)
                found[epsilon].append(measure(release, noise, 1000 * seed + number))
    return [summary(epsilon, calibrated(epsilon, DELTA, 1.0, 1), found[epsilon], decoys) for epsilon in epsilons]


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the three deaths with their intervals, both bounds, and the paper's budgets."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    x = [row["epsilon"] for row in rows]
    names = {
        "row_copied": "copied (SSIM > .9), one row",
        "row_visible": "visible (SSIM above the null's 95 %), one row",
        "row_identified": "identified among decoys, one row",
        "identified": "identified among decoys, all rows shown",
        "informed": "identified by the matched filter",
    }
    for name, words in names.items():
        line = axes.plot(x, [row[name] for row in rows], marker="o", ms=3, label=words)[0]
        low, high = zip(*(row[f"{name}_ci"] for row in rows), strict=True)
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15, lw=0)
    for threat, style in (("worst_case", "--"), ("relaxed", ":")):
        words = f"bound on identification, {threat.replace('_', ' ')}"
        axes.plot(x, [row[f"bound_{threat}"] for row in rows], style, color="black", lw=1, label=words)
    for budget in PAPER:
        axes.axvline(budget, color="grey", lw=0.6)
        axes.text(budget, 1.02, f"{budget:g}", ha="center", fontsize=7, color="grey")
    axes.set(xscale="log", xlabel="epsilon of one release (delta 1e-5)", ylabel="share of targets", ylim=(0, 1.0))
    axes.legend(fontsize=7, loc="center right")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of HAM10000 in its official layout")
    parser.add_argument("--json", action="store_true", help="print JSON rows only")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=100, help="images of one release")
    parser.add_argument("--targets", type=int, default=100, help="images in all per seed")
    parser.add_argument("--rows", type=int, default=512, help="bins")
    parser.add_argument("--epsilons", type=float, nargs="+", default=EPSILONS)
    parser.add_argument("--figure", type=Path, help="where to draw the curve")
    options = parser.parse_args()
    with threadpool_limits(limits=1):
        rows = curve(
            options.root,
            seeds=options.seeds,
            batch=options.batch,
            targets=options.targets,
            rows=options.rows,
            epsilons=options.epsilons,
        )
    for row in rows:
        print(json.dumps(row) if options.json else row, flush=True)
    if options.figure:
        draw(rows, options.figure)


if __name__ == "__main__":
    main()
