"""What each page holds: everything a template needs, made from summaries, tables and pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulation.report import phrases
from simulation.report.figures import run_figures
from simulation.report.gallery import shows_real, strips, why_none
from simulation.report.loading import RunFiles, read_run, read_summary
from simulation.report.outcomes import level, others, outcomes
from simulation.report.panels import columns_of, run_panel, targets_of
from simulation.report.subgroups import people_table
from simulation.report.tables import Table, hospital_table, settings_table
from simulation.report.tables_attacks import attack_table, budget_table, other_table
from simulation.report.tiles import run_tiles
from simulation.report.words import run_chapters
from simulation.report.words_attacks import VERDICTS, public_words
from simulation.report.words_study import Group

Content = dict[str, Any]


def run_page(run: RunFiles) -> Content:
    """Return the content of a run's page."""
    summary = run.summary
    found = outcomes(summary["attacks"])
    verdict = level(found)
    shown = strips(run)
    return {
        **common([run]),
        "title": "What was learnt, and what leaked",
        "level": verdict,
        "verdict": VERDICTS[verdict],
        "tiles": run_tiles(summary, found),
        "chapters": run_chapters(summary),
        "hero": shown[0] if shown else None,
        "strips": shown[1:],
        "no_pictures": why_none(run),
        "public_words": public_words(summary["attacks"]),
        "readouts": readouts(summary["attacks"]),
        "figures": run_figures(run, found),
        "hospital_table": hospital_table(summary),
        "people_table": people_table(summary) if summary["subgroups"] else None,
        "attack_table": attack_table(found) if found else None,
        "other_table": other_table(rest) if (rest := others(summary["attacks"])) else None,
        "settings": settings_table([("Value", summary["experiment"])]),
        "facts": _facts(summary),
    }


def comparison_page(folders: Sequence[Path]) -> Content:
    """Return the content of a page with several runs side by side.

    Raises:
        InputError: if a folder holds no summary.
    """
    named = [pair for folder in folders for pair in _runs_of(folder)]
    columns = columns_of(len(named))
    return {
        **common([run for _, run in named]),
        "title": f"{len(named)} runs side by side",
        "columns": columns,
        "panels": [run_panel(name, run, targets_of(columns)) for name, run in named],
        "chapters": [(name, run_chapters(run.summary)) for name, run in named],
        "figures": [(name, run_figures(run, outcomes(run.summary["attacks"]))) for name, run in named],
        "differences": settings_table([(name, run.summary["experiment"]) for name, run in named]),
        "measures": _measures(named),
    }


def common(runs: Sequence[RunFiles]) -> Content:
    """Return what every page holds."""
    first = runs[0].summary if runs else {"task": "", "data": "phantom", "fedward": ""}
    return {
        "fedward": first["fedward"],
        "pictures_of": phrases.pictures(first),
        "synthetic": all(run.summary["data"] == "phantom" for run in runs),
        "real_pictures": shows_real(runs),
        "glossary": phrases.GLOSSARY,
    }


def _runs_of(folder: Path) -> list[tuple[str, RunFiles]]:
    summary = read_summary(folder)
    name = folder.resolve().name
    if summary.get("kind") not in ("study", "placements"):
        return [(name, read_run(folder, summary))]
    return [(f"{name}: {c['cell']}", read_run(folder / c["folder"], c["summary"])) for c in summary["cells"]]


def _measures(named: Sequence[tuple[str, RunFiles]]) -> Table:
    """Return the table of a comparison: what a study's table shows, one row per run."""
    groups = [
        Group(run.summary["experiment"]["privacy"]["mechanism"], None, name, ({"summary": run.summary},))
        for name, run in named
    ]
    table = budget_table(groups)
    measure = groups[0].measure.label
    caption = table.caption.replace(
        f"One row per setting; runs with different seeds together ({measure}: their mean; n:",
        "One row per run (n:",
    )
    return Table(caption, ("Run", *table.columns[1:]), table.rows, table.note)


def readouts(attacks: Sequence[Content]) -> list[str]:
    """Say how each attack read its images out."""
    return sorted({f"{row['attack']}: {row['readout']}" for row in attacks if row.get("readout")})


def _facts(summary: Content) -> list[tuple[str, str]]:
    return [
        ("Task", f"{summary['task']} ({summary['data']} data)"),
        ("Rounds", f"{summary['rounds']:,}"),
        ("Engine", f"{summary['engine']}; it never changes a result"),
        ("Time", f"{summary['seconds']:,.0f} seconds"),
        ("Final model, SHA-256 of its weights", str(summary["model_sha256"])),
        ("Experiment, SHA-256 of its settings", str(summary["experiment_sha256"])),
        ("Made by", f"fedward {summary['fedward']}"),
    ]
