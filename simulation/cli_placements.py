"""The command `fedward placements`: the same federated runs, watched from every chair."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from simulation.cli_options import Config, Json, Settings, console, folder_of, load_study, print_json

if TYPE_CHECKING:
    from simulation.run import Run


def placements(
    config: Config,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the results.")] = None,
    as_json: Json = False,
    engine: Annotated[str | None, typer.Option("--engine", help="inline, ray or flower.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a study of the same settings stopped.")] = False,
) -> None:
    """Run the study with the adversary at each placement: placements x budgets x attacks in one table.

    Example: fedward placements placements --set 'study.budgets=[none, 8]'
    """
    from simulation.placements import run_placements

    study = load_study(config, settings, engine)
    shown = console()
    run = run_placements(study, folder_of(out, config, "-placements"), Path(config).stem, resume=resume, console=shown)
    if as_json:
        print_json(run.summary)
    show_placements(run, shown)


def show_placements(run: "Run", shown: Console) -> None:
    """Print one line per setting, chair and attack that was tried, what it means, and the report's path."""
    columns = ("setting", "placement", "attack", "n", "success", "95 %", "null", "p (Holm)")
    table = Table(title="Placements x attacks, all seeds together", title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in columns[:3] else "right")
    rows = [row for row in run.summary["rows"] if row["seed"] == "all"]
    for row in rows:
        if row["success"] is not None:
            setting = row["mechanism"] if row["budget"] == "none" else f"{row['mechanism']} {row['budget']:g}"
            ends = f"{100 * row['success_low']:.0f} to {100 * row['success_high']:.0f}"
            table.add_row(setting, row["placement"], row["attack"], str(row["n"]), *_figures(row, ends))
    shown.print(table)
    refused = sum(row["success"] is None for row in rows)
    shown.print(f"{refused} of {len(rows)} combinations cannot be; their reasons are in the table of the report")
    for sentence in run.summary["words"]:
        shown.print(sentence, highlight=False, markup=False)
    shown.print(f"report: {run.folder / 'report.html'}", highlight=False, soft_wrap=True)


def _figures(row: dict[str, Any], ends: str) -> tuple[str, ...]:
    null = "-" if row["success_null"] is None else f"{100 * row['success_null']:.0f} %"
    p = "-" if row["success_p_holm"] is None else f"{row['success_p_holm']:.2g}"
    return f"{100 * row['success']:.0f} %", ends, null, p
