import re
from typing import Any

import pytest

from simulation.report.outcomes import level, outcomes
from simulation.report.tiles import run_tiles
from simulation.report.words import run_words
from tests.simulation.report.folders import mechanism_summary, segmentation, summary

EPSILON_NAMED = re.compile(r"(ε|epsilon)\)?[^.]{0,40}?(=|≤|at most)\s*\d", re.IGNORECASE)
CLIPPING = "Clipping alone changes nothing: it adds no noise, so the attack recovers as much as without it"
EMPTY_BOUND = "not on a guarantee"


def words(key: float | str, **kwargs: Any) -> str:
    return " ".join(run_words(summary(key, **kwargs)))


def test_clipping_alone_is_said_to_protect_nobody_only_where_it_is_alone():
    assert CLIPPING in words("clip_only")
    assert "no epsilon can be claimed" in words("clip_only")
    assert CLIPPING not in words("none")
    assert CLIPPING not in words(8.0)


@pytest.mark.parametrize("key", ["none", "clip_only"])
def test_without_a_claim_no_epsilon_is_named(key: str):
    assert not EPSILON_NAMED.search(words(key))
    assert "ε" not in words(key)


def test_a_claimed_epsilon_is_named_with_delta_unit_and_steps():
    text = words(8.0)
    assert EPSILON_NAMED.search(text)
    assert "spent per image over the whole run is at most 8, with delta 10⁻⁵, over 40 noisy steps" in text
    assert "at most 10⁹" in words(1e9)


def test_unequal_budgets_name_the_most_exposed_hospital():
    content = summary(8.0)
    content["hospitals"][1]["epsilon"]["upper"] = 11.5
    assert "at most 11.5 (at vidir_modern; 8 where it is lowest)" in " ".join(run_words(content))


def test_empty_bounds_are_said_in_words_only_where_budgets_are_large():
    assert EMPTY_BOUND in words(1e9)
    assert EMPTY_BOUND not in words(8.0)
    assert EMPTY_BOUND not in words("none")


@pytest.mark.parametrize("key", ["none", "clip_only", 1e9, 8.0])
def test_every_attack_rate_has_its_interval_and_its_null(key: float | str):
    rates = [s for s in run_words(summary(key)) if re.search(r"\d+ of [\d,]+ images? \(", s)]
    assert len(rates) == 3
    for sentence in rates:
        assert "95% interval" in sentence
        assert "null" in sentence
        assert re.search(r"null[^.]*\d+(\.\d+)?%", sentence)
    similar = [s for s in run_words(summary(key)) if "similarity (SSIM) of" in s]
    assert len(similar) == 1
    assert "the null reaches 0.58" in similar[0]
    assert "means nothing without that null" in similar[0]


def test_counts_are_added_over_hospitals():
    text = words(1e9)
    assert "copied 220 of 256 images (86%, 95% interval 81% to 90%)" in text
    assert "In 4 of 4 attacked updates" in text


def test_unequal_numbers_of_decoys_are_said():
    content = summary(1e9)
    assert "Hidden among 159 decoys" in " ".join(run_words(content))
    content["attacks"][0]["decoys"] = 19
    text = " ".join(run_words(content))
    assert "Hidden among 19 to 159 decoys" in text
    assert text.count("the null, chance, is at most 5%") == 2


def test_a_missing_null_is_said():
    content = summary(1e9)
    for row in content["attacks"]:
        row["null_recovered"] = None
    assert "No null was measured, so this rate cannot be judged." in " ".join(run_words(content))


def test_without_adversary_nothing_is_said_to_be_safe():
    text = words(8.0, attacked=False)
    assert "says nothing about what could be reconstructed" in text
    assert "copied" not in text


def test_utility_is_said_with_its_number_and_before_the_attack():
    text = words(1e9)
    assert "88 of 100 pairs (AUROC 0.88; 50 of 100 is guessing)" in text
    assert "160 images that no hospital trained on" in text
    assert "After round 39, the last one that was not attacked, AUROC was 0.89" in text
    assert "After round 39" not in words(1e9, attacked=False)


def test_utility_is_said_with_its_interval():
    assert "no hospital trained on; the 95% interval is 0.83 to 0.92." in words(1e9)
    content = summary(1e9)
    content["intervals"]["overall"].update(low=None, high=None, reason="fewer than 10 independent units")
    assert "there is no interval: fewer than 10 independent units" in " ".join(run_words(content))


def test_for_whom_it_works_worst_is_named_with_interval_and_number():
    text = words(1e9)
    assert "Of 3 subgroups that could be measured it works worst for age: 60 to 79 (AUROC 0.68, 95% interval" in text
    assert "0.63 to 0.72, n = 60)" in text
    assert "For age: 60 to 79 the whole interval lies below the figure for everybody (0.88)." in text
    assert "By class it does worst on 'attention' (Called right 0.62, 95% interval 0.57 to 0.66, n = 40)" in text
    assert "For age: 0 to 19 it could not be measured" in text


