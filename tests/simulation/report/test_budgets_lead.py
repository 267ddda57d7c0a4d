import copy
from pathlib import Path
from typing import Any

import pytest

from configs import InputError
from simulation.comparing_recommended import recommended
from simulation.report.budgets_lead import Answer, answers, by_mechanism, lead
from simulation.report.budgets_rows import Budgets
from simulation.report.build import build_report
from tests.simulation.report.pages import Page
from tests.simulation.report.studies import DEMO, USUAL, Grid, attack, difference, interval, study, write

Row = dict[str, Any]
FEDERATED = ("local", "distributed", "central")


def changed(grid: Grid, **mechanisms: tuple[float, str]) -> Grid:
    """The usual grid in which every setting with a budget of some mechanisms is another."""
    return {key: mechanisms.get(key[0], value) if key[1] != "none" else value for key, value in grid.items()}


def cards(content: Row) -> dict[str, Answer]:
    return {a.question: a for a in answers(Budgets(content))}


def said(content: Row, question: str) -> str:
    (card,) = (a for a in answers(Budgets(content)) if question in a.question)
    return " ".join((card.number, *card.lines)).replace("\u00a0", " ")


LOUD = changed(USUAL, **dict.fromkeys(FEDERATED, (0.88, "copied")))
USELESS = changed(USUAL, **dict.fromkeys(FEDERATED, (0.6, "quiet")))
UNTESTED = changed(USUAL, **dict.fromkeys(FEDERATED, (0.88, "nobody")))
NO_TWIN: Grid = {key: value for key, value in USUAL.items() if key[0] != "none"}
NO_BUDGET: Grid = {key: value for key, value in USUAL.items() if key[1] == "none"}
MIXED = changed(USUAL, local=(0.6, "quiet"), distributed=(0.88, "copied"), central=(0.88, "nobody"))


def test_the_recommended_budget_is_said_with_its_mechanism_and_why():
    found = lead(Budgets(study()))
    assert found.level == "quiet"
    assert found.text == (
        "Recommended: ε = 8 with noise shared in a secure sum. There and at every smaller budget tried, no attack that "
        "was tried was shown to do better than guessing, and privacy is shown to cost at most 0.02 AUROC."
    )
    assert found.about.startswith("That is no proof that none does (3 tests there, each at 5%). Of all settings that")
    assert len(found.why) == 3


def test_a_cost_that_is_not_shown_to_be_small_is_a_reservation():
    content = study(changed(USUAL, distributed=(0.862, "quiet")))
    found = lead(Budgets(content))
    assert found.level == "mixed"
    assert "No setting is shown to pass both tests" in found.about
    assert found.text.startswith("Recommended with a reservation: ε = 10⁹ with noise shared in a secure sum.")
    assert "is likely and not shown" in found.text
    assert "is shown to cost" not in found.text


@pytest.mark.parametrize(
    ("grid", "because", "level"),
    [
        (LOUD, ": even at the smallest budget tried an attack did better than guessing.", "mixed"),
        (
            USELESS,
            ": where no attack was shown to do better than guessing, privacy is shown to cost more than 0.02 AUROC.",
            "mixed",
        ),
        (UNTESTED, ": no attack was tested.", "mixed"),
        (NO_TWIN, ": nothing was trained without privacy to compare with.", "mixed"),
        (NO_BUDGET, ": no mechanism with a budget was tried.", "mixed"),
        ({("none", "none"): (0.88, "nobody"), ("local", 8.0): (0.8, "nobody")}, ": no attack was tested.", "untested"),
        (
            MIXED,
            ": where no attack was shown to do better than guessing, privacy is shown to cost more than 0.02 AUROC.",
            "mixed",
        ),
    ],
)
def test_no_recommendation_says_why(grid: Grid, because: str, level: str):
    found = lead(Budgets(study(grid)))
    assert found.text == f"No budget is recommended{because}"
    assert found.level == level
    assert found.why
    candidates = [s for m in FEDERATED for s in Budgets(study(grid)).of(m)]
    assert ("the setting that came closest" in found.about) == any(s.attack for s in candidates)
    assert ("the smallest budget tried" in found.about) == bool(candidates and not any(s.attack for s in candidates))
    assert "Recommended" not in found.text


def test_a_cost_that_is_not_known_is_not_called_too_high():
    content = study(USELESS)
    for row in content["settings"]:
        if row["mechanism"] in FEDERATED:
            row["against_none"] = difference(None)
    assert lead(Budgets(content)).text == "No budget is recommended."


def test_a_cost_whose_interval_reaches_into_the_tolerance_is_an_estimate():
    content = study(USELESS)
    row = next(r for r in content["settings"] if (r["mechanism"], r["budget"]) == ("local", 1.0))
    row["against_none"] = difference(-0.28, 0.4)
    text = lead(Budgets(content)).text
    assert text.endswith("the estimated cost of privacy is above 0.02 AUROC.")
    assert "is shown" not in text


