"""Commands on data: `fedward data phantom`, `fedward data check`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from configs import InputError
from configs.sections import TaskName
from simulation.cli_options import Json, Settings, console, print_json

app = typer.Typer(help="What data are there, and synthetic stand-ins.", no_args_is_help=True)

Task = Annotated[str, typer.Argument(help="ham10000, radimagenet or msd_liver")]


@app.command()
def phantom(
    task: Task,
    out: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    images: Annotated[int, typer.Option(min=4, help="Number of images (scans).")] = 1600,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Write a synthetic dataset in the official layout.

    Example: fedward data phantom msd_liver /tmp/liver --images 12
    """
    from tasks.registry import write_phantom

    write_phantom(_known(task), out, images=images, seed=seed)
    typer.echo(str(out))


@app.command()
def check(
    task: Task,
    root: Annotated[Path, typer.Argument(help="The dataset's folder in its official layout, or 'phantom'.")],
    settings: Settings = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="Read every image, also where they are read lazily.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the deal to this PNG file.")] = None,
    as_json: Json = False,
) -> None:
    """Say what is there, what is missing or damaged, and how it would be dealt to hospitals.

    Example: fedward data check ham10000 /data/HAM10000 --set hospitals.partition=dirichlet --set hospitals.count=8
    """
    from simulation.checking import check_data, draw_deal, sources

    name = _known(task)
    if str(root) != "phantom" and not root.is_dir():
        raise InputError(f"{root}: no such folder. {sources(name)}")
    found = check_data(name, str(root), settings or [], decode=decode, shown=console())
    if plot is not None:
        draw_deal(found, plot)
    if as_json:
        print_json(found.to_json())
        return
    found.show(Console())
    if plot is not None:
        typer.echo(f"the deal is drawn in {plot}")


def _known(task: str) -> TaskName:
    import difflib
    from typing import get_args

    names: tuple[TaskName, ...] = get_args(TaskName)
    for name in names:
        if task == name:
            return name
    near = difflib.get_close_matches(task, names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(names)}."
    raise InputError(f"{task}: unknown task; {hint}")
