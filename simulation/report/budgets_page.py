"""The page of a study of budgets: what to choose and why, what the grid says, figures, tables, pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulation.report import phrases
from simulation.report.budgets_figures import budgets_figures
from simulation.report.budgets_lead import answers, by_mechanism, lead
from simulation.report.budgets_numbers import capital
from simulation.report.budgets_rows import Budgets, Setting
from simulation.report.budgets_tables import (
    equal_epsilon_table,
    equal_noise_table,
    hospital_terms_table,
    joining_table,
    price_table,
)
from simulation.report.budgets_words import joining_words, paying_words, price_words
from simulation.report.budgets_words_attacks import central_words, death_words, empty_words
from simulation.report.gallery import strips, why_none
from simulation.report.limits import study_limits
from simulation.report.loading import RunFiles, read_run
from simulation.report.numbers import budget, counted
from simulation.report.pages import common, readouts
from simulation.report.panels import columns_of, setting_panel, targets_of
from simulation.report.subgroups import cost_table
from simulation.report.tables import Table, cut, settings_table
from simulation.report.words import Chapter, who_words
from simulation.report.words_attacks import public_words
from simulation.report.words_study import Group, group_words, groups_of

Content = dict[str, Any]
BARE = ("none", "clip_only", "noise_only")


def budgets_page(folder: Path, study: Content) -> Content:
    """Return the content of a study's page; a cell's own tables are read from its folder.

    Raises:
        InputError: if the summary compares no settings.
    """
    budgets = Budgets(study)
    groups = _pictured(budgets, study)
    runs = [read_run(folder / group.cells[0]["folder"], group.summaries[0]) for group, _ in groups]
    summaries = [cell["summary"] for cell in study["cells"]]
    attacks = [row for summary in summaries for row in summary["attacks"]]
    columns = columns_of(len(groups))
    panels = zip(groups, runs, strict=True)
    return {
        **common([RunFiles(folder / c["folder"], c["summary"], [], []) for c in study["cells"][:1]] + runs),
        "title": f"Which budget, at what price: {study['title']}",
        "lead": lead(budgets),
        "answers": answers(budgets),
        "by_mechanism": by_mechanism(budgets),
        "limits": _limits(study, budgets),
        "compared": _compared(study, budgets),
        "chapters": _chapters(budgets),
        "figures": budgets_figures(budgets),
        "tables": _tables(budgets),
        "hospitals": [(s.label, hospital_terms_table(budgets, s)) for s in _with_hospitals(budgets)],
        "refused": _refused(study),
        "pictured": _which(budgets),
        "columns": columns,
        "panels": [setting_panel(g, s, run, targets_of(columns)) for (g, s), run in panels],
        "galleries": [(g.label, strips(run)) for (g, _), run in zip(groups, runs, strict=True)],
        "no_pictures": list(dict.fromkeys(text for run in runs if (text := why_none(run)))),
        "words": [Chapter(group.label, tuple(group_words(group))) for group, _ in groups],
        "public_words": public_words(attacks),
        "readouts": readouts(attacks),
        "cost_table": cost_table([group for group, _ in groups]),
        "settings": settings_table([("Value", study["cells"][0]["summary"]["experiment"])]),
        "cells": _cells_table(study),
    }


def _chapters(budgets: Budgets) -> list[Chapter]:
    """Return what the grid says, by question."""
    found = (
        ("What each hospital gains by joining", joining_words(budgets)),
        ("What it costs to leave the data where they are", price_words(budgets)),
        ("Who pays", paying_words(budgets)),
        ("Where attacks stop working", death_words(budgets)),
        ("Noise at the server: for hospitals, and not from the server", central_words(budgets)),
        ("Settings that promise nothing", empty_words(budgets)),
    )
    return [Chapter(heading, tuple(words)) for heading, words in found if words]


def _pictured(budgets: Budgets, study: Content) -> list[tuple[Group, Setting]]:
    """Return the settings that are shown one by one: those without a promise, and the mechanism shown first."""
    found: list[tuple[Group, Setting]] = []
    for group in groups_of(study):
        setting = budgets.get(group.mechanism, group.budget)
        wanted = group.mechanism in BARE if group.budget is None else group.mechanism == budgets.shown.mechanism
        if setting is not None and (wanted or setting is budgets.shown):
            found.append((group, setting))
    return found


def _which(budgets: Budgets) -> str:
    shown = phrases.mechanism(budgets.shown.mechanism)
    others = [m for m in budgets.mechanisms if m not in (*BARE, budgets.shown.mechanism)]
    more = " Every other run has a page of its own: report.html in its folder." if others else ""
    return f"Shown: what promises nothing, and {shown}.{more}"


def _compared(study: Content, budgets: Budgets) -> tuple[str, ...]:
    """Say what was compared, and what the settings do not show."""
    bare = budgets.get("none")
    first = bare.row["cells"][0] if bare is not None else study["cells"][0]["cell"]
    summary = next(c["summary"] for c in study["cells"] if c["cell"] == first)
    runs, settings = len(study["cells"]), len(budgets.settings)
    return (
        *who_words(summary),
        f"{counted(runs, 'run')} of the same training: {counted(settings, 'setting')} of protection, "
        f"{counted(budgets.seeds, 'seed')}; model, data and number of examples are the same, only the protection "
        "differs.",
        str(study["intervals"]["how"]),
        *study["notes"],
    )


def _limits(study: Content, budgets: Budgets) -> tuple[str, ...]:
    """Say what is not promised: of the recommendation, and of any study."""
    own = tuple(study["recommended"]["not_promised"])
    shown = [cell["summary"] for cell in study["cells"] if cell["cell"] in budgets.shown.row["cells"]]
    return own or study_limits(shown)


def _tables(budgets: Budgets) -> list[tuple[str, str, Table]]:
    found = (
        ("equal-epsilon", "At equal budgets", equal_epsilon_table(budgets)),
        ("equal-noise", "At equal noise", equal_noise_table(budgets)),
        ("joining", "Joining", joining_table(budgets)),
        ("price", "The price of leaving the data where they are", price_table(budgets)),
    )
    return [(key, heading, table) for key, heading, table in found if table is not None]


def _with_hospitals(budgets: Budgets) -> list[Setting]:
    return [s for s in budgets.settings if s.mechanism != "pooled"]


def _refused(study: Content) -> tuple[str, ...]:
    """Say what could not be run and why, mechanisms by budget."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in study["refused"]:
        found.setdefault((row["mechanism"], row["why"]), []).append(budget(row["budget"]))
    words: list[str] = []
    for (name, why), budgets in found.items():
        at = [b for b in budgets if b != "none"]
        where = f" at ε = {', '.join(at)}" if at else ""
        words.append(f"{capital(phrases.mechanism(name))}{where}: {why}")
    return tuple(words)


def _cells_table(study: Content) -> Table:
    rows: Sequence[tuple[str, ...]] = [
        (str(c["cell"]), str(c["seed"]), str(c["folder"]), str(c["summary"]["model_sha256"])[:16])
        for c in study["cells"]
    ]
    kept, note = cut(rows, "budgets.csv")
    return Table(
        "The study's runs, the folder of each beside this report, and the first 16 digits of the SHA-256 of its model.",
        ("Run", "Seed", "Folder", "Model"),
        kept,
        note,
        words=(2, 3),
    )
