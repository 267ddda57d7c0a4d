"""What each page holds: everything a template needs, made from summaries, tables and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from simulation.measures import leading
from simulation.report import phrases
from simulation.report.figures import run_figures
from simulation.report.figures_study import study_figures
from simulation.report.gallery import MOST, Strip, shows_real, strips, why_none
from simulation.report.loading import RunFiles, read_run, read_summary
from simulation.report.numbers import decimal
from simulation.report.outcomes import Outcome, level, others, outcomes
from simulation.report.subgroups import cost_table, people_table
from simulation.report.tables import Table, hospital_table, settings_table
from simulation.report.tables_attacks import attack_table, budget_table, other_table
from simulation.report.tiles import run_tiles
from simulation.report.words import run_chapters, study_chapters
from simulation.report.words_attacks import VERDICTS, facts, public_words
from simulation.report.words_study import Group, groups_of, leading_words

Content = dict[str, Any]


@final
@dataclass(frozen=True)
class Panel:
    """One setting of a study, or one run of a comparison, as the first screen shows it."""

    label: str
    level: str
    verdict: str
    utility: str
    facts: tuple[tuple[str, str, str], ...]
    strip: Strip | None
    missing: str


def run_page(run: RunFiles) -> Content:
    """Return the content of a run's page."""
    summary = run.summary
    found = outcomes(summary["attacks"])
    verdict = level(found)
    shown = strips(run)
    return {
        **_common([run]),
        "title": "What was learnt, and what leaked",
        "level": verdict,
        "verdict": VERDICTS[verdict],
        "tiles": run_tiles(summary, found),
        "chapters": run_chapters(summary),
        "hero": shown[0] if shown else None,
        "strips": shown[1:],
        "no_pictures": why_none(run),
        "public_words": public_words(summary["attacks"]),
        "readouts": _readouts(summary["attacks"]),
        "figures": run_figures(run, found),
        "hospital_table": hospital_table(summary),
        "people_table": people_table(summary) if summary["subgroups"] else None,
        "attack_table": attack_table(found) if found else None,
        "other_table": other_table(rest) if (rest := others(summary["attacks"])) else None,
        "settings": settings_table([("Value", summary["experiment"])]),
        "facts": _facts(summary),
    }


def study_page(folder: Path, study: Content) -> Content:
    """Return the content of a study's page; a cell's own tables are read from its folder."""
    groups = groups_of(study)
    runs = {id(cell): read_run(folder / cell["folder"], cell["summary"]) for g in groups for cell in g.cells}
    first = [runs[id(g.cells[0])] for g in groups]
    columns = _columns(len(groups))
    attacks = [row for run in runs.values() for row in run.summary["attacks"]]
    return {
        **_common(list(runs.values())),
        "title": f"What each budget buys: {study['title']}",
        "level": _level_of([g.level for g in groups]),
        "verdict": leading_words(groups) if groups else "The study has no finished run.",
        "chapters": study_chapters(study),
        "columns": columns,
        "panels": [_group_panel(g, run, _targets(columns)) for g, run in zip(groups, first, strict=True)],
        "budget_table": budget_table(groups),
        "cost_table": cost_table(groups),
        "figures": list(study_figures(groups).values()),
        "galleries": [(group.label, strips(run)) for group, run in zip(groups, first, strict=True)],
        "no_pictures": list(dict.fromkeys(text for run in first if (text := why_none(run)))),
        "public_words": public_words(attacks),
        "readouts": _readouts(attacks),
        "hospitals": [(group.label, hospital_table(group.summaries[0])) for group in groups],
        "settings": settings_table([("Value", groups[0].summaries[0]["experiment"])]) if groups else None,
        "cells": _cells_table(study),
    }


def comparison_page(folders: Sequence[Path]) -> Content:
    """Return the content of a page with several runs side by side.

    Raises:
        InputError: if a folder holds no summary.
    """
    named = [pair for folder in folders for pair in _runs_of(folder)]
    columns = _columns(len(named))
    return {
        **_common([run for _, run in named]),
        "title": f"{len(named)} runs side by side",
        "columns": columns,
        "panels": [_run_panel(name, run, _targets(columns)) for name, run in named],
        "chapters": [(name, run_chapters(run.summary)) for name, run in named],
        "figures": [(name, run_figures(run, outcomes(run.summary["attacks"]))) for name, run in named],
        "differences": settings_table([(name, run.summary["experiment"]) for name, run in named]),
        "measures": _measures(named),
    }


def _common(runs: Sequence[RunFiles]) -> Content:
    first = runs[0].summary if runs else {"task": "", "data": "phantom", "fedward": ""}
    return {
        "fedward": first["fedward"],
        "pictures_of": phrases.pictures(first),
        "synthetic": all(run.summary["data"] == "phantom" for run in runs),
        "real_pictures": shows_real(runs),
        "glossary": phrases.GLOSSARY,
    }


def _group_panel(group: Group, run: RunFiles, targets: int) -> Panel:
    return _panel(group.label, group.outcomes, group.utility, run, targets)


def _panel(label: str, found: Sequence[Outcome], utility: Sequence[float], run: RunFiles, targets: int) -> Panel:
    reached = level(found)
    measure, on = leading(run.summary), phrases.heldout(run.summary)
    mean = sum(utility) / len(utility) if utility else None
    works = f"{measure.label} {decimal(mean)} on {on}; guessing {decimal(measure.guess)}" if utility else ""
    lines = tuple(facts(found[0])) if found else ()
    shown = strips(run, targets)
    strip = shown[0] if shown else None
    return Panel(label, reached, VERDICTS[reached][0], works, lines, strip, why_none(run))


def _run_panel(name: str, run: RunFiles, targets: int) -> Panel:
    value = leading(run.summary).value
    found = outcomes(run.summary["attacks"])
    return _panel(name, found, [] if value is None else [value], run, targets)


def _level_of(reached: Sequence[str]) -> str:
    """Return the tone of a study's first line: its settings' own where they agree."""
    return reached[0] if len(set(reached)) == 1 else "mixed"


def _columns(panels: int) -> int:
    """Return how many panels stand side by side: rows as even as they can be, at most four in one."""
    if panels <= 4:
        return max(1, panels)
    return min((3, 4), key=lambda n: (-panels % n, n))


def _targets(columns: int) -> int:
    """Return how many images fit into one of so many panels."""
    return {1: MOST, 2: 6, 3: 4}.get(columns, 3)


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


def _readouts(attacks: Sequence[Content]) -> list[str]:
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


def _cells_table(study: Content) -> Table:
    rows = tuple(
        (str(c["cell"]), str(c["seed"]), str(c["folder"]), str(c["summary"]["model_sha256"])[:16])
        for c in study["cells"]
    )
    return Table(
        "The study's runs, the folder of each beside this report, and the first 16 digits of the SHA-256 of its model.",
        ("Run", "Seed", "Folder", "Model"),
        rows,
        words=(2, 3),
    )
