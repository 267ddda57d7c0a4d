"""The command `fedward bounds`: how much anybody could get back, for a configuration, a setting, or the paper's."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from configs import InputError, Study, load
from simulation.cli_options import Json, Settings, console, print_json

if TYPE_CHECKING:  # it imports torch: seconds that no other command should wait
    from simulation.bounds import BoundRow

WORDS = (
    "worst case: bounds the probability with which anybody who sees this picks the right one of so many candidates. "
    "relaxed: the same for an adversary who has to guess a sign at every step; a model of a weaker attacker and no "
    "guarantee. without a prior: correlation with the true image of the best reading by somebody who knows nothing "
    "about images (a public mean image may beat it). Everything assumes Poisson sampling, noise that nobody else "
    "knows, and that records (rows of whole hospitals: hospitals) are added or removed one at a time."
)


def bounds(
    config: Annotated[str | None, typer.Argument(help="A YAML file or a preset; its data are read and dealt.")] = None,
    settings: Settings = None,
    noise_multiplier: Annotated[
        float | None, typer.Option(help="Instead of a configuration: noise / clipping norm.")
    ] = None,
    sample_rate: Annotated[float | None, typer.Option(help="With --noise-multiplier; default 1.")] = None,
    steps: Annotated[int | None, typer.Option(help="With --noise-multiplier; default 1.")] = None,
    delta: Annotated[float | None, typer.Option(help="With --noise-multiplier; default 1e-5.")] = None,
    pixels: Annotated[
        int | None, typer.Option(min=2, help="Pixels of an image, for the bound without a prior.")
    ] = None,
    prior: Annotated[
        int | None, typer.Option(min=2, help="Among how many candidates; default: as many as the hospital has units.")
    ] = None,
    paper: Annotated[bool, typer.Option("--paper", help="The settings of Ziller et al. 2024.")] = False,
    as_json: Json = False,
) -> None:
    """Bound what anybody could reconstruct, under each threat model, without training anything.

    Examples: fedward bounds ham10000_eps8 --set task.root=DIR; fedward bounds --noise-multiplier .6 --prior 1000
    """
    if sum([config is not None, noise_multiplier is not None, paper]) != 1:
        raise InputError("fedward bounds: give one of a configuration, --noise-multiplier, or --paper.")
    alone = {"--sample-rate": sample_rate, "--steps": steps, "--delta": delta, "--pixels": pixels}
    stray = [name for name, value in alone.items() if value is not None]
    if noise_multiplier is None and stray:
        raise InputError(f"{stray[0]}: goes with --noise-multiplier only; a configuration brings its own.")
    notes: list[str] = []
    budgets: Sequence[float | None]
    if paper:
        from simulation.bounds import paper_bounds

        found = paper_bounds(candidates=prior)
        budgets, rows = [budget for budget, _ in found], [row for _, row in found]
        notes.append(
            "The budget is what opacus' accountant prints for the noise, as in the paper; epsilon is the exact one. "
            "The number of RadImageNet's training images is assumed."
        )
    elif config is not None:
        rows, notes = _of_experiment(config, settings, prior)
        budgets = [None] * len(rows)
    else:
        terms = (1.0 if sample_rate is None else sample_rate, 1 if steps is None else steps)
        rows = [_of_terms(noise_multiplier or 0.0, *terms, 1e-5 if delta is None else delta, prior or 1000, pixels)]
        budgets = [None]
    if as_json:
        content = [
            {**({} if b is None else {"budget_in_paper": b}), **r.to_json()} for b, r in zip(budgets, rows, strict=True)
        ]
        print_json({"bounds": content, "notes": notes})
        return
    _show(rows, budgets, Console(width=150) if not sys.stdout.isatty() else Console())
    for note in (WORDS, *notes):
        console().print(note, highlight=False)


def _of_experiment(config: str, settings: list[str] | None, prior: int | None) -> "tuple[list[BoundRow], list[str]]":
    from simulation.bounds import experiment_bounds
    from simulation.setup import prepare

    loaded = load(config, settings or [])
    return experiment_bounds(prepare(loaded.experiment if isinstance(loaded, Study) else loaded), prior)


def _of_terms(noise: float, rate: float, steps: int, delta: float, candidates: int, pixels: int | None) -> "BoundRow":
    from simulation.bounds import Seen, bound

    try:
        return bound(
            Seen("these terms", f"{steps} step{'s' if steps > 1 else ''}", noise, rate, steps, candidates, pixels),
            delta,
        )
    except ValueError as error:
        raise InputError(str(error)) from error


def _show(rows: "Sequence[BoundRow]", budgets: Sequence[float | None], out: Console) -> None:
    table = Table(title="Reconstruction bounds", title_justify="left")
    with_budget = any(b is not None for b in budgets)
    names = ["of", "what is seen", *(["budget in the paper"] if with_budget else []), "noise", "rate", "steps"]
    for name in [*names, "epsilon (at most)", "candidates", "worst case", "relaxed", "without a prior"]:
        table.add_column(name, justify="left" if name in ("of", "what is seen") else "right", overflow="fold")
    for row, budget in zip(rows, budgets, strict=True):
        seen = row.seen
        table.add_row(
            seen.who,
            seen.what,
            *([_short(budget)] if with_budget else []),
            _short(seen.noise_multiplier),
            _short(seen.sample_rate),
            f"{seen.steps:,}",
            _short(row.epsilon) if row.epsilon is not None else "no claim",
            f"{seen.candidates:,}",
            _short(row.worst_case),
            _short(row.relaxed),
            _short(row.ncc),
        )
    out.print(table)


def _short(value: Any) -> str:
    return "-" if value is None else f"{value:.3g}"
