"""The command `fedward budgets`: mechanisms x budgets x seeds, or their price alone."""

from pathlib import Path
from typing import Annotated

import typer

from configs import InputError
from simulation.cli_options import Config, Json, Settings, console, folder_of, load_study, print_json

Sizes = Annotated[str | None, typer.Option(metavar="A,B,C", help="--plan: records of each hospital; no data needed.")]


def budgets(
    config: Config,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the results.")] = None,
    as_json: Json = False,
    engine: Annotated[str | None, typer.Option("--engine", help="ray: cells side by side; inline, flower.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep finished cells, go on with the others.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Price every mechanism and budget without training.")] = False,
    hospitals: Annotated[int | None, typer.Option(min=1, help="--plan: so many hospitals; no data needed.")] = None,
    records: Annotated[int | None, typer.Option(min=1, help="--plan: records of each of them.")] = None,
    sizes: Sizes = None,
) -> None:
    """Run mechanisms x budgets: utility, price and attacks, side by side.

    Example: fedward budgets demo --set 'study.budgets=[none, 1e6, 8]'

    Example: fedward budgets demo --plan --hospitals 1000 --records 500
    """
    study = load_study(config, settings, engine)
    shown = console()
    chosen = _sizes(hospitals, records, sizes)
    if plan:
        from simulation.budgets_plan import plan_command

        plan_command(study, chosen, shown, as_json)
        return
    if chosen is not None:
        raise InputError("--hospitals, --records, --sizes: for --plan only; a study takes its hospitals from the data.")
    from simulation.grid import run_budgets
    from simulation.showing import show_study

    run = run_budgets(study, folder_of(out, config), Path(config).stem, resume=resume, console=shown)
    if as_json:
        print_json(run.summary)
    show_study(run, shown)


def _sizes(hospitals: int | None, records: int | None, sizes: str | None) -> dict[str, int] | None:
    """Return each hospital's number of records as the options name them; None where they name none."""
    if sizes is None and hospitals is None and records is None:
        return None
    if sizes is None:
        if hospitals is None or records is None:
            raise InputError("--hospitals and --records go together; name both, or --sizes.")
        counts = [records] * hospitals
    elif hospitals is not None or records is not None:
        raise InputError("--sizes names every hospital; leave out --hospitals and --records.")
    else:
        try:
            counts = [int(part) for part in sizes.split(",")]
        except ValueError:
            raise InputError(f"--sizes {sizes}: write whole numbers with commas, e.g. 1200,300,80.") from None
        if min(counts) < 1:
            raise InputError(f"--sizes {sizes}: every hospital has at least one record.")
    digits = max(2, len(str(len(counts))))
    return {f"hospital-{k + 1:0{digits}d}": n for k, n in enumerate(counts)}
