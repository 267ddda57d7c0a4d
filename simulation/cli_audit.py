"""The command `fedward audit`: does what is released contradict what the ledger claims?"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from configs import InputError, RunStoppedError, Study, load
from simulation.cli_options import Config, Json, Settings, console, print_json
from simulation.cli_privacy import as_content

if TYPE_CHECKING:  # they import torch: seconds that no other command should wait
    from clients.planning import Plan
    from simulation.auditing import Audit

WORDS = (
    "An audit gives lower bounds: it can refute a claim and never proves one. It sees the faults that show at its own "
    "canaries, whose gradients are orthogonal, on a linear model, with this machine's hospital code."
)


def audit(
    config: Config,
    settings: Settings = None,
    hospital: Annotated[
        str | None, typer.Option(help="Whose plan is audited; default: the highest sample rate.")
    ] = None,
    canaries: Annotated[int, typer.Option(min=100, max=2**24 - 1, help="Each is in the data by a fair coin.")] = 4000,
    steps: Annotated[int, typer.Option(min=1, help="At most so many of the plan's noisy steps.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Of coins, sampling and noise.")] = 0,
    as_json: Json = False,
) -> None:
    """Audit a hospital's DP-SGD with canaries: exit code 3 where what it releases refutes the claimed epsilon.

    Example: fedward audit ham10000_eps8 --canaries 4000
    """
    from simulation.auditing import audit_plan
    from simulation.setup import prepare

    loaded = load(config, settings or [])
    experiment = loaded.experiment if isinstance(loaded, Study) else loaded
    if not experiment.privacy.claims:
        raise InputError(
            f"privacy.mechanism: '{experiment.privacy.mechanism}' claims no epsilon, so there is nothing to audit; "
            "set local and a budget."
        )
    if experiment.privacy.mechanism == "distributed":
        raise InputError(
            "privacy.mechanism: 'distributed' claims its epsilon for the secure sum, not for what one hospital adds to "
            "it, and one hospital is what is audited; set local, whose releases are made alike."
        )
    plan = _chosen(prepare(experiment).plans, hospital)
    found = audit_plan(
        plan, experiment.training, delta=experiment.privacy.delta, canaries=canaries, steps=steps, seed=seed
    )
    if as_json:
        print_json(as_report(found, plan.hospital))
    else:
        for line in _lines(found, plan.hospital):
            console().print(line, highlight=False, markup=False, soft_wrap=True)
    if found.refuted:
        raise RunStoppedError(f"The claim is refuted: {'; '.join(found.refuted)}.")


def _chosen(plans: "dict[str, Plan]", hospital: str | None) -> "Plan":
    if hospital is not None and hospital not in plans:
        raise InputError(f"--hospital {hospital}: no such hospital; choose from {', '.join(sorted(plans))}.")
    return plans[hospital] if hospital else max(plans.values(), key=lambda p: (p.sample_rate, p.hospital))


def verdict(found: "Audit") -> str:
    """Return the outcome in words."""
    return "the claim is refuted" if found.refuted else "no contradiction found"


def as_report(found: "Audit", hospital: str) -> dict[str, Any]:
    """Return an audit as JSON content."""
    content = asdict(found)
    return {
        "hospital": hospital,
        **content,
        "claimed": as_content(found.claimed),
        "refuted": list(found.refuted),
        "verdict": verdict(found),
        "note": WORDS,
    }


def _lines(found: "Audit", hospital: str) -> list[str]:
    share = 1.0 - (1.0 - found.confidence) / 4
    spread = "" if found.dispersion is None else f" (variance {found.dispersion:.3g} of what it should be)"
    part = "" if found.steps == found.planned_steps else f" of {found.planned_steps} planned"
    return [
        f"{hospital}: noise multiplier {found.noise_multiplier:.5g}, sample rate {found.sample_rate:.4g}, "
        f"{found.steps} steps{part}, {found.canaries} canaries",
        f"claimed epsilon {found.claimed.upper:.4g} at delta {found.delta:g}",
        f"one run (Steinke et al. 2023): epsilon at least {found.one_run_epsilon:.4g}, from {found.correct} of "
        f"{found.guesses} guesses right, confidence {share:.4g}",
        f"trade-off curve, canaries independent: epsilon at least {found.curve_epsilon:.4g}, confidence {share:.4g}",
        f"batch sizes: p {found.dispersion_p:.3g} against Poisson sampling{spread}",
        f"noise of a hospital without records: {found.noise_ratio:.4g} of the planned, p {found.noise_p:.3g}",
        f"Verdict: {verdict(found)}; all tests together err with probability {1.0 - found.confidence:.2g} at most.",
        WORDS,
    ]