def test_without_a_recommendation_the_most_accurate_quiet_setting_is_shown_and_named():
    grid: Grid = {**LOUD, ("local", 1.0): (0.6, "quiet"), ("distributed", 1.0): (0.65, "quiet")}
    found = Budgets(study(grid))
    assert (found.shown.mechanism, found.shown.budget) == ("distributed", 1.0)
    assert "ε = 1 (noise shared in a secure sum)" in lead(found).about
    strict = Budgets(study(LOUD)).shown
    assert (strict.mechanism, strict.budget) == ("distributed", 1.0)


def test_accuracy_stands_beside_no_privacy_and_pooled_data_with_intervals_and_number():
    text = said(study(), "accurate")
    assert text.startswith("AUROC 0.875 95% interval 0.865 to 0.885; n = 160 images never trained on, mean of 2 seeds")
    assert "0.50 is guessing" in text
    assert "87.5 of 100 pairs" in text
    assert "Federated, without privacy: 0.880 (95% interval 0.870 to 0.890)" in text
    assert "All data in one place, same ε: 0.875 (95% interval 0.865 to 0.885)" in text
    assert "All data in one place, without privacy: 0.885" in text
    assert "−0.005 (95% interval −0.015 to +0.005)" in text


def test_one_seed_is_said():
    assert "one seed" in said(study(seeds=1), "accurate")
    assert "mean of" not in said(study(seeds=1), "accurate")


def test_what_was_not_measured_is_said_so():
    grid: Grid = {**USUAL}
    content = study(grid)
    row = next(r for r in content["settings"] if (r["mechanism"], r["budget"]) == ("distributed", 8.0))
    row["utility"] = {"estimate": None, "low": None, "high": None, "n": 160, "units": 3, "why": "one class only"}
    text = said(content, "accurate")
    assert text.startswith("not measured One class only")
    assert "None" not in text


def test_risk_is_said_with_its_null_its_interval_and_the_bound():
    text = said(study(), "attacker")
    assert text.startswith("4 of 64 images recognised when shown the candidates: 6.2%, 95% interval 0% to 13%.")
    assert "imprint, from the seat of a malicious server" in text
    assert "Guessing gets 5%: the attack is not shown to be better than that." in text
    assert "for whoever does not know in which steps the image was drawn: finding it among 80 equally likely" in text
    assert "candidates succeeds with a probability of at most 9% (guessing: 1.2%)" in text
    assert "Whoever knows that it took part in the attacked step: at most 8%" in text
    assert "whatever an attacker knows" not in text
    loud = said(study(LOUD), "attacker")
    assert "the attack is better than guessing" in loud


def test_the_goal_of_which_least_is_known_is_named_beside_the_strongest():
    content = study()
    row = next(r for r in content["settings"] if (r["mechanism"], r["budget"]) == ("distributed", 8.0))
    row["attack"] = attack("copied", 0, 564, 0.0, above=False)
    row["attacks"] = [row["attack"], attack("informed", 9, 90, 0.05, above=False)]
    text = said(content, "attacker")
    assert text.startswith("0 of 564")
    assert "shown the candidates: 9 of 90, by imprint; the true rate may be up to 17% (guessing: 5%)." in text
    row["attacks"] = [row["attack"]]
    assert "Least is known" not in said(content, "attacker")


def test_an_attack_that_only_its_own_test_shows_is_not_called_harmless():
    content = study(DEMO)
    row = next(r for r in content["settings"] if (r["mechanism"], r["budget"]) == ("local", 8.0))
    row["attack"] = attack("informed", 8, 64, 0.05, above=False) | {"p": 0.02, "p_adjusted": 0.06}
    row["attacks"] = [row["attack"]]
    content["recommended"] = recommended(content["settings"], 0.02)
    found = Budgets(content)
    assert not found.get("local", 8.0).quiet  # type: ignore[union-attr]
    assert found.recommended is None
    assert "better by its own test" in said(content, "attacker")


def test_a_setting_that_too_few_attacked_images_judge_is_neither_quiet_nor_loud():
    content = study({("none", "none"): (0.88, "copied"), ("local", 8.0): (0.88, "quiet")})
    row = content["settings"][1]
    row["attack"] = attack("copied", 4, 4, 0.0, above=False) | {"p": 0.0625, "noticed_from": None}
    row["attacks"] = [row["attack"]]
    content["recommended"] = recommended(content["settings"], 0.02)
    assert lead(Budgets(content)).text.endswith("the tests leave open whether an attack does better than guessing.")


