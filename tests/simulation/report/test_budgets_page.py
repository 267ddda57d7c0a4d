import csv
import re
from itertools import pairwise
from pathlib import Path

import pytest

from simulation.report.budgets_axis import BudgetAxis, side_by_side, written
from simulation.report.budgets_figures import noise_figure
from simulation.report.budgets_rows import Budgets
from simulation.report.budgets_tables import (
    equal_epsilon_table,
    equal_noise_table,
    hospital_terms_table,
    joining_table,
    price_table,
)
from simulation.report.build import build_report
from tests.simulation.report.folders import segmentation
from tests.simulation.report.pages import Page
from tests.simulation.report.studies import BARE, DEMO, GRIDS, USUAL, Grid, interval, study, write


def test_at_equal_budgets_every_setting_has_utility_price_bound_and_attack():
    table = equal_epsilon_table(Budgets(study()))
    assert len(table.rows) == len(USUAL)
    rows = {row[0]: row for row in table.rows}
    row = dict(zip(table.columns, rows["ε = 8 (noise shared in a secure sum)"], strict=True))
    assert row["AUROC"] == "0.875 (0.865 to 0.885)"
    assert row["ε at most"] == "8"
    assert row["ε by RDP (Opacus)"] == "8.8"
    assert row["Bound, draws secret (guessing)"] == "9% (1.2%)"
    assert row["Bound on that attack"] == "8%"
    assert row["Got"] == "4 of 64 (6.2%)"
    assert row["Guessing"] == "5%"
    assert row["Above guessing"] == "no"
    assert row["Worst hospital (AUROC)"] == "vienna_dias: 0.725 (0.685 to 0.765), n\u00a0=\u00a043"
    assert row["'attention' recall"] == "0.400 (0.300 to 0.500)"
    assert row["Specificity"] == "0.930 (0.910 to 0.950)"
    assert rows["clipping only"][2] == "no claim"
    assert table.columns[3] == "Protects each"  # beside the budget, which means nothing without it
    assert rows["ε = 8 (noise at the server)"][3] == "hospital"
    assert "'Each hospital alone': its model judged on all hospitals' images" in table.caption
    assert rows["each hospital alone, without privacy"][4] == "not tested"


def test_without_attacks_the_table_has_no_columns_for_them():
    table = equal_epsilon_table(Budgets(study(BARE)))
    assert table.columns[:5] == ("Setting", "AUROC", "ε at most", "Protects each", "Bound, draws secret (guessing)")
    assert not {"Strongest attack", "Got", "Guessing", "Above guessing", "Bound on that attack"} & set(table.columns)
    assert "SSIM" not in table.caption
    assert "Each hospital alone" not in table.caption


def test_the_other_tables_hold_what_was_compared():
    found = Budgets(study())
    noise, join, cost = equal_noise_table(found), joining_table(found), price_table(found)
    assert noise is not None
    assert join is not None
    assert cost is not None
    assert ("As pooled at ε = 8: noise at each hospital", "0.01", "1", "16", "image") in [r[:5] for r in noise.rows]
    assert len(join.rows) == 4 * (1 + 3)  # hospitals, without privacy and by three mechanisms at 8
    assert any(row[3] == "+0.100 (+0.080 to +0.120)" for row in join.rows)
    assert any(row[-1] == "one class only" for row in join.rows)
    assert {row[2] for row in cost.rows} == {"–", "2", "1.2", "50"}
    bare = Budgets(study(DEMO))
    assert equal_noise_table(bare) is joining_table(bare) is price_table(bare) is None
    terms = hospital_terms_table(found, found.shown)
    assert terms.rows[0][:5] == ("rosendahl", "320", "0.2", "1.25", "0.725")


@pytest.mark.parametrize("name", GRIDS)
def test_every_grid_makes_a_page_that_stands_by_itself(tmp_path: Path, name: str):
    text = build_report(write(tmp_path, study(GRIDS[name]))).read_text(encoding="utf-8")
    page = Page(text)
    assert page.problems == []
    for tag, attributes in page.elements:
        for key in ("src", "href", "xlink:href", "data", "action"):
            value = attributes.get(key) or "#"
            assert value.startswith(("#", "data:image/png;base64,")), (name, tag, value)
    ids = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(ids) == len(set(ids))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert not [word for word in ("None", "nan", "inf") if word in page.text.split()]
    shown = [a for a in page.all("svg") if a.get("aria-hidden") != "true"]
    assert all(a.get("role") == "img" and a.get("aria-label") for a in shown)