def test_outlines_are_said_beside_the_mean_mask():
    text = " ".join(run_words(segmentation()))
    assert "overlap with a Dice of 0.78" in text
    assert "without looking at it, reaches 0.41" in text
    assert "Soft Dice 0.55 (guessing 0.40)" in text
    assert "measured on 13 scans that no hospital trained on" in text
    assert "AUROC" not in text
    assert "None" not in text


def test_many_classes_are_said_with_the_tail_counting_fully():
    content = summary(8.0)
    content["utility"].update(primary="mcc", class_names=[f"c{k}" for k in range(165)])
    content["metrics"] |= {"mcc": 0.61, "balanced_accuracy": 0.41, "classes_present": 160.0}
    content["null_metrics"]["mcc"] = 0.0
    text = " ".join(run_words(content))
    assert "MCC is 0.61, where 0.00 is guessing" in text
    assert "160 of 165 classes were among the images" in text
    assert "0.41 of the images are called right (balanced accuracy)" in text


def test_limits_name_what_is_not_promised():
    text = words(8.0)
    assert "tried here: imprint, in round 40 only" in text
    assert "budgets of several runs on the same images add up" in text
    assert "counted per image, not per patient" in text
    assert "counted per" not in words("none")
    content = summary(8.0)
    for hospital in content["hospitals"]:
        hospital["unit"] = "lesion"
    assert "spent per lesion" in " ".join(run_words(content))
    assert "The images are synthetic" in text
    content["data"] = "real"
    assert "synthetic" not in " ".join(run_words(content)).replace("3000 synthetic images", "")


def test_pooled_data_are_not_said_to_stay():
    content = summary(8.0)
    content["experiment"]["privacy"]["mechanism"] = "pooled"
    text = " ".join(run_words(content))
    assert "brought together in one place" in text
    assert "stayed where they were" not in text


def test_levels_follow_the_tests_and_not_the_rates():
    assert level(outcomes(summary("none")["attacks"])) == "copied"
    assert level(outcomes(summary(8.0)["attacks"])) == "informed"
    rows = summary(8.0)["attacks"]
    for row in rows:
        row["identified_informed"] = None
    assert level(outcomes(rows)) == "quiet"
    rows[0]["rank1"] = 0.5
    assert level(outcomes(rows)) == "recognised"
    for row in rows:
        row.update(above_null=row is rows[0], above_null_p=0.03 if row is rows[0] else 1.0)
    assert level(outcomes(rows)) == "recognised"  # .03 among four tests is no finding
    rows[0]["above_null_p"] = 0.001
    assert level(outcomes(rows)) == "copied"
    assert level([]) == "untested"


def test_a_row_for_all_hospitals_stands_for_the_single_ones():
    rows = summary(1e9)["attacks"]
    rows.append({**rows[0], "hospital": "all", "targets": 256, "recovered": 0.5})
    (outcome,) = outcomes(rows)
    assert outcome.recovered is not None
    assert (outcome.recovered.hits, outcome.recovered.total) == (128, 256)


def test_a_twin_without_privacy_promises_nothing():
    for mechanism in ("pooled", "alone"):
        text = " ".join(run_words(mechanism_summary(mechanism, "none")))
        assert "no privacy budget (epsilon) can be claimed" in text
        assert "DP-SGD" not in text
        assert "DP-SGD" in " ".join(run_words(mechanism_summary(mechanism, 8.0)))


def test_a_hospital_alone_sends_nothing():
    content = mechanism_summary("alone", 8.0)
    text = " ".join(run_words(content))
    assert "Nothing left it during training" in text
    assert "one update of the model per round" not in text
    assert run_tiles(content, [])[0].about == "Trained alone"


def test_noise_shares_hold_in_the_sum_and_against_so_many_colluders():
    content = mechanism_summary("distributed", 8.0)
    assert "even if 1 hospital told the server what noise it added" in " ".join(run_words(content))
    content["experiment"]["privacy"]["colluders"] = 2
    assert "even if 2 hospitals told the server what noise they added" in " ".join(run_words(content))
    content["experiment"]["privacy"]["colluders"] = 0
    assert "as long as no hospital tells the server" in " ".join(run_words(content))


def test_noise_at_the_server_is_promised_to_hospitals_and_not_from_it():
    content = mechanism_summary("central", 8.0)
    text = " ".join(run_words(content))
    assert "spent per hospital over the whole run is at most 8, with delta 10⁻⁵, over 40 noisy steps" in text
    assert "not from the server" in text
    assert "No budget per image is claimed" in text
    tile = run_tiles(content, [])[2]
    assert tile.number == "ε ≤ 8"
    assert "per hospital" in tile.meaning
    assert "not from the server" in tile.meaning
    assert EMPTY_BOUND in " ".join(run_words(mechanism_summary("central", 1e9)))
    assert EMPTY_BOUND not in text
