"""Noise for many rates: never less than its budget needs, hardly more, and the same wherever it is found."""

import itertools
import math

import numpy as np
import pytest

import privacy
from clients import calibration
from clients.calibration import Noise, calibrated, found_noise, noise_of_rates, tell
from clients.planning import plans
from configs import Experiment

DELTA = 1e-5


def rates(count: int, low: float = 2e-3, high: float = 1.0) -> list[float]:
    return np.exp(np.random.default_rng(7).uniform(math.log(low), math.log(high), count)).tolist()


def upper(noise: float, rate: float, steps: int) -> float:
    return privacy.epsilon(noise_multiplier=noise, sample_rate=rate, steps=steps, delta=DELTA).upper


@pytest.mark.parametrize(("epsilon", "steps"), [(8.0, 3), (1e3, 40)])
def test_noise_read_off_keeps_the_budget_and_uses_it(epsilon: float, steps: int) -> None:
    asked = [*rates(calibration.MANY, 0.2, 1.0), 1.0]
    found = noise_of_rates(epsilon, DELTA, asked, steps)
    assert set(found) == set(asked)
    for rate in asked:
        assert epsilon * (1 - 1e-3) < upper(found[rate], rate, steps) <= epsilon
    order = sorted(asked)
    assert all(found[a] <= found[b] * (1 + 1e-4) for a, b in itertools.pairwise(order)), "more drawn, more noise"


def test_what_was_read_off_wrongly_is_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    # An interpolation that gives too little noise must be found out by its price, one that gives too much by its waste.
    asked = rates(calibration.MANY + 1, 0.2, 0.5)
    for wrong in (-0.01, 0.01):
        calibration._between_knots.cache_clear()
        monkeypatch.setattr(calibration, "ABOVE", wrong)
        assert noise_of_rates(8.0, DELTA, asked, 3) == {q: calibrated(8.0, DELTA, q, 3) for q in asked}
    calibration._between_knots.cache_clear()


def test_few_rates_are_calibrated_one_by_one() -> None:
    asked = rates(3)
    assert noise_of_rates(8.0, DELTA, asked, 3) == {q: calibrated(8.0, DELTA, q, 3) for q in asked}


def test_told_noise_is_believed_only_if_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_TOLD", {})
    (honest,) = found_noise(8.0, DELTA, [0.07], 5)
    more = Noise(8.0, DELTA, 0.07, 5, read_off=False, multiplier=honest.multiplier * 1.5)
    less = Noise(8.0, DELTA, 0.09, 5, read_off=False, multiplier=honest.multiplier * 0.5)
    tell([more, less])
    assert calibrated(8.0, DELTA, 0.07, 5) == more.multiplier, "it fits, so it is taken as it was told"
    assert upper(calibrated(8.0, DELTA, 0.09, 5), 0.09, 5) <= 8.0 < upper(less.multiplier, 0.09, 5)


def test_a_process_that_was_told_plans_as_the_one_that_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    told = found_noise(8.0, DELTA, rates(20, 0.1, 0.4), 3)
    assert {one.read_off for one in told} == {True}
    first = {one.sample_rate: one.multiplier for one in told}
    calibration._between_knots.cache_clear()
    monkeypatch.setattr(calibration, "_TOLD", {})
    tell(told)
    monkeypatch.setattr(calibration, "_between_knots", None)  # a search would fail now
    assert noise_of_rates(8.0, DELTA, first, 3) == first


def test_ten_thousand_unequal_hospitals_keep_their_budget() -> None:
    experiment = Experiment.model_validate(
        {
            "task": {"root": "phantom"},
            "training": {"rounds": 3, "batch_size": 20_000, "batch": "equal"},
            "privacy": {"mechanism": "local", "epsilon": 8, "delta": DELTA},
        }
    )
    generator = np.random.default_rng(1)
    units = {f"hospital-{k:05d}": int(n) for k, n in enumerate(generator.integers(8, 60, 10_000))}
    planned = plans(experiment, units, units)
    assert list(planned) == sorted(units)
    for name in generator.choice(sorted(units), 25, replace=False):
        plan = planned[str(name)]
        assert plan.sample_rate * units[str(name)] == pytest.approx(2.0)
        assert 7.99 < upper(plan.noise_multiplier, plan.sample_rate, plan.steps) <= 8
