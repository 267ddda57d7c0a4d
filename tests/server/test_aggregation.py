"""Sums against exact rational arithmetic, in any order."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.aggregation import LARGEST, FixedPointSum

values = st.floats(min_value=-1e9, max_value=1e9, allow_nan=False, allow_subnormal=True)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(st.lists(values, min_size=3, max_size=3), min_size=1, max_size=9), st.randoms(use_true_random=False))
def test_any_order_gives_the_same_bits_and_the_exact_sum(terms: list[list[float]], shuffler) -> None:
    def total(order: list[list[float]]) -> np.ndarray:
        kept = FixedPointSum(3)
        for term in order:
            kept.add(np.array(term))
        return kept.total()

    shuffled = list(terms)
    shuffler.shuffle(shuffled)
    first, second = total(terms), total(shuffled)
    assert first.tobytes() == second.tobytes()
    exact = [float(sum(Fraction(term[j]) for term in terms)) for j in range(3)]
    # One rounding to 2^-80 per term, one to float64 at the end.
    assert np.all(np.abs(first - exact) <= len(terms) * 2.0**-81 + np.spacing(np.abs(exact)))


def test_floats_would_not_have_done() -> None:
    rng = np.random.default_rng(0)
    terms = rng.standard_normal((8, 1000))
    assert not np.array_equal(np.add.reduce(terms), np.add.reduce(terms[::-1]))  # so the property above is not trivial


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, LARGEST])
def test_what_cannot_be_bounded_is_refused_and_nothing_is_added(bad: float) -> None:
    kept = FixedPointSum(2)
    kept.add(np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="values"):
        kept.add(np.array([0.0, bad]))
    assert kept.total().tolist() == [1.0, 2.0]


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        FixedPointSum(2).add(np.zeros(3))
