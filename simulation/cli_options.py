"""Options and outputs that several commands share."""

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

Config = Annotated[str, typer.Argument(help="A YAML file, or a preset: demo, ham10000, radimagenet, msd_liver, ...")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. privacy.epsilon=8."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output and nothing else.")]


def console() -> Console:
    """Return standard error; where it is not a terminal, wide enough that a table keeps its words."""
    shown = Console(stderr=True)
    return shown if shown.is_terminal else Console(stderr=True, width=140)


def print_json(content: Any) -> None:
    """Print one JSON document; a number that is no number is an error, not a token that JSON lacks."""
    sys.stdout.write(json.dumps(content, allow_nan=False) + "\n")
