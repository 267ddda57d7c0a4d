"""Prices against closed forms in high precision, against other libraries, and against what must hold for any budget."""

import math
import warnings

import mpmath as mp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import privacy
from privacy import Spend


def price(s: float, q: float, t: int, delta: float) -> privacy.Epsilon:
    return privacy.epsilon(noise_multiplier=s, sample_rate=q, steps=t, delta=delta)


def root(function, low, high) -> float:
    """Bisect a falling function in mpmath."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return float(high)


def gaussian_epsilon(mu, delta: float) -> float:
    """Balle and Wang 2018, theorem 8, by bisection with 60 digits."""
    with mp.workdps(60):
        mu = mp.mpf(mu)

        def excess(e):
            return mp.ncdf(mu / 2 - e / mu) - mp.exp(e) * mp.ncdf(-mu / 2 - e / mu) - mp.mpf(delta)

        return root(excess, mp.mpf(0), mu * mu / 2 + 40 * mu + 10)


@pytest.mark.parametrize("delta", [1e-5, 8e-7])
@pytest.mark.parametrize("s", [11.0, 1.0, 0.3, 1e-2, 1e-4])
@pytest.mark.parametrize("t", [1, 100])
def test_full_batches_are_the_analytic_gaussian(s: float, t: int, delta: float) -> None:
    found = price(s, 1.0, t, delta)
    expected = gaussian_epsilon(mp.sqrt(t) / mp.mpf(s), delta)
    assert found.estimate == pytest.approx(expected, rel=1e-6, abs=1e-8)
    assert found.lower <= expected * (1 + 1e-9)
    assert found.upper >= expected * (1 - 1e-9)


def one_step(s: float, q: float, delta: float) -> float:
    """One Poisson-subsampled step, remove direction: the likelihood ratio is monotone, so the region is a half line."""
    with mp.workdps(60):
        s, q = mp.mpf(s), mp.mpf(q)

        def excess(e):
            x = s * s * mp.log((mp.expm1(e) + q) / q) + mp.mpf(1) / 2
            tail = mp.ncdf(-x / s)
            return (1 - q) * tail + q * mp.ncdf((1 - x) / s) - mp.exp(e) * tail - mp.mpf(delta)

        return root(excess, mp.mpf("1e-12"), 1 / (2 * s * s) + 40 / s + 40)


@pytest.mark.parametrize("q", [0.9, 0.25, 0.0041])
@pytest.mark.parametrize("s", [0.5, 0.05, 1e-3])
def test_one_sampled_step_is_its_closed_form(s: float, q: float) -> None:
    expected = one_step(s, q, 1e-5)
    found = price(s, q, 1, 1e-5)
    assert found.estimate == pytest.approx(expected, rel=1e-4)
    assert found.lower <= expected * (1 + 2e-6)
    assert found.upper >= expected * (1 - 2e-6)


@pytest.mark.parametrize(
    ("s", "q", "t"), [(4.0, 0.073, 1368), (1.0, 0.0284, 528), (0.8, 0.0041, 2000), (2.0, 0.2534, 300)]
)
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


def test_the_headline_budget_in_high_precision() -> None:
    """HAM-like at tiny noise: the mixture over participations, hidden and revealed, brackets the truth."""
    s, q, t, delta = 1e-4, 0.073, 1368, 8e-7
    with mp.workdps(50):
        weights = {k: mp.binomial(t, k) * mp.mpf(q) ** k * (1 - mp.mpf(q)) ** (t - k) for k in range(60, 200)}

        def excess(e, hidden: bool):
            total = mp.mpf(0)
            for k, weight in weights.items():
                mean = mp.mpf(k) / (2 * mp.mpf(s) ** 2)
                if hidden:
                    mean += k * mp.log(q) + (t - k) * mp.log(1 - mp.mpf(q))
                deviation = mp.sqrt(k) / mp.mpf(s)
                z = (mean - e) / deviation
                if z > -40:
                    total += weight * (mp.ncdf(z) - mp.exp(e - mean + deviation**2 / 2) * mp.ncdf(z - deviation))
            return total - mp.mpf(delta)

        low = root(lambda e: excess(e, True), mp.mpf("1e9"), mp.mpf("2e10"))
        high = root(lambda e: excess(e, False), mp.mpf("1e9"), mp.mpf("2e10"))
    found = price(s, q, t, delta)
    assert found.method == "rigorous"
    assert found.lower <= high
    assert found.upper >= low
    assert low * (1 - 1e-6) <= found.estimate <= high * (1 + 1e-6)
    assert found.upper <= high * (1 + 1e-6)
    assert found.opacus_rdp > 5 * found.upper  # what the paper's accountant would print


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


def test_different_noises_compose_to_more_than_the_quieter_alone_and_less_than_twice_the_louder() -> None:
    mixed = privacy.compose([Spend(1.0, 0.1, 100), Spend(2.0, 0.1, 100)], delta=1e-5)
    assert price(1.0, 0.1, 100, 1e-5).estimate < mixed.estimate < price(1.0, 0.1, 200, 1e-5).estimate
    assert privacy.compose([], delta=1e-5).upper == 0


@pytest.mark.parametrize("budget", [0.5, 8.0, 1e3, 1e6, 1e9, 1e12])
@pytest.mark.parametrize(("q", "t"), [(1.0, 1), (0.0284, 528), (0.2534, 300)])
def test_calibration_keeps_the_budget_and_wastes_nothing(budget: float, q: float, t: int) -> None:
    s = privacy.noise_multiplier(epsilon=budget, delta=1e-5, sample_rate=q, steps=t)
    upper = price(s, q, t, 1e-5).upper
    assert budget * (1 - 1e-3) <= upper <= budget


def test_no_noise_claims_nothing_and_an_infinite_budget_needs_none() -> None:
    assert math.isinf(price(0.0, 0.5, 3, 1e-5).upper)
    assert privacy.noise_multiplier(epsilon=math.inf, delta=1e-5, sample_rate=0.5, steps=3) == 0


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("noise_multiplier", {"noise_multiplier": -1.0}),
        ("noise_multiplier", {"noise_multiplier": math.nan}),
        ("sample_rate", {"sample_rate": 1.5}),
        ("steps", {"steps": 0}),
        ("delta", {"delta": 1.0}),
    ],
)
def test_bad_arguments_are_named(argument: str, values: dict[str, float]) -> None:
    arguments = {"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 10, "delta": 1e-5, **values}
    with pytest.raises(ValueError, match=argument):
        privacy.epsilon(**arguments)
