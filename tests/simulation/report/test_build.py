import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from configs import InputError
from simulation.report.build import build_comparison, build_report
from simulation.report.words import run_words
from tests.simulation.report.folders import HOSPITALS, segmentation, summary, write_run
from tests.simulation.report.pages import Page
from tests.simulation.report.studies import USUAL, Grid, study, write

BOTH: Grid = {key: value for key, value in USUAL.items() if key in (("none", "none"), ("local", 8.0))}
HOSTILE = '<script>alert("x")</script>]&\'"'


def built(folder: Path) -> str:
    return build_report(folder).read_text(encoding="utf-8")


def folders(root: Path) -> dict[str, Path]:
    return {
        "attacked": write_run(root / "attacked", summary(1e9)),
        "bare": write_run(root / "bare", summary(8.0, attacked=False)),
        "none": write_run(root / "none", summary("none")),
        "study": write(root / "study", study()),
    }


def test_every_page_is_balanced_self_contained_and_accessible(tmp_path: Path):
    for name, folder in folders(tmp_path).items():
        text = built(folder)
        page = Page(text)
        assert page.problems == [], name
        for tag, attributes in page.elements:
            for key in ("src", "href", "xlink:href", "data", "action"):
                value = attributes.get(key) or "#"
                assert value.startswith(("#", "data:image/png;base64,")), (name, tag, value)
        assert "url(" not in text
        assert "@import" not in text
        assert str(tmp_path) not in text
        assert page.all("html")[0]["lang"] == "en-GB"
        assert all(image.get("alt") for image in page.all("img"))
        assert all(head.get("scope") in ("row", "col") for head in page.all("th"))
        assert len(page.all("caption")) == len(page.all("table")) > 0
        ids = [a["id"] for _, a in page.elements if a.get("id")]
        assert len(ids) == len(set(ids)), name
        shown = [a for a in page.all("svg") if a.get("aria-hidden") != "true"]
        assert all(a.get("role") == "img" and a.get("aria-label") for a in shown)
        assert not [word for word in ("None", "nan", "inf ") if word in page.text.split()]


def test_every_figure_holds_a_table(tmp_path: Path):
    counts = {name: Page(built(folder)).figures for name, folder in folders(tmp_path).items()}
    assert all("table" in figure for figures in counts.values() for figure in figures)
    # utility, people, epsilon, copies, recognised and a strip; no adversary: the first three; no claim: no epsilon
    assert [len(counts[name]) for name in ("attacked", "bare", "none")] == [6, 3, 5]
    # utility, risk of four mechanisms, noise, hospitals; of the settings in panels four have pictures, in galleries too
    assert len(counts["study"]) == 7 + 4 + 4


def test_headings_go_down_one_level_at_a_time(tmp_path: Path):
    for folder in folders(tmp_path).values():
        levels = [int(tag[1]) for tag, _ in Page(built(folder)).elements if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))


def test_same_folder_gives_the_same_bytes(tmp_path: Path):
    folder = write_run(tmp_path / "run", summary(1e9))
    first = build_report(folder).read_bytes()
    assert build_report(folder).read_bytes() == first
    assert not list(folder.glob(".*tmp"))


def test_names_cannot_inject_anything(tmp_path: Path):
    content = summary(1e9, names=(HOSTILE, "b"))
    content["attacks"][0]["public_data"] = HOSTILE
    page = Page(built(write_run(tmp_path / "run", content)))
    assert page.problems == []
    assert len(page.all("script")) == 1
    assert 'alert("x")' in page.text


def test_pictures_are_embedded_evenly_and_at_most_eight(tmp_path: Path):
    page = Page(built(write_run(tmp_path / "run", summary(1e9))))
    images = page.all("img")
    assert len(images) == 8 * 3
    alts = [str(image["alt"]) for image in images]
    assert any("SSIM 0.95" in alt for alt in alts)
    assert any("SSIM 0.31" in alt for alt in alts)


def test_pictures_outside_the_folder_are_not_read(tmp_path: Path):
    folder = write_run(tmp_path / "run", summary(1e9))
    secret = tmp_path / "secret.png"
    secret.write_bytes((folder / "reconstructions/0000-true.png").read_bytes())
    table = folder / "attacks.csv"
    before = len(Page(built(folder)).all("img"))
    table.write_text(table.read_text().replace("reconstructions/", "../"), encoding="utf-8")
    assert before == 24
    assert Page(built(folder)).all("img") == []


