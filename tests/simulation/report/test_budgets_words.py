import csv
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from simulation.report.budgets_rows import Budgets
from simulation.report.budgets_tables import (
    equal_epsilon_table,
    equal_noise_table,
    hospital_terms_table,
    joining_table,
    price_table,
)
from simulation.report.budgets_words import joining_words, paying_words, price_words
from simulation.report.budgets_words_attacks import central_words, death_words, empty_words
from simulation.report.build import build_report
from tests.simulation.report.pages import Page
from tests.simulation.report.studies import USUAL, Grid, difference, study, write

Row = dict[str, Any]
DEMO: Grid = {("none", "none"): (0.88, "copied"), ("local", 1e9): (0.87, "copied"), ("local", 8.0): (0.875, "quiet")}
BARE: Grid = {("none", "none"): (0.88, "nobody"), ("pooled", 8.0): (0.8, "nobody")}
GRIDS = {"usual": USUAL, "demo": DEMO, "bare": BARE}


def joined(words: Callable[[Budgets], list[str]], content: Row | None = None) -> str:
    return " ".join(words(Budgets(content or study()))).replace("\u00a0", " ")


def test_every_hospital_is_told_what_joining_brings_with_interval_and_number():
    text = joined(joining_words)
    assert "At ε = 8, with noise shared in a secure sum: of 4 hospitals, 1 shown to gain, 1 to lose, 1 without" in text
    assert "and 1 without an interval" in text
    assert "rosendahl: 0.750 alone, 0.850 joined, +0.100 (95% interval +0.080 to +0.120); n = 40." in text
    assert "vidir_modern: 0.750 alone, 0.670 joined, −0.080 (95% interval −0.100 to −0.060); n = 41." in text
    assert "vienna_dias: not measured (one class only); n = 43." in text
    assert "Without privacy: of 4 hospitals" in text
    assert joined(joining_words, study(DEMO)) == "No hospital was trained alone, so what joining brings is not known."


def test_none_gaining_is_said_in_words():
    content = study()
    for row in content["joining"]:
        row.update(difference(0.0, 0.02))
    assert "none shown to gain, none to lose and 4 without a difference that could be shown" in joined(
        joining_words, content
    )


def test_the_price_of_federation_is_said_in_the_metric_and_in_noise():
    grid: Grid = {**USUAL, ("local", 8.0): (0.82, "quiet")}
    text = joined(price_words, study(grid))
    assert "At ε = 8, with noise at each hospital: AUROC −0.055 (95% interval −0.065 to −0.045)" in text
    assert "n = 160 images: less accurate." in text
    assert "is 2 times that of pooled data; 4 hospitals that draw and add alike give √4 = 2." in text
    assert "with noise shared in a secure sum: AUROC 0.000 (95% interval −0.010 to +0.010)" in text
    assert "no difference is shown. The noise on the mean gradient is 1.2 times that of pooled data." in text
    assert "cannot be held against pooled data's" in text
    assert "pooled data have at ε = 8: noise at each hospital ε = 16, noise shared in a secure sum ε = 9.6 and" in text
    assert "noise at the server ε = 400 per hospital" in text
    assert joined(price_words, study(DEMO)) == "No data were pooled, so what federation costs is not known."


@pytest.mark.parametrize(("gain", "said"), [(0.05, ": more accurate"), (-0.05, ": less accurate"), (0.0, "no diff")])
def test_which_way_a_difference_goes_follows_its_interval(gain: float, said: str):
    content = study()
    for row in content["price"]:
        row.update(difference(gain))
    text = joined(price_words, content)
    assert said in text
    assert sum(other in text for other in (": more accurate", ": less accurate", "no difference is shown")) == 1


def test_who_pays_names_the_smallest_and_the_largest_hospital():
    text = joined(paying_words)
    assert "the smallest hospital, vidir_modern (80 records), draws each with probability 0.2 a step" in text
    assert "the largest, vidir_molemax (640 records)" in text
    assert "All draw at the same rate" in text
    assert "works worst for vienna_dias: AUROC 0.725 (95% interval 0.685 to 0.765), n = 43" in text
    assert "Of the rarest class, 'attention', the share called right (recall) is 0.400" in text
    content = study()
    for row in content["settings"]:
        row["hospitals"]["vidir_modern"]["sample_rate"] = 0.8
    assert "small hospitals pay most" in joined(paying_words, content)
    assert "All draw at the same rate" not in joined(paying_words, content)