def test_what_clipping_costs_is_not_charged_to_the_noise():
    grid: Grid = {**DEMO, ("local", 8.0): (0.875, "quiet"), ("local", 1e9): (0.877, "copied")}
    text = said(study(grid), "accurate")
    assert "Of this, −0.003 (95% interval −0.013 to +0.007) is there at the largest budget tried too (ε = 10⁹)" in text
    better = said(study({**grid, ("local", 1e9): (0.89, "copied")}), "accurate")
    assert "What clipping changes by itself, at the largest budget tried (ε = 10⁹): +0.010" in better
    mild: Grid = {("none", "none"): (0.88, "copied"), ("local", 8.0): (0.87, "quiet"), ("local", 1.0): (0.8, "quiet")}
    assert "lipping" not in said(study(mild), "accurate")  # the largest budget has noise of its own


def test_the_price_of_a_whole_lesion_stands_beside_that_of_an_image():
    content = study()
    for cell in content["cells"]:
        for hospital in cell["summary"]["hospitals"]:
            hospital |= {"larger_unit": "lesion", "images_in_larger_unit": 4, "epsilon_larger_unit": {"upper": 31.0}}
    assert "A lesion of 4 images, the largest at" in said(content, "budget")
    assert "pays 31." in said(content, "budget")


def test_images_of_one_hospital_only_are_told_apart_too():
    content = study()
    row = next(r for r in content["settings"] if (r["mechanism"], r["budget"]) == ("distributed", 8.0))
    assert "one hospital only" not in said(content, "accurate")
    row["within_hospitals"] = interval(0.76) | {"pairs_share": 0.229, "against_none": difference(-0.014)}
    text = said(content, "accurate")
    assert "Among images of one hospital only, 23% of all pairs: AUROC 0.760 (95% interval 0.750 to 0.770)" in text
    assert "What privacy changes there: −0.014 (95% interval −0.024 to −0.004)." in text
    row["within_hospitals"] = {"estimate": None, "low": None, "high": None, "why": "no pairs"}
    assert "one hospital only" not in said(content, "accurate")


def test_a_bound_of_one_is_said_to_rule_nothing_out():
    grid: Grid = {("none", "none"): (0.88, "copied"), ("local", 1e9): (0.88, "quiet")}
    text = said(study(grid), "attacker")
    assert "it rules nothing out" in text
    assert "at most" not in text


def test_nothing_tried_is_no_safety():
    text = said(study(UNTESTED), "attacker")
    assert text.startswith("not tested")
    assert "better" not in text
    assert "No attack was tried in this setting" in said(study(UNTESTED), "not promised")


def test_the_budget_is_said_exactly_and_as_papers_print_it_per_what_and_against_whom():
    text = said(study(), "budget")
    assert text.startswith(
        "ε ≤ 8 per image, over the whole run, except with a probability of δ = 10⁻⁵; small is private"
    )
    assert "Opacus would print 8.8" in text
    assert "Protects from: the server, the public and each other hospital by itself." in text
    only: Grid = {("none", "none"): (0.88, "copied"), ("central", 8.0): (0.88, "copied")}
    text = said(study(only), "budget")
    assert "per hospital" in text
    assert "not the server" in text
    assert said(study(NO_BUDGET), "budget").startswith("nothing")


def test_what_is_not_promised_names_attacks_power_units_and_data():
    content = study()
    text = said(content, "not promised")
    assert "Tried here: imprint." in text
    assert "With 64 images attacked, a true rate below 17% of images recognised among decoys may go unnoticed." in text
    assert "counts one image" in text
    assert "synthetic" in text
    for cell in content["cells"]:
        cell["summary"]["data"] = "real"
    assert "synthetic" not in said(content, "not promised")


def test_too_few_images_to_notice_anything_are_said():
    content = study()
    row = next(r for r in content["settings"] if (r["mechanism"], r["budget"]) == ("distributed", 8.0))
    row["attacks"] = [attack("copied", 0, 3, 0.0, above=False) | {"noticed_from": None}]
    assert "With 3 images attacked, no rate of images copied" in said(content, "not promised")


def test_every_mechanism_has_its_own_answer():
    found = by_mechanism(Budgets(study()))
    assert "Noise shared in a secure sum: ε = 8." in found
    assert "Noise at each hospital: no budget passes." in found
    assert "All data in one place: ε = 8." in found
    assert by_mechanism(Budgets(study(DEMO))) == ()
    assert "Noise at each hospital: no attack was tested." in by_mechanism(Budgets(study(UNTESTED)))


def test_an_older_study_is_refused_with_what_to_do(tmp_path: Path):
    content = study()
    del content["settings"]
    folder = write(tmp_path, content, ())
    with pytest.raises(InputError, match="--resume"):
        build_report(folder)
    assert not (folder / "report.html").exists()


def test_the_first_screen_is_on_the_page_before_anything_else(tmp_path: Path):
    content = study()
    text = Page(build_report(write(tmp_path, content)).read_text(encoding="utf-8")).text
    order = ["Recommended: ε = 8", "How accurate", "What could an attacker get", "What does the budget promise", "Why "]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert text.index("What the comparison says") > places[-1]
    for sentence in content["recommended"]["why"] + content["recommended"]["not_promised"]:
        assert " ".join(sentence.split()) in text
    assert copy.deepcopy(content) == content
