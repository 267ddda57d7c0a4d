"""Attacks of a setting held against their nulls: hospitals and seeds merged, all tests allowed for."""

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from simulation.comparing_attacks import attack_rows, best_attack, judged, noticed_from

Row = dict[str, Any]


def closed(ps: Sequence[float]) -> list[float]:
    """Adjust by closed testing with Bonferroni, from the definition: Marcus, Peritz and Gabriel 1976; that is Holm."""
    members = range(len(ps))
    subsets = [s for k in members for s in itertools.combinations(members, k + 1)]
    return [max(min(1.0, len(s) * min(ps[j] for j in s)) for s in subsets if i in s) for i in members]


def image_row(hospital: str, *, n: int, copied: int, ranked: int, first: int, shown: int | None, **more: Any) -> Row:
    return {
        "placement": "malicious_server",
        "attack": "imprint",
        "yields": "images",
        "round": 3,
        "rounds": 1,
        "hospital": hospital,
        "targets": n,
        "recovered": copied / n,
        "null_recovered": 0.0,
        "success": copied / n,
        "success_null": 0.0,
        "success_p": 0.5,
        "success_name": "copied (SSIM > .9)",
        "visible": copied / n,
        "null_visible": 0.0,
        "visible_p": 0.03,
        "ranked": ranked,
        "decoys": 19,
        "rank1": first / ranked,
        "rank1_p": 0.5,
        "identified_informed": None if shown is None else shown / ranked,
        "identified_informed_p": None if shown is None else 0.5,
        "bound_worst_case": 0.9,
        "bound_relaxed": 0.4,
        **more,
    }


def cell(root: Path, name: str, rows: list[Row], targets: list[tuple[float, float]]) -> Row:
    folder = root / "cells" / name
    folder.mkdir(parents=True)
    if targets:
        with (folder / "attacks.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["placement", "attack", "hospital", "ssim", "null_ssim"])
            writer.writeheader()
            for ssim, null in targets:
                row = {"placement": "malicious_server", "attack": "imprint", "hospital": "a"}
                writer.writerow({**row, "ssim": ssim, "null_ssim": null})
    return {"cell": name, "folder": f"cells/{name}", "summary": {"attacks": rows}}


def by_goal(rows: list[Row]) -> dict[str, Row]:
    return {row["goal"]: row for row in rows}


def test_hospitals_and_seeds_are_merged_by_counts(tmp_path: Path) -> None:
    first = [
        image_row("a", n=20, copied=4, ranked=10, first=3, shown=2),
        image_row("b", n=10, copied=0, ranked=10, first=1, shown=0),
    ]
    second = [image_row("a", n=30, copied=2, ranked=20, first=2, shown=1)]
    cells = [
        cell(tmp_path, "s1", first, [(0.95, 0.1)] * 4 + [(0.2, 0.95)] + [(0.2, 0.1)] * 25),
        cell(tmp_path, "s2", second, [(0.95, 0.1)] * 2 + [(0.2, 0.1)] * 28),
    ]
    found = by_goal(attack_rows(tmp_path, cells))
    assert list(found) == ["copied", "visible", "identified", "informed"]
    copied = found["copied"]
    assert (copied["targets"], copied["hits"], copied["rate"]) == (60, 6, 0.1)
    exact = binomtest(6, 60).proportion_ci(0.95, "exact")
    assert (copied["low"], copied["high"]) == (pytest.approx(exact.low), pytest.approx(exact.high))
    assert copied["p"] == pytest.approx(binomtest(6, 7, 0.5, alternative="greater").pvalue)  # 6 gained, 1 lost
    ranked = found["identified"]
    assert (ranked["targets"], ranked["hits"], ranked["null"]) == (40, 6, 0.05)
    assert ranked["p"] == pytest.approx(binomtest(6, 40, 0.05, alternative="greater").pvalue)
    assert (ranked["bound_worst_case"], copied["bound_worst_case"]) == (0.9, None)
    assert found["informed"]["hits"] == 3
    # One of four tests needs p < .05/4: seven gained and none lost, since 2^-7 < .0125 < 2^-6.
    assert binom.sf(6, 60, copied["noticed_from"]) == pytest.approx(0.8)
    ps = [row["p"] for row in found.values()]
    adjusted = closed(ps)
    assert [row["p_adjusted"] for row in found.values()] == pytest.approx(adjusted)
    assert [row["above_null"] for row in found.values()] == [p < 0.05 for p in adjusted]


def test_other_kinds_of_attacks_have_goals_of_their_own(tmp_path: Path) -> None:
    head = {"placement": "server", "round": 3, "rounds": 1, "hospital": "a", "targets": 40}
    candidates = {
        **head,
        "attack": "candidate_matching",
        "yields": "candidates",
        "ranked": 30,
        "decoys": 99,
        "rank1": None,
        "identified_informed": 0.1,
        "success": 0.1,
        "success_null": 0.01,
        "success_p": 1e-3,
        "success_name": "identified among 100",
    }
    empty = {**head, "attack": "label_counts", "yields": "labels", "success": None, "success_null": None}
    labels = {**empty, "success_p": None, "success_name": "labels", "why": "no image was drawn"}
    found = by_goal(attack_rows(tmp_path, [cell(tmp_path, "s1", [candidates, labels], [])]))
    assert list(found) == ["informed", "labels"]
    assert found["informed"]["p"] == pytest.approx(binomtest(3, 30, 0.01, alternative="greater").pvalue)
    assert found["informed"]["p_adjusted"] == found["informed"]["p"]  # what could not be tested takes nothing away
    assert found["informed"]["above_null"]
    assert (found["labels"]["above_null"], found["labels"]["why"]) == (None, "no image was drawn")
    assert best_attack(list(found.values())) == found["informed"]


def test_nobody_attacked_is_no_row(tmp_path: Path) -> None:
    assert attack_rows(tmp_path, [{"cell": "s", "folder": "cells/s", "summary": {"attacks": []}}]) == []
    assert best_attack([]) is None


def test_five_gained_are_the_fewest_that_one_paired_test_notices() -> None:
    found = noticed_from(40, 0.0, 0.05, paired=True)
    assert found is not None
    assert binom.sf(4, 40, found) == pytest.approx(0.8)  # 2^-5 < .05 < 2^-4
    assert noticed_from(4, 0.0, 0.05, paired=True) is None


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    targets=st.integers(1, 400),
    null=st.floats(0.001, 0.3),
    level=st.floats(0.001, 0.05),
    paired=st.booleans(),
)
def test_the_noticeable_rate_is_noticed_in_four_of_five_studies(
    targets: int, null: float, level: float, paired: bool
) -> None:
    found = noticed_from(targets, null, level, paired=paired)
    lost = round(null * targets)
    counts = np.arange(targets + 1)
    p = binom.sf(counts - 1, counts + lost, 0.5) if paired else binom.sf(counts - 1, targets, null)
    significant = p < level
    significant[0] = False

    def power(rate: float) -> float:
        return float(binom.pmf(counts, targets, rate)[significant].sum())

    if found is None:
        assert not significant.any()
        return
    assert power(found) == pytest.approx(0.8, abs=1e-6)
    assert power(0.98 * found) < 0.8


