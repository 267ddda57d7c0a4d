"""Commands on data: `fedward data phantom`, `fedward data check`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from configs import Experiment, InputError

app = typer.Typer(help="What data are there, and synthetic stand-ins.", no_args_is_help=True)


@app.command()
def phantom(
    task: Annotated[str, typer.Argument(help="ham10000")],
    out: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    images: Annotated[int, typer.Option(min=64, help="Number of images.")] = 1600,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Write a synthetic dataset in the official layout."""
    from tasks.ham10000.phantom import write_phantom

    if task != "ham10000":
        raise InputError(f"{task}: unknown task; known is ham10000.")
    if out.exists():
        raise InputError(f"{out}: exists already; choose another folder.")
    write_phantom(out, images=images, seed=seed)
    sys.stdout.write(f"{out}\n")


@app.command()
def check(
    task: Annotated[str, typer.Argument(help="ham10000")],
    root: Annotated[Path, typer.Argument(help="The dataset's folder in its official layout, or 'phantom'.")],
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Read a dataset whole and say what is there and how its natural hospitals would be dealt."""
    import tasks
    from tasks.dealing import deal_experiment

    if task != "ham10000":
        raise InputError(f"{task}: unknown task; known is ham10000.")
    experiment = Experiment().updated(task={"name": task, "root": str(root)})
    found = tasks.get(experiment.task)
    splits = found.load()
    training, heldout = splits.parts("test")
    rows: list[dict[str, Any]] = [
        {
            "hospital": h.name,
            "images": len(h.records),
            found.unit + "s": len(np.unique(h.records.units)),
            "classes": {
                found.class_names[int(c)]: int(n)
                for c, n in zip(*np.unique(h.records.labels, return_counts=True), strict=True)
            },
        }
        for h in deal_experiment(experiment, training).hospitals
    ]
    content = {
        "task": task,
        "fingerprint": splits.fingerprint,
        "training_images": len(training),
        "heldout_images": len(heldout),
        "hospitals": rows,
    }
    sys.stdout.write(json.dumps(content, indent=None if as_json else 2) + "\n")
