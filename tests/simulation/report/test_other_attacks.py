"""Attacks that rebuild no image stand in the report beside their nulls, and say why where they could not be judged."""

from pathlib import Path
from typing import Any

from simulation.report.build import build_report
from simulation.report.outcomes import level, others, outcomes
from simulation.report.words import run_words
from tests.simulation.report.folders import summary, write_run
from tests.simulation.report.pages import Page


def row(attack: str, yields: str, **more: Any) -> dict[str, Any]:
    head = {"placement": "release", "attack": attack, "yields": yields, "round": 40, "rounds": 40}
    return {**head, "hospital": "the sum of all hospitals", "targets": 50, "public_data": "3000 images", **more}


LABELS = row(
    "label_counts",
    "labels",
    **{"success": 0.9, "success_ci": None, "success_null": 0.7, "success_p": None},
    success_name="labels counted right",
)
MEMBERS = row(
    "membership",
    "members",
    **{"success": 0.31, "success_ci": [0.2, 0.45], "success_null": 0.1, "success_p": 1e-4, "epsilon_lower": 0.42},
    success_name="found at 10 % false alarms",
)
UNJUDGED = row("label_counts", "labels", success=None, why="a segmentation has no label per image")
MATCHED = row(
    "candidate_matching",
    "candidates",
    **{"ranked": 50, "decoys": 99, "rank1": None, "identified_informed": 0.4, "bound_worst_case": 0.5},
    bound_relaxed=0.2,
)


def page_of(folder: Path, rows: list[dict[str, Any]]) -> Page:
    content = {**summary(8.0), "attacks": rows}
    page = Page(build_report(write_run(folder, content)).read_text(encoding="utf-8"))
    assert page.problems == []
    return page


def test_labels_and_members_have_a_table_of_their_own(tmp_path: Path) -> None:
    text = page_of(tmp_path / "run", [LABELS, MEMBERS, UNJUDGED]).text
    for said in ("labels counted right", "found at 10 % false alarms", "31%", "20% to 45%", "0.42"):
        assert said in text
    assert "a segmentation has no label per image" in text
    assert outcomes([LABELS, MEMBERS]) == []
    assert [r["attack"] for r in others([MEMBERS, LABELS])] == ["label_counts", "membership"]


def test_matching_candidates_counts_as_telling_that_an_image_was_used(tmp_path: Path) -> None:
    (found,) = outcomes([MATCHED])
    assert found.recovered is None
    assert found.informed is not None
    assert (found.informed.hits, found.informed.total) == (20, 50)
    assert level([found]) == "informed"
    sentences = " ".join(run_words({**summary(8.0), "attacks": [MATCHED]}))
    assert "it rebuilds no image" in sentences
    assert "20 of 50 images" in sentences
    page_of(tmp_path / "run", [MATCHED])


def test_several_rounds_are_said_to_be_taken_together() -> None:
    together = " ".join(run_words({**summary(8.0), "attacks": [MATCHED]}))
    assert "up to 40 rounds taken together" in together