def test_where_attacks_stop_working_is_said_per_mechanism():
    text = joined(death_words)
    assert "Noise at each hospital. Copying images and recognising images among decoys: no better than" in text
    assert "no better than guessing up to ε = 8, better at ε = 10⁹." in text
    assert "Recognising images when shown the candidates: no better than guessing up to ε = 1, better at ε = 8." in text
    assert "better than guessing at ε = 1, the smallest budget tried" in text  # noise at the server
    assert "rules nothing out" in text
    none: Grid = {("none", "none"): (0.88, "copied"), ("local", 8.0): (0.8, "quiet"), ("local", 1.0): (0.8, "quiet")}
    text = joined(death_words, study(none))
    assert "no better than guessing at any budget tried up to ε = 8" in text
    assert "rules nothing out" not in text
    twin: Grid = {("pooled", "none"): (0.88, "quiet"), ("pooled", 8.0): (0.8, "quiet")}
    assert "at any budget tried, nor without privacy" in joined(death_words, study(twin))
    twin = {("pooled", "none"): (0.88, "copied"), ("pooled", 8.0): (0.8, "quiet")}
    assert "up to ε = 8, better without privacy" in joined(death_words, study(twin))
    assert "No attack was tested at any budget" in joined(death_words, study(BARE))


def test_an_untested_smallest_budget_is_not_said_to_be_safe():
    grid: Grid = {("none", "none"): (0.88, "copied"), ("local", 8.0): (0.8, "copied"), ("local", 1.0): (0.8, "nobody")}
    text = joined(death_words, study(grid))
    assert "better than guessing at ε = 8, below which nothing is known" in text
    assert "smallest budget tried" not in text


def test_what_promises_nothing_is_named_as_such():
    text = joined(empty_words)
    assert "Clipping only: the influence of each image is limited; there is no noise, so no budget." in text
    assert "Noise only: nobody's influence is limited, so no noise is large enough to claim a budget." in text
    assert text.count("180 of 200 (90%, 95% interval 83% to 97%) images copied") + text.count("60 of 64") == 3
    assert text.count("; guessing gets ") == 3
    assert "Clipping" not in joined(empty_words, study(DEMO))
    assert joined(empty_words, study(BARE)).endswith("No attack was tested.")


def test_noise_at_the_server_protects_hospitals_and_not_from_it():
    text = joined(central_words)
    assert "it limits what whoever receives the model learns about any one of them" in text
    assert "The server sees every update before the noise, so nothing protects from it." in text
    assert "At ε = 8 (noise at the server):" in text
    assert "better than guessing (95% confidence)" in text
    assert central_words(Budgets(study(DEMO))) == []


WORDS = (joining_words, price_words, paying_words, death_words, central_words, empty_words)


@pytest.mark.parametrize("name", GRIDS)
def test_no_figure_stands_without_interval_and_number(name: str):
    for words in WORDS:
        for sentence in words(Budgets(study(GRIDS[name]))):
            if re.search(r"AUROC [−+\d]|recall\) is|alone, [\d.]+ joined", sentence):
                assert "interval" in sentence, sentence
                assert "n\u00a0=\u00a0" in sentence, sentence
            if re.search(r"\d+ of \d+ \(", sentence):
                assert "95% interval" in sentence, sentence
                assert "guessing gets" in sentence, sentence


@pytest.mark.parametrize("name", GRIDS)
def test_sentences_are_plain(name: str):
    said = [sentence for words in WORDS for sentence in words(Budgets(study(GRIDS[name])))]
    for sentence in said:
        assert sentence.endswith((".", ":")), sentence
        assert sentence[0].isupper() or sentence.split(":")[0] in sentence, sentence
        assert not re.search(r"\b(not un\w+|not without|never not|not no|no nobody|nothing not)\b", sentence), sentence
        assert not re.search(r"\b(None|nan|inf)\b", sentence), sentence


def test_at_equal_budgets_every_setting_has_utility_price_bound_and_attack():
    table = equal_epsilon_table(Budgets(study()))
    assert len(table.rows) == len(USUAL)
    rows = {row[0]: row for row in table.rows}
    row = dict(zip(table.columns, rows["ε = 8 (noise shared in a secure sum)"], strict=True))
    assert row["AUROC"] == "0.875 (0.865 to 0.885)"
    assert row["ε at most"] == "8"
    assert row["ε by RDP (Opacus)"] == "8.8"
    assert row["Worst-case bound (guessing)"] == "9% (1.2%)"
    assert row["Got"] == "4 of 64 (6.2%)"
    assert row["Guessing"] == "5%"
    assert row["Above guessing"] == "no"
    assert row["Worst hospital (AUROC)"] == "vienna_dias: 0.725 (0.685 to 0.765)"
    assert row["'attention' recall"] == "0.400 (0.300 to 0.500)"
    assert rows["clipping only"][2] == "no claim"
    assert rows["ε = 8 (noise at the server)"][-1] == "hospital"
    assert rows["each hospital alone, without privacy"][4] == "not tested"


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
