"""Options and outputs that several commands share."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from configs import Experiment, Study, load

Config = Annotated[str, typer.Argument(help="A YAML file, or a preset: demo, ham10000, radimagenet, msd_liver, ...")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. privacy.epsilon=8."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output and nothing else.")]


def load_config(config: str, settings: list[str] | None, engine: str | None) -> Experiment | Study:
    """Load a configuration with the overrides of the command line."""
    return load(config, [*(settings or []), *([f"runtime.engine={engine}"] if engine else [])])


def load_study(config: str, settings: list[str] | None, engine: str | None) -> Study:
    """Load a configuration as a study; an experiment is one without axes."""
    loaded = load_config(config, settings, engine)
    return loaded if isinstance(loaded, Study) else Study(experiment=loaded)


def folder_of(out: Path | None, config: str, kind: str = "") -> Path:
    """Return where results go: as asked, or a folder of their own under `runs`, named by configuration and time."""
    return out or Path("runs") / f"{Path(config).stem}{kind}-{time.strftime('%Y%m%d-%H%M%S')}"


def console() -> Console:
    """Return standard error; where it is not a terminal, wide enough that a table keeps its words."""
    shown = Console(stderr=True)
    return shown if shown.is_terminal else Console(stderr=True, width=140)


def print_json(content: Any) -> None:
    """Print one JSON document; a number that is no number is an error, not a token that JSON lacks."""
    sys.stdout.write(json.dumps(content, allow_nan=False) + "\n")
