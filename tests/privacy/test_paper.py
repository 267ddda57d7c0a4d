"""What the literature trained with: opacus' own calibration, and what it really cost."""

import math
import warnings

import pytest

import privacy
from privacy.rdp import opacus_epsilon, opacus_noise_multiplier
from privacy.release import Spend

SETTINGS = {"HAM10000": (0.2534, 300), "MSD Liver": (0.00943, 53000), "RadImageNet": (0.0041, 12200)}


@pytest.mark.parametrize("budget", [1.0, 8.0, 20.0])
@pytest.mark.parametrize("name", ["HAM10000", "MSD Liver"])
def test_calibration_is_opacus_own(name: str, budget: float) -> None:
    from opacus.accountants.utils import get_noise_multiplier

    rate, steps = SETTINGS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # opacus warns about its orders
        theirs = get_noise_multiplier(
            target_epsilon=budget,
            target_delta=8e-7,
            sample_rate=rate,
            steps=steps,
            accountant="rdp",
            epsilon_tolerance=1e-4,
        )
    ours = opacus_noise_multiplier(epsilon=budget, delta=8e-7, sample_rate=rate, steps=steps)
    assert ours == pytest.approx(theirs, rel=2e-4)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("budget", [1.0, 1e3, 1e9, 1e12])
def test_round_trip_and_the_exact_price_is_lower(name: str, budget: float) -> None:
    rate, steps = SETTINGS[name]
    noise = opacus_noise_multiplier(epsilon=budget, delta=8e-7, sample_rate=rate, steps=steps)
    assert opacus_epsilon((Spend(noise, rate, steps),), delta=8e-7) == pytest.approx(budget, rel=1e-9)
    exact = privacy.epsilon(noise_multiplier=noise, sample_rate=rate, steps=steps, delta=8e-7)
    assert exact.upper < budget


def test_the_headline_budget_is_overstated_as_claimed() -> None:
    # About 3, 96 and (with the number of training images assumed) 150 times at 1e9.
    for (rate, steps), least, most in zip(SETTINGS.values(), (2.8, 90, 140), (3.0, 100, 210), strict=True):
        noise = opacus_noise_multiplier(epsilon=1e9, delta=8e-7, sample_rate=rate, steps=steps)
        exact = privacy.epsilon(noise_multiplier=noise, sample_rate=rate, steps=steps, delta=8e-7)
        assert least < 1e9 / exact.estimate < most


def test_what_no_order_reaches_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="epsilon"):
        opacus_noise_multiplier(epsilon=0.01, delta=8e-7, sample_rate=0.01, steps=10)
    with pytest.raises(ValueError, match="epsilon"):
        opacus_noise_multiplier(epsilon=math.nan, delta=8e-7, sample_rate=0.01, steps=10)
