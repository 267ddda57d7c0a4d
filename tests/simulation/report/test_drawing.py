from itertools import pairwise

import pytest

from simulation.report.numbers import budget, counted, listed, p_value, percent, significant
from simulation.report.plot import decades, logarithmic, mark, round_steps, spread_labels


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e9, "10⁹"),
        (3.1e9, "3.1 × 10⁹"),
        (1e12, "10¹²"),
        (8.0, "8"),
        (8.12, "8.12"),
        (1000.0, "1,000"),
        (999.9, "1,000"),
        (9.9999e6, "10⁷"),
        (1.234e6, "1,230,000"),
        (8e-7, "8 × 10⁻⁷"),
        (1e-5, "10⁻⁵"),
        (0.0123, "0.0123"),
        (0.0, "0"),
        (None, "–"),
    ],
)
def test_numbers_are_written_for_people(value: float | None, text: str):
    assert significant(value) == text


def test_budgets_may_be_none():
    assert budget("none") == budget(None) == "none"
    assert budget(1e6) == "1,000,000"


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0.0, "0%"),
        (1.0, "100%"),
        (0.004, "0.4%"),
        (0.0996, "10%"),
        (0.8594, "86%"),
        (0.9957, "99.6%"),
        (0.99999, "over 99.9%"),
        (1e-9, "under 0.001%"),
        (None, "–"),
    ],
)
def test_rates_are_never_rounded_to_nothing_or_all(rate: float | None, text: str):
    assert percent(rate) == text


def test_words_for_counts_lists_and_p_values():
    assert counted(1, "decoy") == "1 decoy"
    assert counted(2, "decoy") == "2 decoys"
    assert counted(1280, "image") == "1,280 images"
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed([str(k) for k in range(9)], most=3) == "0, 1 and 7 more"
    assert p_value(1e-9) == "p < 0.001"
    assert p_value(0.27) == "p = 0.27"


def test_ticks_are_few_and_round():
    assert decades(0.5, 2e9) == [1.0, 100.0, 1e4, 1e6, 1e8]
    assert decades(0.5, 2000) == [1.0, 10.0, 100.0, 1000.0]
    assert round_steps(0.5, 1.0) == [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert round_steps(1, 40) == [10, 20, 30, 40]


def test_scales_meet_their_ends():
    scale = logarithmic(1, 1e6, 0, 60)
    assert scale(1) == 0
    assert scale(1e3) == pytest.approx(30)
    assert scale(1e6) == pytest.approx(60)


def test_labels_are_moved_apart_in_order_and_kept_inside():
    placed = spread_labels([100, 101, 99, 30], 18, 20, 110)
    assert sorted(placed) == [placed[3], placed[2], placed[0], placed[1]]
    ordered = sorted(placed)
    assert all(b - a >= 18 - 1e-9 for a, b in pairwise(ordered))
    assert max(placed) <= 110


@pytest.mark.parametrize("shape", ["disc", "ring", "square", "triangle", "pointer", "diamond", "cross"])
def test_marks_are_told_apart_by_shape(shape: str):
    assert f'class="s1 {shape}"' in mark(1, 2, shape, "s1")
