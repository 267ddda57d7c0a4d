"""The page of a placements study says what was got back from which chair, where nothing was, and what cannot be."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from simulation.placements_rows import POOLED, adjust, pooled_row
from simulation.report.build import build_comparison, build_report
from simulation.report.placements_heat import STEPS, heat_map
from simulation.report.placements_words import placements_words, pooled_rows
from tests.simulation.report.folders import attack, summary, write_run
from tests.simulation.report.pages import Page

CHANCE = 1 / 160
NEEDS = "attack 'imprint' needs control of the broadcast, which placement 'server' does not have"
LONG = "a hospital can undo the server's step only where training.server_optimizer is average <&> nowhere else"


def row(placement: str, name: str, budget: float | str, rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    mechanism = "none" if budget == "none" else "local"
    head = {"mechanism": mechanism, "budget": budget, "placement": placement, "attack": name}
    rest = {"seed": POOLED, "seeds": 1, "run": "", "reason": "", "short": ""}
    found = pooled_row(rows, [])
    found.pop("why")
    return {**head, **rest, **found, **more}


def attacked(key: float | str, *, p: float, hits: int, informed: int = 1) -> list[dict[str, Any]]:
    found = attack("rosendahl", key) | {"yields": "images", "above_null_p": p, "recovered": hits / 64}
    return [found | {"rank1": CHANCE, "identified_informed": informed / 64}]


def rows() -> list[dict[str, Any]]:
    found = [
        row("server", "imprint", "none", [], reason=NEEDS, short="needs control of the broadcast"),
        row("malicious_server", "imprint", "none", attacked("none", p=1e-15, hits=59)),
        row("hospital", "imprint", "none", [], reason=LONG, short="not with these settings"),
        row("server", "imprint", 8.0, [], reason=NEEDS, short="needs control of the broadcast"),
        row("malicious_server", "imprint", 8.0, attacked(8.0, p=1.0, hits=0)),
        row("hospital", "imprint", 8.0, [], reason=LONG, short="not with these settings"),
        row("malicious_server", "imprint", 100.0, attacked(8.0, p=1.0, hits=0, informed=20)),
    ]
    adjust(found)
    return found


def write(folder: Path, *, images: str = "phantom", data: str = "phantom") -> Path:
    cells = []
    for key in ("none", 8.0):
        content = summary(key)
        content["experiment"]["report"]["images"] = images
        content["data"] = data
        name = f"cells/{key}/planted-imprint"
        run = write_run(folder / name, content)
        targets = [dict(zip(*pair, strict=True)) for pair in _lines(run / "attacks.csv")]
        (run / "seats").mkdir()
        kept = {"sha256": "x", "rows": content["attacks"], "targets": targets}
        (run / "seats" / "malicious_server-imprint.json").write_text(json.dumps(kept), encoding="utf-8")
        mechanism = "none" if key == "none" else "local"
        head = {"cell": f"{key}/planted-imprint", "mechanism": mechanism, "budget": key, "seed": 10, "folder": name}
        cells.append({**head, "summary": content})
    seats = {"server": "An honest server.", "malicious_server": "A liar.", "hospital": "One of them."}
    content = {"kind": "placements", "title": "demo", "axes": {}, "placements": seats, "rows": rows(), "cells": cells}
    (folder / "summary.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def _lines(path: Path) -> list[tuple[list[str], list[str]]]:
    head, *lines = path.read_text(encoding="utf-8").splitlines()
    return [(head.split(","), line.split(",")) for line in lines]


def test_the_page_is_balanced_self_contained_accessible_and_the_same_again(tmp_path: Path) -> None:
    folder = write(tmp_path / "study")
    text = build_report(folder).read_text(encoding="utf-8")
    page = Page(text)
    assert page.problems == []
    assert all(
        (a.get("src") or "data:image/png;base64,").startswith("data:image/png;base64,") for _, a in page.elements
    )
    assert all(image.get("alt") for image in page.all("img"))
    assert all(head.get("scope") in ("row", "col") for head in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table")) > 0
    assert not [word for word in ("None", "nan", "inf") if word in page.text.split()]
    assert "<&>" not in text
    assert "&lt;&amp;&gt;" in text
    assert build_report(folder).read_text(encoding="utf-8") == text
    assert str(tmp_path) not in text


def test_words_name_chairs_budgets_and_what_was_not_tried() -> None:
    words = " ".join(placements_words({"rows": rows()}))
    assert "Something was got back from 1 of 1 chair: by a malicious server." in words
    assert "Federated, without privacy: a malicious server (imprint) copied (SSIM > 0.9): 59 of 64 (92%" in words
    assert "At ε = 8 nothing was above its null" in words
    assert "At ε = 100: a malicious server (imprint) recognised when shown the candidates 20 of 64" in words
    assert "Of 3 combinations of chair and attack, 2 could not be tried" in words
    assert "Not tried at all: the chairs of somebody on one hospital's line, a server behind a secure sum" in words
    assert "membership" in words


def test_the_heat_map_has_every_cell_its_numbers_and_its_reason() -> None:
    found = heat_map(pooled_rows({"rows": rows()}))
    assert [g.label for g in found.grids] == ["federated, without privacy", "ε = 100", "ε = 8"]
    bare = dict(found.grids[0].rows)
    (liar,) = bare["a malicious server"]
    assert liar.found
    assert liar.look == f"h{len(STEPS)}"
    assert liar.lines[:2] == ("+92", "59 of 64, null 0%")
    assert re.fullmatch(r"95%: \d+%–\d+%", liar.lines[2])
    assert bare["an honest but curious server"][0].lines == ("needs control of the broadcast",)
    assert bare["another hospital"][0].lines == ("not with these settings (note 1)",)
    assert found.notes == (LONG,)
    shown = dict(found.grids[1].rows)
    assert shown["a malicious server"][0].found  # nothing copied, and still framed: it was recognised
    assert shown["a malicious server"][0].look == "h0"
    quiet = dict(found.grids[2].rows)["a malicious server"][0]
    assert (quiet.look, quiet.found, quiet.lines[0]) == ("h0", False, "+0")


@pytest.mark.parametrize(("images", "data", "shown"), [("phantom", "real", False), ("real", "real", True)])
def test_real_images_are_shown_only_where_the_settings_say_so(
    tmp_path: Path, images: str, data: str, shown: bool
) -> None:
    page = Page(build_report(write(tmp_path / "study", images=images, data=data)).read_text(encoding="utf-8"))
    assert bool(page.all("img")) == shown
    assert ("images of real patients" in page.text) == shown
    assert ("report.images is 'phantom'" in page.text) != shown


def test_its_runs_stand_side_by_side_like_those_of_any_study(tmp_path: Path) -> None:
    text = build_comparison([write(tmp_path / "study")], tmp_path / "all.html").read_text(encoding="utf-8")
    assert "2 runs side by side" in text
