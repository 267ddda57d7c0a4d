"""Score an attack that yields images: copies, likeness, and identification, beside nulls and bounds."""

from dataclasses import replace
from typing import Any

import numpy as np

from configs import derive
from privacy import reconstruction_bound
from privacy.robustness import Threat
from server.adversary.base import Candidates, PublicTerms
from server.adversary.nulls import noise_only
from simulation.attacking import Case, head, mean_of
from simulation.pools import deal_decoys
from simulation.scoring.identification import Decoys
from simulation.scoring.public_distance import public_distance
from simulation.scoring.score import AttackScore, score_reconstruction

COPIED = "copied (SSIM > .9)"


def score_images(case: Case) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the row of the summary and one row per target; pictures are written on the way."""
    guesses = case.attack.reconstruct(case.trace, case.public)
    settings = case.setup.experiment.adversary
    seed = derive(case.setup.experiment.seed, "decoys", case.trace.hospital, case.trace.rounds[-1])
    chosen, dealt = deal_decoys(
        case.pools.decoys, case.targets, ranked=settings.targets, most=settings.decoys, seed=seed
    )
    score = score_reconstruction(
        truths=case.targets.images,
        guesses=guesses.images,
        noise_guesses=case.attack.reconstruct(noise_only(case.trace), case.public).images,
        mean_image=mean_of(case.public),
        ranked=chosen,
        decoys=Decoys(case.pool, dealt),
        informed=lambda candidates: case.attack.informed(case.trace, case.public, Candidates(candidates)),
    )
    row = {
        **head(case),
        **_success(score),
        **_figures(score),
        "public_distance": public_distance(case.targets.images, case.public.images, case.pools.public_units),
        "readout": guesses.readout,
        **bounds_of(case, score.decoys),
    }
    files = case.pictures.save(
        f"{case.placement}-{case.attack.name}",
        case.trace.last,
        case.targets.images,
        guesses.images,
        score,
        mean_of(case.public),
    )
    return row, _target_rows(row, case, score, files)


def bounds_of(case: Case, decoys: int) -> dict[str, float | None]:
    """Return the formal bounds on identifying one of decoys + 1 candidates, None where no epsilon is claimed.

    The ranked images are known to have been drawn in at least one of R releases. Given that, success is at most the
    bound at a sample rate of 1, and at most the bound at the run's own rate over the chance of being drawn at all;
    the smaller holds.
    """
    members = case.trace.members
    if not decoys or not all(case.setup.plans[h].claims for h in members):
        return {"bound_worst_case": None, "bound_relaxed": None}
    terms = case.trace.last.terms
    quietest = min(seen.terms.noise_multiplier for seen in case.trace.observations)
    if terms.local_steps > 1:  # later local steps start from an iterate that only the own noise protects
        quietest = min(case.setup.plans[h].noise_multiplier for h in members)
    terms = replace(terms, noise_multiplier=quietest)
    releases, prior = len(case.trace.rounds), 1 / (decoys + 1)
    return {
        "bound_worst_case": conditional_bound(terms, releases, prior, "worst_case"),
        "bound_relaxed": conditional_bound(terms, releases, prior, "relaxed"),
    }


def conditional_bound(terms: PublicTerms, releases: int, prior: float, threat: Threat) -> float:
    """Return the bound for a record that took part at least once in so many releases of the same terms."""
    steps = releases * terms.local_steps

    def bound(rate: float) -> float:
        return reconstruction_bound(
            noise_multiplier=terms.noise_multiplier, sample_rate=rate, steps=steps, prior=prior, threat=threat
        )

    whole = bound(1.0)
    if steps == 1 or terms.sample_rate >= 1:
        return whole
    drawn = float(-np.expm1(steps * np.log1p(-terms.sample_rate)))
    return float(min(whole, bound(terms.sample_rate) / drawn))


def _success(score: AttackScore) -> dict[str, Any]:
    """Return the keys under which attacks of every kind are compared; for images the first death."""
    return {
        "success": score.recovered,
        "success_ci": list(score.recovered_ci),
        "success_null": score.null_recovered,
        "success_p": score.above_null_p,
        "success_name": COPIED,
    }


def _figures(score: AttackScore) -> dict[str, Any]:
    return {
        "recovered": score.recovered,
        "recovered_ci": list(score.recovered_ci),
        "null_recovered": score.null_recovered,
        "null": score.null,
        "above_null": score.above_null,
        "above_null_p": score.above_null_p,
        "visible": score.visible.rate,
        "visible_ci": list(score.visible.ci),
        "null_visible": score.visible.null_rate,
        "visible_p": score.visible.p,
        "visible_threshold": score.visible.threshold,
        "paper_recovered": score.paper.recovered,
        "paper_null_recovered": score.paper.null_recovered,
        "paper_threshold": score.paper.threshold,
        "paper_targets": score.paper.targets,
        "mean_ssim": score.ssim_mean,
        "null_mean_ssim": score.null_ssim_mean,
        "mean_psnr": score.psnr_mean,
        "null_mean_psnr": score.null_psnr_mean,
        "decoys": score.decoys,
        "ranked": score.ranked,
        "rank1": score.rank1,
        "rank1_ci": list(score.rank1_ci) if score.ranked else None,
        "rank1_null": score.rank1_null,
        "rank1_p": score.rank1_p if score.ranked else None,
        "identified_informed": score.identified_informed,
        "identified_informed_ci": _listed(score.identified_informed_ci),
        "identified_informed_p": score.identified_informed_p if score.ranked else None,
    }


def _listed(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _target_rows(
    row: dict[str, Any], case: Case, score: AttackScore, files: dict[int, dict[str, str]]
) -> list[dict[str, Any]]:
    no_files = {"true_png": "", "reconstructed_png": "", "null_png": ""}
    start = {key: row[key] for key in ("placement", "attack", "round")}
    return [
        {
            **start,
            "hospital": case.targets.hospitals[one.target],
            "target": case.targets.ids[one.target],
            "ssim": one.ssim,
            "psnr": one.psnr,
            "ncc": one.ncc,
            "null_ssim": one.null_ssim,
            "null_psnr": one.null_psnr,
            "recovered": one.recovered,
            "visible": one.visible,
            "rank": one.rank,
            "informed_rank": one.informed_rank,
            "decoys": score.decoys,
            **files.get(one.target, no_files),
        }
        for one in score.rows
    ]
