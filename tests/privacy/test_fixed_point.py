"""Fixed point in one and two words, against Python's integers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.fixed_point import add, agreed_exponent, decoded, encoded, subtract


def integers(words: np.ndarray) -> list[int]:
    """The signed integers of a vector."""
    ring = 2 ** (64 * len(words))
    plain = [sum(int(word) << (64 * i) for i, word in enumerate(column)) for column in words.T]
    return [value - ring if value >= ring // 2 else value for value in plain]


@pytest.mark.parametrize("words", [1, 2])
@pytest.mark.parametrize("bounds", [[1.0], [1.0] * 20, [1e-9, 3.0], [2.0**40] * 5])
def test_the_unit_is_the_finest_power_of_two_with_which_nothing_wraps(bounds: list[float], words: int) -> None:
    unit = Fraction(2) ** agreed_exponent(bounds, words)
    most = sum(Fraction(bound) for bound in bounds)
    # Each term may be rounded up by half a unit. At half the unit the bit left for that would be gone.
    assert most / unit + len(bounds) < 2 ** (64 * words - 1)
    assert most / unit >= 2 ** (64 * words - 3)


@pytest.mark.parametrize("bounds", [[], [0.0], [-1.0], [np.inf], [np.nan], [1e308, 1e308]])
def test_bounds_that_bound_nothing_are_refused(bounds: list[float]) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        agreed_exponent(bounds, 1)


@pytest.mark.parametrize("words", [1, 2])
def test_encoding_rounds_to_nearest_and_refuses_what_is_beyond(words: int) -> None:
    values = np.array([0.0, -0.0, 0.124, -0.126, 1.0, -1.0])
    assert integers(encoded(values, 1.0, -2, words)) == [0, 0, 0, -1, 4, -4]
    for bad in (1.0000001, -1.1, np.nan, np.inf):
        with pytest.raises(ValueError, match="beyond the agreed range"):
            encoded(np.array([bad]), 1.0, -2, words)


NUMBERS = st.lists(st.floats(-(2.0**64), 2.0**64, allow_subnormal=True), min_size=3, max_size=3)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(st.lists(NUMBERS, min_size=1, max_size=6), st.integers(1, 2), st.integers(0, 2**32))
def test_a_sum_under_masks_is_the_sum_of_the_rounded_terms(terms: list[list[float]], words: int, seed: int) -> None:
    exponent = agreed_exponent([2.0**64] * len(terms), words)
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, 2**64, (len(terms), words, 3), dtype=np.uint64)
    total = np.zeros((words, 3), np.uint64)
    for term, mask in zip(terms, masks, strict=True):
        hidden = encoded(np.array(term), 2.0**64, exponent, words)
        add(hidden, mask)
        add(total, hidden)
    for mask in masks:
        subtract(total, mask)
    unit = Fraction(2) ** exponent
    exact = [sum(round(Fraction(term[j]) / unit) for term in terms) for j in range(3)]
    assert integers(total) == exact
    for found, whole in zip(decoded(total, exponent), exact, strict=True):
        right = float(whole * unit)
        assert found == right if words == 1 else abs(found - right) <= np.spacing(abs(right))


def test_the_top_of_the_range_is_kept() -> None:
    for words in (1, 2):
        exponent = agreed_exponent([1.0, 1.0], words)
        total = encoded(np.array([1.0, -1.0]), 1.0, exponent, words)
        add(total, encoded(np.array([1.0, -1.0]), 1.0, exponent, words))
        assert decoded(total, exponent).tolist() == [2.0, -2.0]
