"""Prices against other libraries, and what must hold at any setting. True values: test_vectors.py."""

import math
import warnings
from typing import Any

import mpmath as mp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import privacy
from privacy import Spend
from tests.privacy.calls import price


@pytest.mark.parametrize(("s", "q", "t"), [(4.0, 0.073, 1368), (1.0, 0.0284, 528), (2.0, 0.2534, 300)])
def test_long_runs_agree_with_another_library(s: float, q: float, t: int) -> None:
    from dp_accounting import dp_event
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(value_discretization_interval=1e-4)
    step = dp_event.PoissonSampledDpEvent(q, dp_event.GaussianDpEvent(s))
    accountant.compose(dp_event.SelfComposedDpEvent(step, t))
    theirs = accountant.get_epsilon(8e-7)
    found = price(s, q, t, 8e-7)
    assert found.estimate == pytest.approx(theirs, rel=2e-3)
    assert found.lower <= theirs * (1 + 1e-6)  # theirs is an upper bound


@pytest.mark.parametrize(("s", "q", "t"), [(1.0, 0.073, 1368), (0.5, 0.01, 1000), (4.0, 0.2534, 300), (0.05, 0.1, 10)])
def test_the_comparison_figure_is_what_opacus_prints(s: float, q: float, t: int) -> None:
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(s, q, t)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = accountant.get_epsilon(8e-7)
    assert price(s, q, t, 8e-7).opacus_rdp == pytest.approx(theirs, rel=1e-9)


rates = st.floats(0.005, 1.0)
noises = st.floats(math.log(1e-3), math.log(8.0)).map(math.exp)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(noises, rates, st.integers(1, 500), st.floats(1e-7, 1e-3))
def test_epsilon_falls_in_noise_and_rises_in_rate_steps_and_certainty(s: float, q: float, t: int, delta: float) -> None:
    here = price(s, q, t, delta)
    assert here.lower <= here.estimate <= here.upper
    slack = 1 + 1e-5
    assert price(s * 1.2, q, t, delta).estimate <= here.estimate * slack
    assert price(s, q * 0.8, t, delta).estimate <= here.estimate * slack
    assert price(s, q, 2 * t, delta).estimate * slack >= here.estimate
    assert price(s, q, t, delta / 3).estimate * slack >= here.estimate


@settings(deadline=None, max_examples=15, derandomize=True)
@given(noises, rates, st.integers(2, 300))
def test_halves_compose_to_the_whole(s: float, q: float, t: int) -> None:
    halves = privacy.compose([Spend(s, q, t // 2), Spend(s, q, t - t // 2)], delta=1e-5)
    assert halves.estimate == pytest.approx(price(s, q, t, 1e-5).estimate, rel=1e-6)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(noises, st.integers(1, 10**6), st.floats(1e-7, 1e-3))
def test_full_participation_is_the_closed_form(s: float, t: int, delta: float) -> None:
    """Balle and Wang 2018, theorem 8, on either side of the price, in 60 digits."""
    found = price(s, 1.0, t, delta)
    with mp.workdps(60):
        mu = mp.sqrt(t) / mp.mpf(s)

        def closed(e: Any) -> Any:
            return mp.ncdf(mu / 2 - e / mu) - mp.exp(e) * mp.ncdf(-mu / 2 - e / mu)

        assert closed(mp.mpf(found.upper)) <= delta <= closed(mp.mpf(found.lower)) or found.upper == 0.0
        assert found.upper <= found.lower * (1 + 3e-9)
        assert found.upper > 0.0 or closed(mp.mpf(0)) <= delta


@settings(deadline=None, max_examples=15, derandomize=True)
@given(st.floats(math.log(1e-2), math.log(8.0)).map(math.exp), rates, st.integers(1, 300))
def test_calibrating_and_pricing_undo_each_other(s: float, q: float, t: int) -> None:
    budget = price(s, q, t, 1e-5).upper
    back = privacy.noise_multiplier(epsilon=budget, delta=1e-5, sample_rate=q, steps=t)
    assert back == pytest.approx(s, rel=1e-4)
    assert price(back, q, t, 1e-5).upper <= budget


@pytest.mark.parametrize("budget", [0.5, 8.0, 1e3, 1e6, 1e9, 1e12])
@pytest.mark.parametrize(("q", "t"), [(1.0, 1), (0.0284, 528), (0.2534, 300)])
def test_calibration_keeps_the_budget_and_wastes_nothing(budget: float, q: float, t: int) -> None:
    s = privacy.noise_multiplier(epsilon=budget, delta=1e-5, sample_rate=q, steps=t)
    upper = price(s, q, t, 1e-5).upper
    assert budget * (1 - 1e-3) <= upper <= budget


def test_different_noises_compose_to_more_than_the_quieter_alone_and_less_than_twice_the_louder() -> None:
    mixed = privacy.compose([Spend(1.0, 0.1, 100), Spend(2.0, 0.1, 100)], delta=1e-5)
    assert price(1.0, 0.1, 100, 1e-5).estimate < mixed.estimate < price(1.0, 0.1, 200, 1e-5).estimate
    assert privacy.compose([], delta=1e-5).upper == 0


def test_no_noise_claims_nothing_and_an_infinite_budget_needs_none() -> None:
    found = price(0.0, 0.5, 3, 1e-5)
    assert (found.lower, found.upper, found.method) == (math.inf, math.inf, "none")
    assert privacy.compose([Spend(0.0, 0.5, 1), Spend(1.0, 0.5, 9)], delta=1e-5).method == "none"
    assert privacy.noise_multiplier(epsilon=math.inf, delta=1e-5, sample_rate=0.5, steps=3) == 0


BAD: dict[str, tuple[object, ...]] = {
    "noise_multiplier": (-1.0, math.nan, math.inf, "1", None),
    "sample_rate": (1.5, 0.0, -0.1, math.nan),
    "steps": (0, -1, 2.5, math.nan, True),
    "delta": (1.0, 2.0, 0.0, -1e-5, math.nan),
    "epsilon": (0.0, -1.0, math.nan, "8"),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_bad_arguments_are_named(name: str, value: Any) -> None:
    run: dict[str, Any] = {"sample_rate": 0.1, "steps": 10, "delta": 1e-5}
    run[name] = value
    if name != "epsilon":
        with pytest.raises(ValueError, match=name):
            privacy.epsilon(noise_multiplier=run.pop("noise_multiplier", 1.0), **run)
    else:
        with pytest.raises(ValueError, match=name):
            privacy.noise_multiplier(**run)


@pytest.mark.parametrize("name", ["sample_rate", "steps", "delta"])
def test_calibration_names_them_too(name: str) -> None:
    for value in BAD[name]:
        run: dict[str, Any] = {"epsilon": 8.0, "sample_rate": 0.1, "steps": 10, "delta": 1e-5}
        run[name] = value
        with pytest.raises(ValueError, match=name):
            privacy.noise_multiplier(**run)
