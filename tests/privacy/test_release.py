"""What a spend and a release accept."""

import math

import numpy as np
import pytest

from privacy import Release, Spend

SPEND = Spend(0.8, 0.1, 5)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("noise_multiplier", (-1.0, 0.1, 1)),
        ("noise_multiplier", (math.inf, 0.1, 1)),
        ("noise_multiplier", ("1", 0.1, 1)),
        ("sample_rate", (1.0, 0.0, 1)),
        ("sample_rate", (1.0, math.nan, 1)),
        ("steps", (1.0, 0.1, 0)),
        ("steps", (1.0, 0.1, True)),
        ("steps", (1.0, 0.1, 2.0)),
    ],
)
def test_a_wrong_spend_is_named(name: str, values: tuple) -> None:
    with pytest.raises(ValueError, match=name):
        Spend(*values)


def test_a_release_owns_its_arrays_in_double_precision() -> None:
    mine = np.ones(3)
    release = Release({"weight": mine}, records=10, spend=SPEND)
    mine[0] = 7.0
    assert release.arrays["weight"].tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="read-only"):
        release.arrays["weight"][0] = 2.0
    with pytest.raises(ValueError, match="float64"):
        Release({"weight": np.ones(3, dtype=np.float32)}, records=10, spend=SPEND)
    with pytest.raises(ValueError, match="records"):
        Release({}, records=0, spend=None)
