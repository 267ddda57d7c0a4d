"""The bound at its limits: closed forms, where regimes meet, order, and wrong arguments."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri
from scipy.stats import chi2, ncx2

import privacy
from tests.privacy.calls import Threat, bound

BOTH = pytest.mark.parametrize("threat", ["worst_case", "relaxed"])


@pytest.mark.parametrize(("s", "t", "prior"), [(0.3, 1, 0.01), (2.0, 4, 0.2), (11.0, 1000, 1e-4), (1e3, 1, 1e-3)])
def test_full_participation_is_a_normal_test(s: float, t: int, prior: float) -> None:
    assert bound(s, 1.0, t, prior) == pytest.approx(ndtr(ndtri(prior) + math.sqrt(t) / s), rel=1e-9)


@pytest.mark.parametrize(("s", "prior"), [(0.3, 0.01), (1.0, 0.2), (4.0, 1e-3)])
def test_one_blind_look_is_the_noncentral_chi_square(s: float, prior: float) -> None:
    expected = ncx2.sf(chi2.isf(prior, 1), 1, 1 / s**2)
    assert bound(s, 1.0, 1, prior, "relaxed") == pytest.approx(expected, rel=1e-9)
    assert bound(s, 0.3, 1, prior, "relaxed") <= 0.3 * expected + 0.7 * prior + 1e-12


@BOTH
def test_many_weak_steps_meet_the_normal_limit(threat: Threat) -> None:
    """At T = 53000, q = .00943, s = 9.97 the log ratio is normal; its variance is E[(P/Q - 1)^2] per step."""
    s, q, t, prior = 9.9698, 0.00943, 53000, 1 / 106
    spread = np.expm1(1 / s**2) if threat == "worst_case" else np.cosh(1 / s**2) - 1
    expected = ndtr(ndtri(prior) + q * np.sqrt(t * spread))
    assert bound(s, q, t, prior, threat) == pytest.approx(expected, rel=1e-3)


@BOTH
@pytest.mark.parametrize(("q", "t"), [(0.0284, 528), (0.001, 100)])
def test_regimes_meet_and_limits_hold(q: float, t: int, threat: Threat) -> None:
    values = [bound(s, q, t, 0.01, threat) for s in (0.0, 1e-5, 0.0599, 0.0601, 0.2, 0.7, 3.0)]
    assert values[0] == pytest.approx(1 - (1 - q) ** t * 0.99, rel=1e-12)
    assert values[1] == pytest.approx(values[0], rel=1e-6)
    assert values[2] == pytest.approx(values[3], rel=1e-4)
    assert np.allclose(values, np.sort(values)[::-1], rtol=1e-5)
    assert values[-1] >= 0.01


@settings(deadline=None, max_examples=12, derandomize=True)
@given(st.floats(0.1, 5.0), st.floats(0.01, 1.0), st.integers(1, 200), st.floats(1e-4, 0.5))
def test_the_bound_falls_in_noise_and_rises_in_everything_else(s: float, q: float, t: int, prior: float) -> None:
    here = bound(s, q, t, prior)
    room = 1 + 1e-4
    assert prior <= here <= 1
    assert bound(1.3 * s, q, t, prior) <= here * room
    assert bound(s, 0.7 * q, t, prior) <= here * room
    assert bound(s, q, 2 * t, prior) * room >= here
    assert bound(s, q, t, 0.5 * prior) <= here * room
    assert bound(s, q, t, prior, "relaxed") <= here * room


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prior", 0.0),
        ("prior", 1.0),
        ("prior", math.nan),
        ("steps", 1.5),
        ("steps", 0),
        ("sample_rate", 0.0),
        ("sample_rate", 1.1),
        ("noise_multiplier", -1.0),
        ("noise_multiplier", math.nan),
        ("threat", "none"),
    ],
)
def test_bad_arguments_are_named(name: str, value: object) -> None:
    good: dict[str, Any] = {
        "noise_multiplier": 1.0,
        "sample_rate": 0.1,
        "steps": 3,
        "prior": 0.1,
        "threat": "worst_case",
    }
    good[name] = value
    with pytest.raises(ValueError, match=name):
        privacy.reconstruction_bound(**good)


def test_a_record_known_to_be_drawn_is_bounded_by_both_ways_of_knowing_it() -> None:
    """One step at q: drawn or not, P(hit | drawn) is the bound at q = 1; the other way can only be larger there."""
    drawn = partial(privacy.participant_bound, noise_multiplier=0.7, prior=0.01, threat="worst_case")
    anybody = partial(privacy.reconstruction_bound, noise_multiplier=0.7, prior=0.01, threat="worst_case")
    one = drawn(sample_rate=0.1, steps=1, watched=1)
    assert one == anybody(sample_rate=1.0, steps=1)
    # Many steps, one of which draws the record for certain (W large): nothing is known that was not known anyway.
    many = drawn(sample_rate=0.2, steps=60, watched=60)
    assert many == pytest.approx(anybody(sample_rate=0.2, steps=60), rel=1e-4)
    # Watching fewer of the same steps tells less often that it was drawn, so that knowing it says more.
    few = drawn(sample_rate=0.02, steps=60, watched=1)
    more = drawn(sample_rate=0.02, steps=60, watched=30)
    assert more < few <= 1.0
    with pytest.raises(ValueError, match="watched"):
        drawn(sample_rate=0.2, steps=3, watched=4)
