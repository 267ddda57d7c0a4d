"""Score one attack on one hospital's batch against the truth, and never without its nulls."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from simulation.scoring.assignment import Pairing, pair, unpaired
from simulation.scoring.exact_tests import clopper_pearson, mcnemar_p
from simulation.scoring.identification import Decoys, Informed, decoy_ranks, informed_ranks
from simulation.scoring.paper import PAPER_SSIM, PaperScore, paper_score
from simulation.scoring.similarity import Images, intensities
from simulation.scoring.visible import Visibility, fresh_rows, visibility

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
        visible: SSIM above what the null reaches; see :class:`Visibility`.
        ssim, psnr, ncc: of the pair.
        null_ssim, null_psnr: of the stronger null.
        rank: 1..m+1 among decoys, None where the target was not ranked.
        informed_rank: the same when the adversary is shown the candidates.
    """

    target: int
    reconstruction: int
    recovered: bool
    visible: bool
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
        visible: the second death, with its null, interval and test.
        paper: what paper-style scoring says, of the attack and of the null.
        ssim_mean, ssim_median, psnr_mean, psnr_median: over all truths, pairs by squared error.
        null_ssim_mean, null_ssim_median, null_psnr_mean, null_psnr_median: of the stronger null.
        ranked: targets that were ranked among decoys.
        decoys: decoys per target m; by chance rank 1 has probability 1/(m+1).
        rank1: share of ranked targets at rank 1.
        rank1_ci: its exact 95 % interval (Clopper-Pearson), (0, 1) where nothing was ranked. Where decoys are shared
            it is the interval of targets met by these very decoys.
        rank1_null: what chance gives, 1/(m+1); None without decoys.
        rank1_p: exact p-value of that count (binomial where decoys are disjoint); adjust it (Holm) over many cells.
        identified_informed: share at rank 1 when the adversary is shown the candidates.
        identified_informed_ci: its interval; None where the attack scores no candidates.
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
    visible: Visibility
    paper: PaperScore
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
    rank1_ci: tuple[float, float]
    rank1_null: float | None
    rank1_p: float
    identified_informed: float | None
    identified_informed_ci: tuple[float, float] | None
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
    paper_threshold: float = PAPER_SSIM,
) -> AttackScore:
    """Score what an attack read out of one hospital's releases.

    Args:
        truths: (n, channels, height, width) as the network saw them, uint8 or floats in [0, 1].
        guesses: (m, channels, height, width), the attack's reconstruction.
        noise_guesses: the same attack's reconstruction of a release of pure noise.
        mean_image: (channels, height, width), the public mean: the other null, and what stands in where the
            attack has no image left.
        ranked: int64 (r,), positions of the truths that are ranked among decoys.
        decoys: index (r, m).
        informed: scores candidates that the adversary is shown, higher is likelier.
        paper_threshold: SSIM above which paper-style scoring counts an image as recovered.

    Raises:
        ValueError: shapes do not fit each other.
    """
    if len(ranked) != len(decoys.index):
        raise ValueError(f"{len(ranked)} targets are ranked, but there are decoys for {len(decoys.index)}")
    nulls = _nulls(truths, noise_guesses, mean_image)
    paired = pair(truths, guesses, mean_image, without=nulls["mean_image"])
    null_name, null = _stronger(nulls)
    recovered, by_null = paired.ssim > RECOVERED_SSIM, null.ssim > RECOVERED_SSIM
    fresh = _nulls(decoys.pool[fresh_rows(decoys.index, truths[:1].size)], noise_guesses, mean_image, len(truths))
    seen = visibility(paired.ssim, _ssims(nulls), _ssims(fresh))
    targets = np.rint(255 * intensities(truths[ranked])).astype(np.uint8)
    ranks = decoy_ranks(targets, decoys, guesses)
    asked = informed is not None and len(ranked) > 0 and decoys.count > 0
    shown = informed_ranks(targets, decoys, informed) if informed is not None and asked else None
    beyond = mcnemar_p(recovered, by_null)
    return AttackScore(
        targets=len(truths),
        recovered=_rate(recovered),
        recovered_ci=_interval(recovered),
        null_recovered=_rate(by_null),
        null=null_name,
        above_null=beyond < SIGNIFICANT,
        above_null_p=beyond,
        visible=seen,
        paper=paper_score(truths, guesses, noise_guesses, mean_image, paper_threshold),
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
        **_identified(ranks, shown, decoys),
        rows=_rows(paired, null, seen.threshold, _by_target(ranked, ranks), _by_target(ranked, shown)),
    )


def _nulls(truths: Images, noise_guesses: Images, mean_image: Images, batch: int | None = None) -> dict[str, Pairing]:
    """Return what is known without an attack: the public mean, and the attack's readout of pure noise."""
    nothing = unpaired(truths, mean_image)
    return {
        "mean_image": nothing,
        "noise_only": pair(truths, noise_guesses, mean_image, batch, without=nothing),
    }


def _ssims(nulls: dict[str, Pairing]) -> list[NDArray[np.float64]]:
    return [null.ssim for null in nulls.values()]


def _stronger(nulls: dict[str, Pairing]) -> tuple[str, Pairing]:
    """Return the null that recovers more; at a tie the one with the higher mean SSIM."""
    return max(nulls.items(), key=lambda item: (int(np.sum(item[1].ssim > RECOVERED_SSIM)), item[1].ssim.sum()))


def _identified(ranks: NDArray[np.int64], shown: NDArray[np.int64] | None, decoys: Decoys) -> dict[str, Any]:
    """Return the figures of the third death; `shown` are the ranks of the adversary that saw the candidates."""
    first = ranks == 1 if decoys.count else ranks[:0] == 1
    return {
        "rank1": _rate(first),
        "rank1_ci": _interval(first),
        "rank1_null": 1 / (decoys.count + 1) if decoys.count else None,
        "rank1_p": decoys.chance_p(int(first.sum())),
        "identified_informed": None if shown is None else _rate(shown == 1),
        "identified_informed_ci": None if shown is None else _interval(shown == 1),
        "identified_informed_p": None if shown is None else decoys.chance_p(int(np.sum(shown == 1))),
    }


def _by_target(ranked: NDArray[np.int64], ranks: NDArray[np.int64] | None) -> dict[int, int]:
    return {} if ranks is None else dict(zip(ranked.tolist(), ranks.tolist(), strict=True))


def _rows(
    paired: Pairing, null: Pairing, threshold: float | None, ranks: dict[int, int], shown: dict[int, int]
) -> tuple[TargetScore, ...]:
    return tuple(
        TargetScore(
            target=target,
            reconstruction=int(paired.index[target]),
            recovered=bool(paired.ssim[target] > RECOVERED_SSIM),
            visible=threshold is not None and bool(paired.ssim[target] > threshold),
            ssim=float(paired.ssim[target]),
            psnr=float(paired.psnr[target]),
            ncc=float(paired.ncc[target]),
            null_ssim=float(null.ssim[target]),
            null_psnr=float(null.psnr[target]),
            rank=ranks.get(target),
            informed_rank=shown.get(target),
        )
        for target in range(len(paired.ssim))
    )


def _interval(hits: NDArray[np.bool_]) -> tuple[float, float]:
    return clopper_pearson(int(hits.sum()), len(hits))


def _rate(hits: NDArray[np.bool_]) -> float | None:
    return float(hits.mean()) if len(hits) else None


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None


def _median(values: NDArray[np.float64]) -> float | None:
    return float(np.median(values)) if len(values) else None
