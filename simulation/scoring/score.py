"""Score one attack on one hospital's batch against the truth, and never without its nulls."""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from simulation.scoring.assignment import Pairing, pair
from simulation.scoring.exact_tests import binomial_p, clopper_pearson, mcnemar_p
from simulation.scoring.identification import Decoys, Informed, decoy_ranks, informed_ranks
from simulation.scoring.similarity import Images, intensities

RECOVERED_SSIM = 0.9
SIGNIFICANT = 0.05


@final
@dataclass(frozen=True)
class TargetScore:
    """One truth: what was reconstructed for it, and what the null shows in its place.

    Attributes:
        target: position among the truths.
        reconstruction: index of the paired reconstruction, -1 where the public mean stands in.
        recovered: SSIM above .9.
        ssim, psnr, ncc: of the pair.
        null_ssim, null_psnr: of the stronger null.
        rank: 1..m+1 among decoys, None where the target was not ranked.
        informed_rank: the same when the adversary is shown the candidates.
    """

    target: int
    reconstruction: int
    recovered: bool
    ssim: float
    psnr: float
    ncc: float
    null_ssim: float
    null_psnr: float
    rank: int | None
    informed_rank: int | None


@final
@dataclass(frozen=True)
class AttackScore:
    """One attack on one batch. Rates are fractions; None where there was nothing to count.

    Attributes:
        targets: truths n.
        recovered: share with SSIM above .9.
        recovered_ci: its exact 95 % interval (Clopper-Pearson).
        null_recovered: the same of the stronger null (public mean, or the attack's readout of pure noise).
        null: which null that was, "mean_image" or "noise_only".
        above_null: whether the attack recovers more targets than the null, exact paired test at 5 %.
        above_null_p: its p-value.
        ssim_mean, ssim_median, psnr_mean, psnr_median: over all truths, pairs by squared error.
        null_ssim_mean, null_ssim_median, null_psnr_mean, null_psnr_median: of the stronger null.
        ranked: targets that were ranked among decoys.
        decoys: decoys per target m; by chance rank 1 has probability 1/(m+1).
        rank1: share of ranked targets at rank 1.
        rank1_p: exact binomial p-value of that count; adjust it (Holm) over many cells.
        identified_informed: share at rank 1 when the adversary is shown the candidates.
        identified_informed_p: its p-value.
        rows: one per truth.
    """

    targets: int
    recovered: float | None
    recovered_ci: tuple[float, float]
    null_recovered: float | None
    null: str
    above_null: bool
    above_null_p: float
    ssim_mean: float | None
    ssim_median: float | None
    psnr_mean: float | None
    psnr_median: float | None
    null_ssim_mean: float | None
    null_ssim_median: float | None
    null_psnr_mean: float | None
    null_psnr_median: float | None
    ranked: int
    decoys: int
    rank1: float | None
    rank1_p: float
    identified_informed: float | None
    identified_informed_p: float | None
    rows: tuple[TargetScore, ...]


def score_reconstruction(
    *,
    truths: Images,
    guesses: Images,
    noise_guesses: Images,
    mean_image: Images,
    ranked: NDArray[np.int64],
    decoys: Decoys,
    informed: Informed | None = None,
) -> AttackScore:
    """Score what an attack read out of one hospital's release in one round.

    Args:
        truths: (n, channels, height, width) as the network saw them, uint8 or floats in [0, 1].
        guesses: (m, channels, height, width), the attack's reconstruction.
        noise_guesses: the same attack's reconstruction of a release of pure noise.
        mean_image: (channels, height, width), the public mean: the other null, and what stands in where the
            attack has no image left.
        ranked: int64 (r,), positions of the truths that are ranked among decoys.
        decoys: index (r, m).
        informed: scores candidates that the adversary is shown, higher is likelier.

    Raises:
        ValueError: shapes do not fit each other.
    """
    if len(ranked) != len(decoys.index):
        raise ValueError(f"{len(ranked)} targets are ranked, but there are decoys for {len(decoys.index)}")
    paired = pair(truths, guesses, mean_image)
    null_name, null = _stronger_null(truths, noise_guesses, mean_image)
    recovered, by_null = paired.ssim > RECOVERED_SSIM, null.ssim > RECOVERED_SSIM
    targets = np.rint(255 * intensities(truths[ranked])).astype(np.uint8)
    ranks = decoy_ranks(targets, decoys, guesses)
    asked = informed is not None and len(ranked) > 0 and decoys.count > 0
    shown = informed_ranks(targets, decoys, informed) if informed is not None and asked else None
    beyond = mcnemar_p(recovered, by_null)
    return AttackScore(
        targets=len(truths),
        recovered=_rate(recovered),
        recovered_ci=clopper_pearson(int(recovered.sum()), len(truths)),
        null_recovered=_rate(by_null),
        null=null_name,
        above_null=beyond < SIGNIFICANT,
        above_null_p=beyond,
        ssim_mean=_mean(paired.ssim),
        ssim_median=_median(paired.ssim),
        psnr_mean=_mean(paired.psnr),
        psnr_median=_median(paired.psnr),
        null_ssim_mean=_mean(null.ssim),
        null_ssim_median=_median(null.ssim),
        null_psnr_mean=_mean(null.psnr),
        null_psnr_median=_median(null.psnr),
        ranked=len(ranked),
        decoys=decoys.count,
        rank1=_rate(ranks == 1) if decoys.count else None,
        rank1_p=_chance_p(ranks, decoys.count),
        identified_informed=None if shown is None else _rate(shown == 1),
        identified_informed_p=None if shown is None else _chance_p(shown, decoys.count),
        rows=_rows(paired, null, ranked, ranks, shown),
    )


def _stronger_null(truths: Images, noise_guesses: Images, mean_image: Images) -> tuple[str, Pairing]:
    """Return the null that recovers more; at a tie the one with the higher mean SSIM."""
    nulls = {
        "mean_image": pair(truths, noise_guesses[:0], mean_image),
        "noise_only": pair(truths, noise_guesses, mean_image),
    }
    return max(nulls.items(), key=lambda item: (int(np.sum(item[1].ssim > RECOVERED_SSIM)), item[1].ssim.sum()))


def _rows(
    paired: Pairing,
    null: Pairing,
    ranked: NDArray[np.int64],
    ranks: NDArray[np.int64],
    shown: NDArray[np.int64] | None,
) -> tuple[TargetScore, ...]:
    place = {int(target): row for row, target in enumerate(ranked)}
    rows: list[TargetScore] = []
    for target in range(len(paired.ssim)):
        row = place.get(target)
        rows.append(
            TargetScore(
                target=target,
                reconstruction=int(paired.index[target]),
                recovered=bool(paired.ssim[target] > RECOVERED_SSIM),
                ssim=float(paired.ssim[target]),
                psnr=float(paired.psnr[target]),
                ncc=float(paired.ncc[target]),
                null_ssim=float(null.ssim[target]),
                null_psnr=float(null.psnr[target]),
                rank=None if row is None else int(ranks[row]),
                informed_rank=None if row is None or shown is None else int(shown[row]),
            )
        )
    return tuple(rows)


def _chance_p(ranks: NDArray[np.int64], decoys: int) -> float:
    return binomial_p(int(np.sum(ranks == 1)), len(ranks), 1 / (decoys + 1))


def _rate(hits: NDArray[np.bool_]) -> float | None:
    return float(hits.mean()) if len(hits) else None


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None


def _median(values: NDArray[np.float64]) -> float | None:
    return float(np.median(values)) if len(values) else None
