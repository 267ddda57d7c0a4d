"""The page of a thousand hospitals stays small and names those at the ends."""

import copy
from pathlib import Path
from typing import Any

from simulation.report.build import build_report
from simulation.report.many import ends, spent, spread
from tests.simulation.report.folders import summary, write_run
from tests.simulation.report.pages import Page


def test_a_thousand_hospitals_stay_a_small_page_that_names_the_ends(tmp_path: Path) -> None:
    names = tuple(f"hospital-{k:04d}" for k in range(1000))
    content = summary(8.0, attacked=False, names=names[:2])
    first = content["hospitals"][0]
    rows = [copy.deepcopy(first) | {"name": name} for name in names]
    for k, row in enumerate(rows):
        row["records"] = 50 + (k * 7919) % 1000
        row["epsilon"] = {"lower": 0.0, "estimate": 0.0, "upper": 0.0, "method": "rigorous"}
        if k >= 400:  # the first 400 were never asked
            row["epsilon"] = {**first["epsilon"], "upper": 1 + k / 200}
    content["hospitals"] = rows
    path = build_report(write_run(tmp_path / "run", content))
    assert path.stat().st_size < 1e6
    page = Page(path.read_text(encoding="utf-8"))
    assert page.problems == []
    most, least = max(rows, key=lambda r: r["records"]), min(rows, key=lambda r: r["records"])
    for hospital in (most["name"], least["name"], "hospital-0999", "hospital-0400"):
        assert hospital in page.text
    assert "400 hospitals of 1,000 released nothing and spent nothing; the others are shown." in page.text
    assert "median: hospital-0700" in page.text
    assert "more rows in hospitals.csv" in page.text


def test_quarters_and_ends_by_hand() -> None:
    rows: list[dict[str, Any]] = [
        {"name": f"h{k}", "epsilon": {"upper": float(k)}, "records": 10 * (k % 3)} for k in range(9)
    ]
    rows.append({"name": "silent", "epsilon": None, "records": 5})
    assert [h["name"] for _, h in spread(rows, spent)] == ["h0", "h2", "h4", "h6", "h8"]
    assert spread(rows[-1:], spent) == []
    assert [h["name"] for h in ends(rows, lambda _: None)][:5] == ["h8", "h7", "h6", "h5", "h4"]
