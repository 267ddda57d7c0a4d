"""Run the attacks on the views that a run recorded, and score them. Truth joins here, and nowhere before."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from configs import RunStoppedError, derive
from configs.sections import AttackName
from privacy import reconstruction_bound
from server.adversary.base import Attack, Observation, PublicData, Reconstruction
from server.adversary.nulls import noise_only
from server.adversary.public import load_public
from server.adversary.recording import load_view
from server.adversary.registry import attack
from server.settings import ServerSettings
from simulation.folder import RunFolder
from simulation.pictures import Pictures
from simulation.pools import Pools, Targets, deal_decoys, targets_of, views_of
from simulation.scoring.exact_tests import binomial_p
from simulation.scoring.identification import Decoys
from simulation.scoring.score import AttackScore, score_reconstruction
from simulation.setup import Setup

# A check of a rate against its bound fails a correct run this rarely.
BY_CHANCE = 1e-6


@final
@dataclass(frozen=True)
class AttackResults:
    """The rows of `summary.json` and of `attacks.csv`."""

    summary: list[dict[str, Any]]
    targets: list[dict[str, Any]]


def run_attacks(setup: Setup, folder: RunFolder, pools: Pools, names: Sequence[AttackName]) -> AttackResults:
    """Attack every recorded release with every attack, and score each against its truths and nulls.

    Raises:
        RunStoppedError: if an attack beats the worst-case bound by more than chance explains (p < 1e-6, exact): then
            the ledger, the noise or the scoring is wrong, and no report may be made of it.
    """
    experiment = setup.experiment
    settings = experiment.adversary
    server = ServerSettings.of(experiment, folder.path)
    public = load_public(server.public_data) or pools.public
    results = AttackResults([], [])
    view = load_view(server.views, settings.placement)
    pictures = Pictures(folder, experiment)
    attacks = {name: attack(name, settings) for name in names}
    pool = decoy_images(setup, pools)
    for observation in view.observations:
        targets = targets_of(setup, observation.hospital, observation.round)
        for one in attacks.values():
            guesses = one.reconstruct(observation, public)
            score = _score(setup, one, observation, public, pools, pool, targets, guesses)
            row = _row(setup, one, observation, public, score, guesses)
            results.summary.append(row)
            files = pictures.save(one.name, observation, targets.images, guesses.images, score, mean_of(public))
            results.targets.extend(_target_rows(row, targets, score, files))
            _check_bound(row)
    return results


def decoy_images(setup: Setup, pools: Pools) -> NDArray[np.uint8]:
    """Return views of the decoys made as the hospitals' are, so that truth and decoys are exchangeable."""
    return views_of(setup, pools.decoys, setup.experiment.training, "decoy flips")


def mean_of(public: PublicData) -> NDArray[np.float32]:
    """Return the public mean image, or mid-grey where there are no public data."""
    if len(public.images):
        return (public.images.astype(np.float64).mean(axis=0) / 255.0).astype(np.float32)
    return np.full(public.images.shape[1:], 0.5, dtype=np.float32)


def _score(
    setup: Setup,
    one: Attack,
    seen: Observation,
    public: PublicData,
    pools: Pools,
    pool: NDArray[np.uint8],
    targets: Targets,
    guesses: Reconstruction,
) -> AttackScore:
    settings = setup.experiment.adversary
    seed = derive(setup.experiment.seed, "decoys", seen.hospital, seen.round)
    chosen, dealt = deal_decoys(pools.decoys, targets, ranked=settings.targets, most=settings.decoys, seed=seed)
    return score_reconstruction(
        truths=targets.images,
        guesses=guesses.images,
        noise_guesses=one.reconstruct(noise_only(seen), public).images,
        mean_image=mean_of(public),
        ranked=chosen,
        decoys=Decoys(pool, dealt),
        informed=lambda candidates: one.informed(seen, public, candidates),
    )


def _row(
    setup: Setup,
    one: Attack,
    seen: Observation,
    public: PublicData,
    score: AttackScore,
    guesses: Reconstruction,
) -> dict[str, Any]:
    bounds: dict[str, float | None] = {"worst_case": None, "relaxed": None}
    if setup.plans[seen.hospital].claims and score.decoys:
        for threat in ("worst_case", "relaxed"):
            # The ranked images are known to have been drawn, so the bound is taken at a sample rate of 1.
            bounds[threat] = reconstruction_bound(
                noise_multiplier=seen.terms.noise_multiplier,
                sample_rate=1.0,
                steps=seen.terms.local_steps,
                prior=1 / (score.decoys + 1),
                threat=threat,
            )
    return {
        "placement": setup.experiment.adversary.placement,
        "attack": one.name,
        "round": seen.round,
        "hospital": seen.hospital,
        "targets": score.targets,
        "recovered": score.recovered,
        "recovered_ci": list(score.recovered_ci),
        "null_recovered": score.null_recovered,
        "null": score.null,
        "above_null": score.above_null,
        "above_null_p": score.above_null_p,
        "mean_ssim": score.ssim_mean,
        "null_mean_ssim": score.null_ssim_mean,
        "mean_psnr": score.psnr_mean,
        "null_mean_psnr": score.null_psnr_mean,
        "decoys": score.decoys,
        "ranked": score.ranked,
        "rank1": score.rank1,
        "rank1_p": score.rank1_p if score.ranked else None,
        "identified_informed": score.identified_informed,
        "identified_informed_p": score.identified_informed_p if score.ranked else None,
        "readout": guesses.readout,
        "bound_worst_case": bounds["worst_case"],
        "bound_relaxed": bounds["relaxed"],
        "public_data": public.description,
    }


def _target_rows(
    row: dict[str, Any], targets: Targets, score: AttackScore, files: dict[int, dict[str, str]]
) -> list[dict[str, Any]]:
    no_files = {"true_png": "", "reconstructed_png": "", "null_png": ""}
    head = {key: row[key] for key in ("placement", "attack", "round", "hospital")}
    return [
        {
            **head,
            "target": targets.ids[one.target],
            "ssim": one.ssim,
            "psnr": one.psnr,
            "ncc": one.ncc,
            "null_ssim": one.null_ssim,
            "null_psnr": one.null_psnr,
            "recovered": one.recovered,
            "rank": one.rank,
            "informed_rank": one.informed_rank,
            "decoys": score.decoys,
            **files.get(one.target, no_files),
        }
        for one in score.rows
    ]


def _check_bound(row: dict[str, Any]) -> None:
    bound = row["bound_worst_case"]
    for key in ("rank1", "identified_informed"):
        rate = row[key]
        if bound is None or rate is None or not row["ranked"]:
            continue
        # Exact, and so rare by chance that not one of a study's many checks should ever stop a correct run.
        if binomial_p(round(rate * row["ranked"]), row["ranked"], bound) < BY_CHANCE:
            raise RunStoppedError(
                f"attack '{row['attack']}' on {row['hospital']} in round {row['round']} identified {rate:.3f} of its "
                f"targets where the worst-case bound allows {bound:.3f}: the noise, the ledger or the scoring is "
                f"wrong, so no report is made."
            )
