"""Score an attack that yields images: copies, likeness, and identification, beside nulls and bounds."""

import math
from typing import Any

from configs import derive
from privacy import participant_bound
from privacy.robustness import Threat
from server.adversary.base import Candidates
from server.adversary.nulls import noise_only
from simulation.attacking import Case, head, mean_of
from simulation.bounds import fewest_in_a_sum
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

    They count every step up to the last attacked round, since what is sent in that round came out of all of them, and
    hold for an image that is known to have been drawn in at least one attacked step of a release that came (of a
    cohort not every hospital's does); where several hospitals are inside, for the one that the bound protects least.
    """
    members = case.trace.members
    plans, local = case.setup.plans, case.setup.experiment.training.local_steps
    if not decoys or not any(case.released.values()) or not all(plans[h].claims for h in members):
        return {"bound_worst_case": None, "bound_relaxed": None}
    steps = case.trace.rounds[-1] * local
    cases = {
        (quietest(case, h), plans[h].sample_rate, len(rounds) * local) for h, rounds in case.released.items() if rounds
    }

    def bound(threat: Threat) -> float:
        return max(
            participant_bound(
                noise_multiplier=noise,
                sample_rate=rate,
                steps=steps,
                watched=watched,
                prior=1 / (decoys + 1),
                threat=threat,
            )
            for noise, rate, watched in cases
        )

    return {"bound_worst_case": bound("worst_case"), "bound_relaxed": bound("relaxed")}


def quietest(case: Case, hospital: str) -> float:
    """Return the least noise multiplier that may have protected a hospital's records from the chair.

    A chair that sees single releases is met by the hospital's own noise. So is one that sees sums of several local
    steps: the later ones start from an iterate that only the own noise protects. A sum of single steps carries the
    noise of everybody inside, at least of as many hospitals as a round needs to count.
    """
    plans, training = case.setup.plans, case.setup.experiment.training
    own = plans[hospital].added
    if len(case.trace.members) == 1 or training.local_steps > 1:
        return own
    others = sorted(plans[h].added for h in case.trace.members if h != hospital)
    fewest = fewest_in_a_sum(case.setup.experiment, len(plans))
    if not training.secure_sum:  # some that are counted may not be inside; what a secure sum opens, all members are
        fewest -= len(plans) - len(case.trace.members)
    return math.sqrt(own**2 + sum(s**2 for s in others[: max(fewest - 1, 0)]))


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
