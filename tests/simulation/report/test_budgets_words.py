import re
from collections.abc import Callable
from typing import Any

import pytest

from simulation.report.budgets_numbers import Figures
from simulation.report.budgets_rows import Budgets
from simulation.report.budgets_words import joining_words, paying_words, price_words, verdict
from simulation.report.budgets_words_attacks import central_words, death_words, empty_words
from tests.simulation.report.studies import BARE, DEMO, GRIDS, USUAL, Grid, difference, study

Row = dict[str, Any]


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


def test_where_nobody_attacked_every_budget_is_spoken_of():
    grid: Grid = {key: (utility, "nobody") for key, (utility, _) in USUAL.items()}
    content = study(grid)
    price = joined(price_words, content)
    for at in ("1", "8", "10⁹"):
        assert f"At ε = {at}, with noise at each hospital: AUROC" in price
    assert "stand in the table" not in price
    assert "stand in the table" in joined(price_words)
    join = joined(joining_words, content)
    assert "At ε = 8, with noise" in join


def test_sharing_the_noise_is_held_against_noise_at_each_hospital():
    rows = [{"budget": b} | difference(gain) for b, gain in ((8.0, 0.025), (1.0, 0.0))]
    text = joined(price_words, study(shared_noise=rows))
    assert "At ε = 8, noise shared in a secure sum beside noise at each hospital: AUROC +0.025" in text
    assert "n = 160 images: more accurate." in text
    assert "At ε = 1, noise shared" not in text


def test_an_interval_that_ends_at_nothing_as_written_shows_nothing():
    assert verdict(Figures(-0.005, -0.01, -0.0002)) == ": no difference is shown"
    assert verdict(Figures(-0.005, -0.01, -0.0006)) == ": less accurate"


def test_specificity_stands_beside_recall():
    content = study()
    said = "Of the others, 0.930 (95% interval 0.910 to 0.950) are rightly not called so (specificity)."
    assert said in joined(paying_words, content)
    for row in content["settings"]:
        row["minority"]["specificity"] = None  # as of outlines
    assert "specificity" not in joined(paying_words, content)


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
