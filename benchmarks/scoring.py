"""Seconds of scoring, part by part, one process: 1,000 reconstructions against 1,000 truths and 999 decoys at 64x64x3.

    python benchmarks/scoring.py [--json] [--truths 1000] [--guesses 1000] [--decoys 999] [--side 64]

Rows: part, seconds (wall), cpu (of all threads). Truths are smooth random images, half of the reconstructions copies
with noise, half other images. Decoys: `shared` are the same 999 images for every target, which is what 1,000 targets
among 999 decoys can mean on a dataset of 10,000 images; `disjoint` are as many images in all, dealt out to the targets
so that none serves two (each target gets decoys // truths of them, at least one).
The row `all` is the whole scorer as a run calls it, with shared decoys.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from threadpoolctl import threadpool_limits

from simulation.scoring.all_pairs import all_pairs_ssim
from simulation.scoring.assignment import pair
from simulation.scoring.identification import Decoys, decoy_ranks
from simulation.scoring.paper import paper_score
from simulation.scoring.public_distance import public_distance
from simulation.scoring.score import score_reconstruction
from simulation.scoring.similarity import ssim


def images(seed: int, count: int, side: int) -> NDArray[np.uint8]:
    """Return smooth random images around a common mean, uint8 (count, 3, side, side)."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.standard_normal((count, 3, side, side)), (0, 0, 4, 4))
    disc = np.exp(-4 * np.sum(np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j] ** 2, axis=0))
    return np.rint(255 * np.clip(0.7 - 0.4 * disc + smooth, 0, 1)).astype(np.uint8)


def reconstructions(truths: NDArray[np.uint8], count: int) -> NDArray[np.float32]:
    """Return noisy copies of half of the truths, and other images."""
    rng = np.random.default_rng(1)
    copied = min(len(truths) // 2, count)
    other = images(2, count - copied, truths.shape[-1])
    clean = np.concatenate([truths[:copied], other]) / 255.0
    return np.clip(clean + 0.02 * rng.standard_normal(clean.shape), 0, 1).astype(np.float32)


def measure(part: str, work: Callable[[], object]) -> dict[str, Any]:
    """Return one row."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {
        "part": part,
        "seconds": round(time.perf_counter() - wall, 2),
        "cpu": round(time.process_time() - cpu, 2),
    }


def rows(truths: int, guesses: int, decoys: int, side: int) -> list[dict[str, Any]]:
    """Return one row per part, and one for the whole scorer."""
    true, pool = images(0, truths, side), images(3, decoys, side)
    shown = reconstructions(true, guesses)
    noise = np.random.default_rng(4).random(shown.shape, dtype=np.float32)
    mean = (pool / 255.0).mean(axis=0).astype(np.float32)
    each = max(1, decoys // truths)
    ranked = min(truths, decoys)
    shared = Decoys(pool, np.tile(np.arange(decoys), (truths, 1)), shared=True)
    disjoint = Decoys(pool, np.arange(ranked * each).reshape(ranked, each))
    units = np.arange(len(pool)).astype(np.str_)
    count = min(truths, guesses)
    work: dict[str, Callable[[], object]] = {
        "pairing (Hungarian on MSE, SSIM, PSNR, NCC)": lambda: pair(true, shown, mean),
        f"SSIM of {count} pairs": lambda: ssim(true[:count], shown[:count]),
        f"SSIM of all {truths} x {guesses} pairs": lambda: all_pairs_ssim(true, shown),
        "paper-style scoring with its nulls": lambda: paper_score(true, shown, noise, mean),
        f"ranks of {truths} targets among {decoys} shared decoys": lambda: decoy_ranks(true, shared, shown),
        f"ranks of {ranked} targets among {each} disjoint decoys": lambda: decoy_ranks(true[:ranked], disjoint, shown),
        f"distance of {decoys} public images": lambda: public_distance(true, pool, units),
        "all": lambda: score_reconstruction(
            truths=true,
            guesses=shown,
            noise_guesses=noise,
            mean_image=mean,
            ranked=np.arange(truths),
            decoys=shared,
        ),
    }
    return [measure(part, one) for part, one in work.items()]


def main() -> None:
    """Print one row per part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON rows only")
    for name, default in (("truths", 1_000), ("guesses", 1_000), ("decoys", 999), ("side", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with threadpool_limits(limits=1):  # as in a run; blocks of all pairs use the cores
        found = rows(options.truths, options.guesses, options.decoys, options.side)
    if options.json:
        print(json.dumps(found))
        return
    for row in found:
        print(f"{row['seconds']:8.2f} s  {row['cpu']:8.2f} s cpu  {row['part']}")


if __name__ == "__main__":
    main()