@pytest.mark.parametrize(
    ("data", "images", "shown"),
    [
        ("phantom", "phantom", True),
        ("phantom", "none", False),
        ("real", "phantom", False),
        ("real", "none", False),
        ("real", "real", True),
    ],
)
def test_pictures_follow_the_setting_and_real_ones_carry_a_banner(tmp_path: Path, data: str, images: str, shown: bool):
    content = summary(1e9)
    content["data"] = data
    content["experiment"]["report"]["images"] = images
    page = Page(built(write_run(tmp_path / "run", content)))
    assert bool(page.all("img")) == shown
    assert ("report.images" in page.text.split("All settings")[0]) == (not shown)
    assert ("contains images of real patients" in page.text) == (shown and data == "real")
    assert ("All images are synthetic" in page.text) == (data == "phantom")


def test_nulls_everywhere_still_make_a_page(tmp_path: Path):
    content = summary(1e9)
    content["metrics"] = dict.fromkeys(content["metrics"])
    content["clean"] = None
    content["public_data"] = None
    for hospital in content["hospitals"]:
        hospital.update(epsilon=None, epsilon_opacus_rdp=None, metrics=None, clipping_norm=None, delta=None)
    for row in content["attacks"]:
        empty = ("recovered", "null_recovered", "mean_ssim", "null_mean_ssim", "mean_psnr", "null_mean_psnr")
        row.update(dict.fromkeys((*empty, "rank1", "rank1_p", "identified_informed", "bound_worst_case")))
        row.update(targets=0, ranked=0, decoys=0, bound_relaxed=None)
    folder = write_run(tmp_path / "run", content)
    for name in ("rounds.csv", "attacks.csv"):
        (folder / name).unlink()
    page = Page(built(folder))
    assert page.problems == []
    assert page.figures == []
    assert "could not be measured" in page.text
    assert "no rate to report" in page.text
    assert "No attack was tried" in page.text


def test_many_hospitals_make_a_band_and_a_table_of_those_at_the_ends(tmp_path: Path):
    content = summary(8.0, attacked=False, names=tuple(f"h{k}" for k in range(80)))
    page = Page(built(write_run(tmp_path / "run", content)))
    assert "range over 80 hospitals" in page.text
    assert "Named are those that spent most and least" in page.text
    assert "70 more rows in hospitals.csv." in page.text


def test_sentences_are_made_anew_from_the_numbers(tmp_path: Path):
    content = summary(8.0)
    content["words"] = ["A sentence of an older version."]
    text = Page(built(write_run(tmp_path / "run", content))).text
    assert "older version" not in text
    assert all(sentence in text for sentence in run_words(content))


def test_a_run_that_outlines_organs_makes_a_page_in_its_own_words(tmp_path: Path):
    page = Page(built(write_run(tmp_path / "run", segmentation())))
    assert page.problems == []
    said = page.text.split("What the words mean")[0]
    assert "AUROC" not in said.split("How this was made")[0].replace(glossary_of(page), "")
    assert "Dice (liver); 95% interval 0.73 to 0.82; n = 13 scans not trained on; guessing: 0.41" in page.text
    few = Page(built(write_run(tmp_path / "few", segmentation(scans=2))))
    assert "not given (fewer than 10 independent units); n = 2 scans" in few.text


def glossary_of(page: Page) -> str:
    """The part of a page that explains terms, AUROC among them."""
    start = page.text.find("Clipping and noise (DP-SGD)")
    return page.text[start:] if start >= 0 else ""


def test_comparison_stands_runs_side_by_side(tmp_path: Path):
    runs = [write_run(tmp_path / "one", summary(1e9)), write(tmp_path / "two", study(BOTH, seeds=1))]
    page = Page(build_comparison(runs, tmp_path / "both.html").read_text(encoding="utf-8"))
    assert page.problems == []
    ids = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(ids) == len(set(ids))
    assert "3 runs side by side" in page.text
    assert "two: local-8.0-seed-10" in page.text
    assert "privacy.epsilon" in page.text
    assert "training.rounds" not in page.text
    assert build_comparison(runs, tmp_path) == tmp_path / "report.html"


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no summary.json"), ("{", "cannot be read"), ('{"kind": "x"}', "its kind is 'x'")],
)
def test_what_is_no_run_is_refused_and_leaves_nothing(tmp_path: Path, content: str | None, said: str):
    if content is not None:
        (tmp_path / "summary.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(said)):
        build_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_failing_build_keeps_the_old_report(tmp_path: Path):
    folder = write_run(tmp_path / "run", summary(8.0))
    before = build_report(folder).read_bytes()
    content = summary(8.0)
    del content["hospitals"][0]["records"]
    (folder / "summary.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(KeyError):
        build_report(folder)
    assert (folder / "report.html").read_bytes() == before
    assert len(HOSPITALS) == 4