def test_merged_tests_notice_less_than_one_test_of_all() -> None:
    whole = noticed_from(120, 0.0, 0.05, paired=True)
    apart = noticed_from(120, 0.0, 0.05, paired=True, releases=6)
    assert whole is not None
    assert apart is not None
    # Each of six tests of 20 images needs p < .05/6: seven of them; one of six is to succeed with probability .8.
    assert 1 - (1 - binom.sf(6, 20, apart)) ** 6 == pytest.approx(0.8)
    assert apart > whole


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "goal": st.sampled_from(["copied", "identified", "informed"]),
            "targets": st.integers(1, 300),
            "null": st.just(0.05),
            "rate": st.floats(0, 1),
            "p": st.one_of(st.none(), st.floats(0, 1)),
            "releases": st.just(1),
        }
    ),
    max_size=8,
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(ROWS, st.randoms())
def test_adjusting_keeps_the_order_and_never_makes_a_test_stronger(rows: list[Row], shuffle: Any) -> None:
    found = judged(rows)
    known = [row for row in found if row["p"] is not None]
    assert [(r["p"], r["targets"]) for r in found] == [(r["p"], r["targets"]) for r in rows]
    for row in found:
        assert (row["p_adjusted"] is None) == (row["p"] is None) == (row["above_null"] is None)
    for row in known:
        assert row["p"] <= row["p_adjusted"] <= min(1.0, row["p"] * len(known)) + 1e-12
    ordered = sorted(known, key=lambda row: row["p"])
    assert [row["p_adjusted"] for row in ordered] == sorted(row["p_adjusted"] for row in known)
    if known:
        expected = closed([row["p"] for row in known])
        np.testing.assert_allclose([row["p_adjusted"] for row in known], expected, atol=1e-12)
    mixed = list(rows)
    shuffle.shuffle(mixed)
    assert sorted(map(repr, judged(mixed))) == sorted(map(repr, found))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(ROWS)
def test_the_best_attack_is_above_its_null_if_any_is(rows: list[Row]) -> None:
    found = judged(rows)
    best = best_attack(found)
    known = [row for row in found if row["above_null"] is not None]
    if not known:
        assert best is None
        return
    assert best is not None
    assert best["above_null"] == any(row["above_null"] for row in known)
    alike = [row for row in known if row["above_null"] == best["above_null"]]
    assert best["rate"] - best["null"] == max(row["rate"] - row["null"] for row in alike)
