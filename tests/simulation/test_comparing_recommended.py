"""The recommended budget and the three deaths, on tables made by hand."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulation.comparing_recommended import deaths, recommended

Row = dict[str, Any]

TESTED = {"placement": "malicious_server", "attack": "imprint", "targets": 100, "null": 0.0}


def attack(goal: str, above: bool | None, rate: float = 0.0) -> Row:
    p = None if above is None else 0.001 if above else 0.6
    noticed = None if above is None else 0.07
    shown = rate if above is not None else None
    return {**TESTED, "goal": goal, "rate": shown, "p": p, "above_null": above, "noticed_from": noticed}


def setting(
    mechanism: str,
    budget: float | str,
    *,
    cost: tuple[float | None, float | None, float | None] | None = (-0.005, -0.012, 0.002),
    above: bool | None = False,
    noise: float | None = None,
    attacks: list[Row] | None = None,
    seeds: int = 3,
) -> Row:
    tried = [attack("copied", above), attack("identified", False if above is not None else None)]
    difference: Row | None = None
    if cost is not None:
        difference = {"difference": cost[0], "low": cost[1], "high": cost[2], "seeds": seeds}
        if cost[1] is None:
            difference["why"] = "the training diverged" if cost[0] is None else "fewer than 10 independent units"
    return {
        "mechanism": mechanism,
        "budget": budget,
        "seeds": seeds,
        "metric": "auroc",
        "utility": {"estimate": 0.85 + (cost[0] or 0.0 if cost else 0.0), "low": 0.8, "high": 0.9, "n": 200},
        "against_none": difference,
        "attacks": tried if attacks is None else attacks,
        "attack": (tried if attacks is None else attacks or [None])[0],
        "noise_on_mean": noise if noise is not None else (0.0 if budget == "none" else 1.0 / float(budget)),
        "against": "the server, other hospitals and the public",
        "bounds": None if budget == "none" else {"prior": 0.001, "worst_case": 0.3, "relaxed": 0.1},
    }


NONE = setting("none", "none", cost=(0.0, 0.0, 0.0), above=True)


def test_the_largest_quiet_budget_whose_cost_is_shown_to_be_small() -> None:
    rows = [NONE, setting("local", 1e9, above=True), setting("local", 20), setting("local", 8), setting("local", 1)]
    found = recommended(rows, 0.02)
    assert (found["mechanism"], found["budget"], found["shown"]) == ("local", 20, True)
    assert found["by_mechanism"] == {"local": 20}
    assert found["cost"] == rows[2]["against_none"]
    assert len(found["why"]) == 3
    assert "ε = 20" in found["why"][0]
    assert "was shown to do better than guessing" in found["why"][0]
    assert "2 tests here, each at 5%); that is no proof that none does." in found["why"][0]
    assert "0.005 below" in found["why"][1]
    assert "whole interval lies within" in found["why"][1]
    assert "ε = 10⁹" in found["why"][2]
    assert "imprint copied images" in found["why"][2]


def test_a_louder_smaller_budget_ends_what_is_quiet() -> None:
    rows = [NONE, setting("local", 1000), setting("local", 20, above=True), setting("local", 8), setting("local", 1)]
    assert recommended(rows, 0.02)["budget"] == 8
    assert deaths(rows)["local"]["copied"] == {"quiet_up_to": 8, "loud_from": 20}
    assert deaths(rows)["local"]["identified"] == {"quiet_up_to": 1000, "loud_from": None}


def test_a_budget_at_which_nothing_was_tested_is_not_quiet() -> None:
    rows = [NONE, setting("local", 20), setting("local", 8, above=None), setting("local", 1)]
    assert recommended(rows, 0.02)["budget"] == 1
    assert deaths(rows)["local"]["copied"]["quiet_up_to"] == 1
    untested = [NONE, setting("local", 20, attacks=[]), setting("local", 8, attacks=[])]
    found = recommended(untested, 0.02)
    assert found["budget"] is None
    assert found["why"] == ["ε = 8 (noise at each hospital): no attack was tested, so its risk is not known."]
    assert "why" in deaths(untested)["local"]["copied"]


def test_no_quiet_budget_is_none_recommended() -> None:
    rows = [NONE, setting("local", 8, above=True), setting("local", 1, above=True), setting("distributed", 8)]
    rows[3] = setting("distributed", 8, above=True)
    found = recommended(rows, 0.02)
    assert (found["mechanism"], found["budget"], found["cost"], found["attack"]) == (None, None, None, None)
    assert found["by_mechanism"] == {"local": None, "distributed": None}
    assert len(found["why"]) == 2
    assert "ε = 1 (noise at each hospital)" in found["why"][0]
    assert found["not_promised"] == []
    assert found["tolerance"] == 0.02


def test_a_quiet_budget_that_costs_too_much_is_not_recommended() -> None:
    rows = [NONE, setting("local", 8, cost=(-0.05, -0.07, -0.03)), setting("local", 1, cost=(-0.2, -0.3, -0.1))]
    found = recommended(rows, 0.02)
    assert found["budget"] is None
    assert "loses 0.050 AUROC (95% interval of the difference −0.070 to −0.030; seeds: 3), more than" in found["why"][0]
    assert recommended(rows, 0.07)["budget"] == 8


def test_a_loss_whose_interval_reaches_the_tolerance_is_estimated() -> None:
    said = recommended([NONE, setting("local", 8, cost=(-0.05, -0.1, -0.019))], 0.02)["why"][0]
    assert "estimated to lose 0.050 AUROC" in said
    assert "that it exceeds the accepted 0.02 is not shown" in said
    bare = recommended([NONE, setting("local", 8, cost=(-0.05, None, None))], 0.02)["why"][0]
    assert "that it exceeds the accepted 0.02 is not shown" in bare


def test_four_images_attacked_and_all_copied_is_not_quiet() -> None:
    # 4 of 4 and none by guessing: p = 2^-4, and no number of successes would have been noticed.
    few = attack("copied", False, 1.0) | {"targets": 4, "p": 0.0625, "noticed_from": None}
    rows = [NONE, setting("local", 1e12, attacks=[few])]
    found = recommended(rows, 0.02)
    assert (found["budget"], found["by_mechanism"]) == (None, {"local": None})
    assert "only 4 images were attacked by imprint: the test could not have noticed images copied" in found["why"][0]
    assert "why" in deaths(rows)["local"]["copied"]
    powerful = [attack("copied", False), few]  # one attack's power is not another's
    assert recommended([NONE, setting("local", 8, attacks=powerful)], 0.02)["budget"] is None


@pytest.mark.parametrize(("seen", "quiet"), [(0.5, True), (0.5001, False), (None, False)])
def test_a_test_must_be_able_to_notice_that_half_of_the_images_are_got(seen: float | None, quiet: bool) -> None:
    attacks = [attack("copied", False), attack("visible", False) | {"noticed_from": seen}]
    assert (recommended([NONE, setting("local", 8, attacks=attacks)], 0.02)["budget"] == 8) is quiet
    ranks = [attack("copied", False), attack("members", False) | {"noticed_from": None}]  # not a test on counts
    assert recommended([NONE, setting("local", 8, attacks=ranks)], 0.02)["budget"] == 8


def test_an_attack_that_could_not_be_judged_is_not_quiet() -> None:
    missing = attack("identified", None) | {"why": "no decoys"}
    rows = [NONE, setting("local", 8, attacks=[attack("copied", False), missing])]
    found = recommended(rows, 0.02)
    assert found["budget"] is None
    assert "imprint (no decoys)" in found["why"][0]
    nobody = [attack("copied", False), missing | {"targets": 0}]  # nobody to be identified took part
    assert recommended([NONE, setting("local", 8, attacks=nobody)], 0.02)["budget"] == 8


def test_trying_more_attacks_makes_no_budget_look_safer() -> None:
    heard = attack("identified", False, 0.12) | {"p": 0.012}  # of one test alone above its null
    for more in range(5):
        attacks = [heard, *[attack("copied", False)] * more]
        found = recommended([NONE, setting("local", 8, attacks=attacks), setting("local", 1)], 0.02)
        assert found["budget"] == 1
        assert "may do better than guessing: imprint picked the right image" in found["why"][2]
        assert "p = 0.012 by itself" in found["why"][2]


@pytest.mark.parametrize(
    ("low", "shown"), [(-0.02, True), (-0.0200001, False), (None, False)], ids=["at it", "beyond", "no interval"]
)
def test_the_lower_end_decides_whether_the_cost_is_shown(low: float | None, shown: bool) -> None:
    rows = [NONE, setting("local", 8, cost=(-0.01, low, None if low is None else 0.0))]
    found = recommended(rows, 0.02)
    assert (found["budget"], found["shown"]) == (8, shown)
    assert ("not shown" in found["why"][1]) is not shown


@pytest.mark.parametrize(("high", "said"), [(-0.01, True), (0.01, False), (None, False)])
def test_a_shown_loss_of_the_rarest_class_is_said(high: float | None, said: bool) -> None:
    row = setting("local", 8)
    cost = {"difference": -0.1, "low": None if high is None else -0.2, "high": high, "seeds": 3}
    rare = {"class": "melanoma", "metric": "recall", "estimate": 0.5, "specificity": {"estimate": 0.9}}
    row["minority"] = {**rare, "against_none": cost}
    words = "\n".join(recommended([NONE, row], 0.02)["not_promised"])
    assert ("recall of the rarest class (melanoma) is 0.500, 0.100 below that without privacy" in words) is said
    assert ("specificity is 90% there" in words) is said


@pytest.mark.parametrize(
    ("inside", "budget", "shown"),
    [
        ((-0.01, -0.019, 0.0), 8, True),
        ((-0.0145, -0.0264, -0.0029), 8, False),
        ((-0.01, None, None), 8, False),
        ((-0.03, -0.05, -0.01), None, None),
        ((-0.05, -0.07, -0.03), None, None),
    ],
)
def test_pairs_of_one_hospital_may_not_lose_more_either(
    inside: tuple[float, float | None, float | None], budget: int | None, shown: bool | None
) -> None:
    row = setting("local", 8)
    cost: Row = dict(zip(("difference", "low", "high"), inside, strict=True)) | {"seeds": 3, "why": "too few"}
    row["within_hospitals"] = {"estimate": 0.74, "low": 0.7, "high": 0.8, "pairs_share": 0.229, "against_none": cost}
    found = recommended([NONE, row], 0.02)
    assert (found["budget"], found["shown"]) == (budget, shown)
    if budget:
        assert "Over pairs of images of one hospital (23% of all pairs)" in found["why"][1]
        assert ("whole interval lies within it, in both cases" in found["why"][1]) is shown
    else:
        assert "AUROC over pairs of images of one hospital" in found["why"][0]
        assert ("estimated to lose 0.030" in found["why"][0]) is (inside[0] == -0.03)


def test_what_is_shown_comes_before_what_is_likely() -> None:
    rows = [NONE, setting("local", 20, cost=(-0.01, -0.04, 0.02)), setting("local", 8, cost=(-0.01, -0.015, 0.0))]
    found = recommended(rows, 0.02)
    assert (found["budget"], found["shown"]) == (8, True)
    assert "not shown to be within" in found["why"][2]


def test_of_several_mechanisms_the_one_with_the_least_noise_on_the_mean() -> None:
    rows = [
        NONE,
        setting("pooled", 8, noise=0.1),
        setting("local", 8, noise=0.2),
        setting("distributed", 8, noise=0.11),
        setting("central", 8, noise=4.0),
        setting("alone", 8, noise=0.01),
    ]
    found = recommended(rows, 0.02)
    assert (found["mechanism"], found["budget"]) == ("distributed", 8)
    assert found["by_mechanism"] == {"pooled": 8, "local": 8, "distributed": 8, "central": 8}
    assert recommended(rows[:2], 0.02)["mechanism"] == "pooled"  # where nothing federated was tried
    hospitals = [NONE, setting("local", 8, above=True), setting("central", 8, noise=4.0)]
    last = recommended(hospitals, 0.02)
    assert last["mechanism"] == "central"
    assert "protects hospitals, not single images, and not from the server" in last["why"][-1]
    quieter = [NONE, setting("local", 8, noise=4.0, cost=(-0.01, -0.04, 0.0)), setting("central", 8, noise=0.01)]
    assert recommended(quieter, 0.02)["mechanism"] == "local"  # noise on updates is not noise on gradients
    even = [NONE, setting("local", 8, noise=0.1), setting("distributed", 8, noise=0.1, cost=(-0.001, -0.01, 0.0))]
    assert recommended(even, 0.02)["mechanism"] == "distributed"


def test_without_federated_training_without_privacy_the_cost_is_not_known() -> None:
    rows = [setting("local", 8, cost=None), setting("local", 1, cost=None)]
    found = recommended(rows, 0.02)
    assert found["budget"] is None
    assert "no federated run without privacy" in found["why"][0]
    broken = [NONE, setting("local", 8, cost=(None, None, None))]
    assert "the training diverged" in recommended(broken, 0.02)["why"][0]
    assert recommended([NONE, setting("clip_only", "none")], 0.02)["why"] == [
        "No mechanism with a budget was tried, so there is none to recommend."
    ]


def test_budget_none_is_never_recommended_though_it_be_quiet() -> None:
    rows = [setting("none", "none", cost=(0.0, 0.0, 0.0)), setting("local", 8)]
    found = recommended(rows, 0.02)
    assert found["budget"] == 8
    assert deaths(rows)["none"]["copied"] == {"quiet_up_to": "none", "loud_from": None}
    assert any("That these attacks work at all" in word for word in found["not_promised"])
    assert not any("work at all" in word for word in recommended([NONE, rows[1]], 0.02)["not_promised"])


def test_what_is_not_promised_has_its_numbers() -> None:
    words = "\n".join(recommended([NONE, setting("local", 8, seeds=1), setting("local", 1)], 0.02)["not_promised"])
    assert "imprint" in words
    assert "malicious_server" in words
    assert "1 and 8" in words
    assert "with 100 attacked, images copied at a true rate below 7%" in words
    assert "everything but in which steps the image was drawn, and which of 1,000 equally likely" in words
    assert "up to 30%." in words
    known = [attack("copied", False), attack("informed", False) | {"null": 0.05, "bound_worst_case": 0.42}]
    more = "\n".join(recommended([NONE, setting("local", 8, attacks=known)], 0.02)["not_promised"])
    assert "up to 30%; whoever knows that it took part in the attacked step, up to 42% among 20." in more
    assert "one seed was run" in words
    few = attack("copied", False) | {"noticed_from": None, "targets": 3}
    words = "\n".join(recommended([NONE, setting("local", 8, attacks=[few])], 0.02)["not_promised"])
    assert words == ""  # too few to recommend anything


Grid = dict[tuple[str, float], tuple[bool | None, float, float]]
GRID = st.dictionaries(
    st.tuples(st.sampled_from(["local", "distributed", "central"]), st.sampled_from([1.0, 8.0, 20.0, 1e3, 1e6])),
    st.tuples(st.sampled_from([True, False, None]), st.floats(-0.1, 0.05), st.floats(0, 0.05)),
    min_size=1,
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(GRID)
def test_the_recommended_budget_is_quiet_useful_and_none_larger_is(grid: Grid) -> None:
    rows = [NONE]
    for (mechanism, budget), (above, change, reach) in grid.items():
        rows.append(setting(mechanism, budget, above=above, cost=(change, change - reach, change + reach)))
    found, gone = recommended(rows, 0.02), deaths(rows)

    def fit(mechanism: str, budget: float, *, end: int) -> bool:
        smaller = [grid[k] for k in grid if k[0] == mechanism and k[1] <= budget]
        _, change, reach = grid[mechanism, budget]
        return all(above is False for above, _, _ in smaller) and change - end * reach >= -0.02

    for mechanism, budget in found["by_mechanism"].items():
        own = [b for m, b in grid if m == mechanism]
        shown = [b for b in own if fit(mechanism, b, end=1)]
        likely = [b for b in own if fit(mechanism, b, end=0)]
        assert budget == max(shown or likely, default=None)
    if found["mechanism"] is None:
        assert set(found["by_mechanism"].values()) == {None}
        assert found["why"]
    for death in (d for goals in gone.values() for d in goals.values()):
        quiet, loud = death["quiet_up_to"], death["loud_from"]
        assert loud in (None, "none") or quiet is None or quiet < loud
