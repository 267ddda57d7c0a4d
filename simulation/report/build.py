"""Build report.html: one file for a run, a study, or several runs side by side."""

import functools
import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from configs import InputError
from simulation.report import pages
from simulation.report.budgets_page import budgets_page
from simulation.report.budgets_tables import write_tables
from simulation.report.loading import read_run, read_summary
from simulation.report.placements import placements_page

REPORT = "report.html"


def build_report(folder: Path) -> Path:
    """Write the report of a run or of a study into its folder, whole or not at all; a study's comparisons as CSV too.

    Args:
        folder: holds `summary.json` and whatever tables and pictures the run left.

    Returns:
        The report's path. The same folder gives the same bytes.

    Raises:
        InputError: if the folder holds no summary that a report can be made of.
    """
    summary = read_summary(folder)
    kind = summary.get("kind")
    if kind == "run":
        text = _render("run.html", pages.run_page(read_run(folder, summary)))
    elif kind == "study":
        text = _render("budgets.html", budgets_page(folder, summary))
        write_tables(folder, summary)
    elif kind == "placements":
        text = _render("placements.html", placements_page(folder, summary))
    else:
        raise InputError(f"{folder / 'summary.json'}: its kind is {kind!r}, not 'run', 'study' or 'placements'.")
    return _write(folder / REPORT, text)


def build_comparison(folders: list[Path], out: Path) -> Path:
    """Write one page with several runs side by side; of a study, every cell is a run.

    Args:
        folders: of runs or studies.
        out: the file to write, or a folder to write `report.html` into.

    Raises:
        InputError: if a folder holds no summary, or there is none.
    """
    if not folders:
        raise InputError("a comparison needs at least one run's folder.")
    text = _render("comparison.html", pages.comparison_page(folders))
    return _write(out / REPORT if out.is_dir() else out, text)


def _render(template: str, content: dict[str, Any]) -> str:
    return _environment().get_template(template).render(**content)


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("simulation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
