"""The page of a study of placements: words, one table, one heat map, one gallery."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from simulation.placements_rows import findings
from simulation.report import phrases
from simulation.report.gallery import Strip, shows_real, strips, why_none
from simulation.report.loading import RunFiles
from simulation.report.numbers import DASH, decimal, interval, p_value, percent
from simulation.report.placements_heat import heat_map
from simulation.report.placements_words import (
    LIMITS,
    SEATS,
    lead_words,
    pooled_rows,
    setting_of,
    setting_words,
    settings_of,
    untried_words,
)
from simulation.report.tables import Table

Summary = dict[str, Any]
Row = dict[str, Any]
SHOWN = 6  # images of a strip
LEVELS = {"success": "copied", "visible": "recognised", "rank1": "recognised", "identified_informed": "informed"}


def placements_page(folder: Path, summary: Summary) -> Summary:
    """Return the content of the page; what each seat got is read from the runs' folders."""
    rows = pooled_rows(summary)
    runs = [seen_run(folder, cell) for cell in summary["cells"]]
    first = runs[0].summary if runs else {"task": "", "data": "phantom", "fedward": ""}
    return {
        "fedward": first["fedward"],
        "pictures_of": phrases.pictures(first),
        "synthetic": all(run.summary["data"] == "phantom" for run in runs),
        "real_pictures": shows_real(runs),
        "glossary": phrases.GLOSSARY,
        "title": f"What each chair sees: {summary['title']}",
        "level": _level(rows),
        "lead": lead_words(rows),
        "found": setting_words(rows),
        "untried": (*untried_words(rows), *LIMITS),
        "table": placements_table(rows),
        "heat": heat_map(rows),
        "galleries": galleries(summary, runs),
        "no_pictures": list(dict.fromkeys(text for run in runs if (text := why_none(run)))) if runs else [],
        "seats": [(f"{SEATS.get(name, name)} ({name})", text) for name, text in summary["placements"].items()],
        "cells": _runs_table(summary),
    }


def seen_run(folder: Path, cell: Row) -> RunFiles:
    """Return a run with the attacks of every seat that watched it."""
    where = folder / cell["folder"]
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((where / "seats").glob("*.json"))]
    summary = {**cell["summary"], "attacks": [row for one in kept for row in one["rows"]]}
    return RunFiles(where, summary, [], [row for one in kept for row in one["targets"]])


def galleries(summary: Summary, runs: Sequence[RunFiles]) -> list[tuple[str, list[Strip]]]:
    """Return the strips of every setting, of the first seed that was run."""
    labels = settings_of(summary["rows"])
    shown: dict[str, list[Strip]] = {label: [] for label in labels.values()}
    first: dict[str, int] = {}
    for cell, run in zip(summary["cells"], runs, strict=True):
        label = labels[setting_of(cell)]
        if first.setdefault(label, cell["seed"]) == cell["seed"]:
            shown[label].extend(_named(strip, cell) for strip in strips(run, SHOWN))
    return [(label, found) for label, found in shown.items() if found]


def _named(strip: Strip, cell: Row) -> Strip:
    return replace(strip, caption=f"Seed {cell['seed']}: {strip.caption}")


def placements_table(rows: Sequence[Row]) -> Table:
    """Return one row per setting, chair and attack, all seeds together.

    What cannot be stands there with its reason, after what was tried at its setting.
    """
    labels = settings_of(rows)
    order = list(labels)
    ordered = sorted(rows, key=lambda row: (order.index(setting_of(row)), row["success"] is None))
    return Table(
        "One row per setting, chair and attack, runs with different seeds together; rows of single seeds are in "
        "placements.csv. n: what success is a share of. 95% intervals are exact for independent images; those of one "
        "run are not quite. Null: the same without anything from the hospitals. p: exact or, where no exact test "
        "exists, Bonferroni over releases; all adjusted (Holm) for every test of this table. Recognised: first among "
        "decoys, by chance once in (decoys + 1).",
        (
            "Setting, chair, attack",
            "Success means, or why it cannot be",
            "n (seeds)",
            "Success",
            "95% interval",
            "Null",
            "p, adjusted",
            "Mean SSIM (null)",
            "Visible (null), p",
            "Recognised (chance), p",
            "Recognised if shown, p",
            "Worst-case bound",
        ),
        tuple(_line(row, labels[setting_of(row)]) for row in ordered),
        words=(1,),
    )


def _line(row: Row, label: str) -> tuple[str, ...]:
    name = f"{label}, {row['placement']}, {row['attack']}"
    if row["success"] is None:
        return (name, f"Not tried: {row['reason']}", *(DASH,) * 10)
    chance = f" ({percent(1 / (row['decoys'] + 1))})"
    partly = f"; of some seeds not tried: {row['reason']}" if row["reason"] else ""
    likeness = f"{decimal(row['mean_ssim'])} ({decimal(row['null_mean_ssim'])})"
    return (
        name,
        f"{row['success_name']}{partly}",
        f"{row['n']:,} ({row['seeds']})",
        f"{row['hits']:,} ({percent(row['success'])})",
        interval((row["success_low"], row["success_high"])),
        percent(row["success_null"]),
        p_value(row["success_p_holm"]),
        DASH if row["mean_ssim"] is None else likeness,
        _measure(row, "visible", f" ({percent(row['null_visible'])})"),
        _measure(row, "rank1", chance),
        _measure(row, "identified_informed", chance),
        percent(row["bound_worst_case"]),
    )


def _measure(row: Row, key: str, null: str) -> str:
    return DASH if row[f"{key}_p"] is None else f"{percent(row[key])}{null}, {p_value(row[f'{key}_p_holm'])}"


def _level(rows: Sequence[Row]) -> str:
    """Return the tone of the first line: the worst that any chair got."""
    found = {key for row in rows for key in findings(row)}
    if not any(row["success"] is not None for row in rows):
        return "untested"
    return next((level for key, level in LEVELS.items() if key in found), "quiet")


def _runs_table(summary: Summary) -> Table:
    rows = tuple(
        (str(c["cell"]), str(c["seed"]), str(c["folder"]), str(c["summary"]["model_sha256"])[:16])
        for c in summary["cells"]
    )
    return Table(
        "The federated runs that were watched: 'watched' and 'sum' from every chair that changes nothing, 'planted' "
        "and 'started' by the one attack that changed the model that was sent. The first 16 digits of the SHA-256 of "
        "each model.",
        ("Run", "Seed", "Folder", "Model"),
        rows,
        words=(2, 3),
    )