def test_a_study_of_outlines_speaks_of_dice(tmp_path: Path):
    content = study(DEMO)
    for cell in content["cells"]:
        cell["summary"] = segmentation() | {"attacks": []}
    for row in content["settings"]:
        row["metric"] = "dice_liver"
        row["minority"] = {"class": "tumour", "metric": "dice", **interval(0.3, 0.1, 13)}
    text = Page(build_report(write(tmp_path, content, ())).read_text(encoding="utf-8")).text
    page = text.split("What the words mean")[0]
    assert "Dice (liver) 0.875" in page
    assert "overlap (Dice) is 0.300" in page
    assert "pairs of images" not in page
    assert "n = 13 scans" in page.replace("\u00a0", " ")


def test_noise_on_updates_is_not_drawn_beside_noise_on_gradients():
    found = noise_figure(Budgets(study()))
    assert found is not None
    assert "noise at the server" not in found.svg
    assert [text for _, text in found.legend][:2] == ["noise shared in a secure sum", "noise at each hospital"]
    assert any(row[0] == "ε = 8 (noise at the server)" for row in found.table.rows)
    only: Grid = {("none", "none"): (0.88, "nobody"), ("central", 8.0): (0.8, "nobody")}
    assert noise_figure(Budgets(study(only))) is None


def test_marks_that_share_a_place_stand_side_by_side():
    settings = Budgets(study()).settings
    x = BudgetAxis(settings)
    found = side_by_side(settings, x)
    at = {(s.mechanism, s.budget): place for own in found.values() for place, s in own}
    assert len(set(at.values())) == len(USUAL)
    assert at["clip_only", None] == x(next(s for s in settings if s.mechanism == "clip_only"))  # alone in its place
    assert at["local", 1.0] < at["local", 8.0] < at["local", 1e9] < x.edge < at["none", None]
    spread = [at[m, 8.0] for m in ("distributed", "local", "central", "pooled", "alone")]
    assert spread == sorted(spread)
    assert max(spread) - min(spread) < x.width


@pytest.mark.parametrize(
    ("value", "text"), [(8.0, "8"), (1e3, "1,000"), (1e6, "10⁶"), (1e12, "10¹²"), (2.5e5, "2.5×10⁵")]
)
def test_large_budgets_are_short_on_an_axis(value: float, text: str):
    assert written(value) == text


def test_what_could_not_be_run_is_on_the_page_with_its_reason(tmp_path: Path):
    why = "training.local_steps: 'distributed' needs 1."
    refused = [{"mechanism": "distributed", "budget": b, "why": why} for b in (8.0, 1.0)]
    grid: Grid = {key: value for key, value in USUAL.items() if key[0] != "distributed"}
    content = study(grid, refused=refused, notes=["privacy.delta: too large."])
    text = Page(build_report(write(tmp_path, content, ())).read_text(encoding="utf-8")).text
    assert f"Noise shared in a secure sum at ε = 8, 1: {why}" in text
    assert "privacy.delta: too large." in text


def test_comparisons_are_written_beside_the_report(tmp_path: Path):
    content = study()
    folder = write(tmp_path, content, ())
    build_report(folder)
    for key in ("joining", "price", "equal_noise"):
        with (folder / f"{key}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(content[key])
        assert [row["mechanism"] for row in rows] == [row["mechanism"] for row in content[key]]
    with (folder / "joining.csv").open(encoding="utf-8", newline="") as file:
        assert float(next(csv.DictReader(file))["difference"]) == content["joining"][0]["difference"]
    bare = write(tmp_path / "bare", study(DEMO), ())
    build_report(bare)
    assert not list(bare.glob("*.csv"))


def test_pictures_are_of_the_mechanism_that_is_shown_first(tmp_path: Path):
    page = Page(build_report(write(tmp_path, study(), ("none", "distributed", "local"))).read_text(encoding="utf-8"))
    panels = page.text.split("What an attacker saw")[1].split("Recognised: the true image")[0]
    assert "ε = 8 (noise shared in a secure sum)" in panels
    assert "ε = 8 (noise at each hospital)" not in panels
    assert "report.html in its folder" in panels
