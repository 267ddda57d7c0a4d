"""Prices of units of several images against enumeration, quadrature, draws, another library and group privacy."""

import itertools
import math
import time

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_ndtr, ndtr

import privacy
from privacy import Spend, group_bounds
from privacy.contour import Parts
from privacy.group_loss import SampledGroup, log_binomial
from privacy.group_rdp import group_rdp_epsilon
from privacy.inversion import invert

DELTA = 1e-5


def price(s: float, q: float, t: int, k: int, delta: float = DELTA) -> privacy.Epsilon:
    return privacy.unit_epsilon(noise_multiplier=s, sample_rate=q, steps=t, delta=delta, records=k)


def loss(x, s: float, q: float, k: int):
    """ln(P/Q) at x, by the plain sum; P has the unit."""
    j = np.arange(k + 1)
    weight = np.array([math.comb(k, i) * q**i * (1 - q) ** (k - i) for i in j])
    terms = np.log(weight) + (j * np.asarray(x)[..., None] - j * j / 2) / s**2
    return np.logaddexp.reduce(terms, axis=-1)


class Twin:
    """One step by brute force: the likelihood ratio on a fine grid, inverted by interpolation."""

    def __init__(self, s: float, q: float, k: int) -> None:
        self.s, self.q, self.k = s, q, k
        self.j = np.arange(k + 1)
        self.weight = np.array([math.comb(k, i) * q**i * (1 - q) ** (k - i) for i in self.j])
        self.x = np.linspace(-12 * s, k + 12 * s, 400_001)
        self.loss = loss(self.x, s, q, k)

    def present(self, x):
        """P(X <= x)."""
        return ndtr((x[..., None] - self.j) / self.s) @ self.weight

    def removed(self, e):
        x = np.interp(e, self.loss, self.x, left=-np.inf)
        absent = np.exp(np.minimum(e + log_ndtr(-x / self.s), 0.0))
        return np.maximum(ndtr((self.j - x[..., None]) / self.s) @ self.weight - absent, 0.0)

    def added(self, e):
        x = np.interp(-np.asarray(e), self.loss, self.x, left=-np.inf)
        with np.errstate(divide="ignore", over="ignore"):
            there = np.exp(np.minimum(e + np.log(self.present(x)), 0.0))
        return np.where(np.isneginf(x), 0.0, np.maximum(ndtr(x / self.s) - there, 0.0))

    def two_steps(self, e: float, remove: bool = True) -> float:
        z = np.linspace(-10, 10, 20_001)
        density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
        if not remove:
            return float(density @ self.added(e + loss(self.s * z, self.s, self.q, self.k)))
        places = [density @ self.removed(e - loss(j + self.s * z, self.s, self.q, self.k)) for j in self.j]
        return float(self.weight @ places)


SETTINGS = list(itertools.product([0.1, 0.3, 1.0, 5.0], [0.02, 0.4], [2, 7]))


@pytest.mark.parametrize(("s", "q", "k"), SETTINGS)
def test_two_steps_by_brute_force(s: float, q: float, k: int) -> None:
    found, twin = price(s, q, 2, k), Twin(s, q, k)
    assert twin.two_steps(found.estimate * (1 - 1e-4)) > DELTA > twin.two_steps(found.estimate * (1 + 1e-4))
    assert twin.two_steps(min(found.upper, 500.0), remove=False) <= DELTA * (1 + 1e-4)


@pytest.mark.parametrize(
    ("s", "q", "k"), [(0.02, 0.3, 4), (0.5, 0.1, 3), (0.5, 0.9, 3), (2.0, 0.05, 10), (30.0, 0.7, 5)]
)
def test_one_step_is_exact_in_both_directions(s: float, q: float, k: int) -> None:
    found, twin = price(s, q, 1, k), Twin(s, q, k)
    assert found.method == "rigorous"
    e = np.array(found.estimate)
    larger = max(float(twin.removed(e)), float(twin.added(np.minimum(e, 500.0))))
    assert larger == pytest.approx(DELTA, rel=1e-4)


@pytest.mark.parametrize(("s", "q", "t", "k"), [(1.0, 0.05, 60, 3), (2.0, 0.1, 200, 4), (1.5, 0.01, 300, 12)])
def test_long_runs_agree_with_another_library(s: float, q: float, t: int, k: int) -> None:
    from dp_accounting import dp_event
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(value_discretization_interval=2e-3)
    weight = [math.comb(k, j) * q**j * (1 - q) ** (k - j) for j in range(k + 1)]
    step = dp_event.MixtureOfGaussiansDpEvent(s, list(range(k + 1)), weight)
    accountant.compose(dp_event.SelfComposedDpEvent(step, t))
    theirs = accountant.get_epsilon(DELTA)  # an upper bound
    found = price(s, q, t, k)
    assert found.estimate == pytest.approx(theirs, rel=5e-3)
    assert found.lower <= theirs * (1 + 1e-6)


def enumerated(s: float, q: float, t: int, k: int, hidden: bool) -> float:
    """Epsilon of the mixture over how many steps had j images, every case of it, in 40 digits."""
    with mp.workdps(40):
        s, q = mp.mpf(s), mp.mpf(q)
        weight = [mp.binomial(k, j) * q**j * (1 - q) ** (k - j) for j in range(k + 1)]
        cases = []
        for drawn in itertools.combinations_with_replacement(range(k + 1), t):
            ways = math.factorial(t)
            for j in range(k + 1):
                ways //= math.factorial(drawn.count(j))
            square = sum(j * j for j in drawn)
            told = mp.fprod(weight[j] for j in drawn)
            cases.append((ways * told, square / (2 * s**2) + (mp.log(told) if hidden else 0), mp.sqrt(square) / s))

        def delta(e: mp.mpf):
            total = mp.mpf(0)
            for chance, mean, deviation in cases:
                if deviation == 0:
                    total += chance * max(0, 1 - mp.exp(e - mean))
                elif (z := (mean - e) / deviation) > -14:
                    total += chance * (mp.ncdf(z) - mp.exp(e - mean + deviation**2 / 2) * mp.ncdf(z - deviation))
            return total

        low, high = mp.mpf(0), t * k * k / (2 * s**2) * 2
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if delta(middle) > DELTA else (low, middle)
        return float(high)


@pytest.mark.parametrize(
    ("s", "q", "t", "k"), [(1e-6, 0.3, 4, 3), (1e-3, 0.05, 6, 2), (0.02, 0.3, 4, 3), (0.03, 0.02, 6, 2)]
)
def test_small_noise_is_the_mixture_of_participations(s: float, q: float, t: int, k: int) -> None:
    found = price(s, q, t, k)
    hidden = enumerated(s, q, t, k, hidden=True)
    assert found.lower <= hidden * (1 + 1e-9)
    assert found.upper >= hidden * (1 - 1e-9)
    # Up to 16 deviations apart, branches overlap by nothing: hiding them is exact.
    assert found.estimate == pytest.approx(hidden, rel=max(2e-6, 0.51 * (found.upper / found.lower - 1)))
    revealed = enumerated(s, q, t, k, hidden=False)
    assert hidden <= revealed * (1 + 1e-9)
    assert group_bounds.revealed(Spend(s, q, t), k, DELTA) == pytest.approx(revealed, rel=1e-5)


@pytest.mark.parametrize(("s", "q", "t", "k"), [(0.01, 0.073, 1368, 5), (0.004, 0.01, 1000, 30), (0.02, 0.5, 100, 10)])
def test_the_bracket_and_the_inversion_meet(s: float, q: float, t: int, k: int) -> None:
    lower, upper = group_bounds.bracket(Spend(s, q, t), k, DELTA)
    group = SampledGroup(noise_multiplier=s, sample_rate=q, records=k)
    inverted, _ = invert(Parts(((group, t),)), DELTA)
    assert lower <= inverted <= upper <= lower * (1 + 1e-4)


def test_branches_and_nodes_meet() -> None:
    for s, q, t, k in [(0.05, 0.05, 10, 3), (0.045, 0.2, 200, 6)]:
        taken = [SampledGroup(noise_multiplier=s, sample_rate=q, records=k, apart=apart) for apart in (True, False)]
        apart, nodes = (invert(Parts(((loss, t),), effort=32), DELTA)[0] for loss in taken)
        assert apart == pytest.approx(nodes, rel=1e-9)


def test_the_overlap_of_branches_is_within_its_bound() -> None:
    s, q, t, k, runs = 0.2, 0.3, 5, 4, 200_000
    rng = np.random.default_rng(3)
    j = rng.binomial(k, q, (runs, t))
    x = j + s * rng.standard_normal((runs, t))
    own = log_binomial(k, q)[j] + (j * x - 0.5 * j * j) / s**2
    excess = (loss(x, s, q, k) - own).sum(axis=1)
    assert excess.min() > -1e-9
    for lost in (0.5, 0.1, 0.02):
        assert np.mean(excess > group_bounds.overlap(Spend(s, q, t), k, lost)) <= lost


@pytest.mark.parametrize(("s", "q", "t", "k"), [(0.4, 0.1, 12, 3), (2.0, 0.3, 40, 6), (0.15, 0.02, 30, 8)])
def test_draws(s: float, q: float, t: int, k: int) -> None:
    delta, runs = 0.02, 30_000
    rng = np.random.default_rng(8)
    x = rng.binomial(k, q, (runs, t)) + s * rng.standard_normal((runs, t))
    total = loss(x, s, q, k).sum(axis=1)
    values = -np.expm1(np.minimum(price(s, q, t, k, delta).estimate - total, 0.0))
    assert values.mean() == pytest.approx(delta, abs=4 * values.std() / math.sqrt(runs))


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 2, 2.5, math.pi])
@pytest.mark.parametrize(("s", "q"), [(0.5, 0.3), (1.5, 0.8)])
def test_no_other_directions_of_two_gradients_cost_more(s: float, q: float, angle: float) -> None:
    """One step in the plane that two gradients span, on a grid, in both directions; parallel ones cost the price."""
    delta = 1e-3
    e = price(s, q, 1, 2, delta).estimate
    axis = np.linspace(-9 * s - 2, 9 * s + 2, 1201)
    x, y = np.meshgrid(axis, axis)
    sums = [(0.0, 0.0, (1 - q) ** 2), (1.0, 0.0, q * (1 - q)), (math.cos(angle), math.sin(angle), q * (1 - q))]
    sums.append((1 + math.cos(angle), math.sin(angle), q * q))
    cell = (axis[1] - axis[0]) ** 2 / (2 * math.pi * s * s)
    without = cell * np.exp(-(x * x + y * y) / (2 * s * s))
    unit = sum(w * cell * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * s * s)) for a, b, w in sums)
    removed, added = (np.maximum(one - math.exp(e) * two, 0).sum() for one, two in ((unit, without), (without, unit)))
    assert max(removed, added) <= delta * (1 + 1e-4)
    if angle == 0.0:
        assert max(removed, added) == pytest.approx(delta, rel=1e-3)


@pytest.mark.parametrize(
    ("s", "q", "t"), [(1e-3, 0.1, 50), (0.05, 0.2, 100), (0.5, 0.01, 1000), (3.0, 0.3, 300), (1.0, 1.0, 10)]
)
def test_one_image_is_the_record(s: float, q: float, t: int) -> None:
    alone = privacy.epsilon(noise_multiplier=s, sample_rate=q, steps=t, delta=DELTA)
    assert price(s, q, t, 1) == alone
    assert privacy.compose([Spend(s, q, t)], delta=DELTA, records=1) == alone
    if q < 1.0:
        mixture = SampledGroup(noise_multiplier=s, sample_rate=q, records=1)
        assert invert(Parts(((mixture, t),), effort=32), DELTA)[0] == pytest.approx(alone.estimate, rel=2e-6)
        lower, upper = group_bounds.bracket(Spend(s, q, t), 1, DELTA)
        assert lower <= alone.estimate <= upper
    assert group_rdp_epsilon((Spend(s, q, t),), 1, delta=DELTA) == pytest.approx(alone.opacus_rdp, rel=1e-9)


@pytest.mark.parametrize("k", [2, 9])
@pytest.mark.parametrize(("s", "t"), [(1e-6, 1), (0.3, 100), (20.0, 10)])
def test_full_batches_are_a_gaussian_of_k_times_the_sensitivity(s: float, t: int, k: int) -> None:
    alone = privacy.epsilon(noise_multiplier=s / k, sample_rate=1.0, steps=t, delta=DELTA)
    assert price(s, 1.0, t, k).estimate == pytest.approx(alone.estimate, rel=1e-9)
    nearly = price(s, 1.0 - 1e-9, t, k)
    assert nearly.estimate == pytest.approx(alone.estimate, rel=1e-4)


noises = st.floats(math.log(1e-4), math.log(8.0)).map(math.exp)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(noises, st.floats(0.005, 0.9), st.integers(1, 300), st.integers(1, 6), st.floats(1e-7, 1e-3))
def test_more_images_cost_more_and_less_than_group_privacy_says(
    s: float, q: float, t: int, k: int, delta: float
) -> None:
    here, more = price(s, q, t, k, delta), price(s, q, t, k + 1, delta)
    assert here.lower <= here.estimate <= here.upper
    assert more.upper * (1 + 1e-9) >= here.lower
    assert more.estimate >= here.estimate * (1 - 1e-5)
    assert here.upper <= here.opacus_rdp * (1 + 3e-6)
    assert here.lower <= group_bounds.revealed(Spend(s, q, t), k, delta)
    # (eps, delta) for one image is (k eps, delta (e^(k eps) - 1)/(e^eps - 1)) for k of them.
    alone = price(s, q, t, 1, delta).upper
    if 0.0 < k * alone < 600.0:
        shared = delta * math.expm1(k * alone) / math.expm1(alone)
        if shared < 1.0:
            assert price(s, q, t, k, shared).lower <= k * alone


@settings(deadline=None, max_examples=10, derandomize=True)
@given(noises, st.floats(0.005, 0.9), st.integers(2, 200), st.integers(2, 5))
def test_noise_and_rate_and_halves(s: float, q: float, t: int, k: int) -> None:
    here = price(s, q, t, k)
    assert price(1.2 * s, q, t, k).estimate <= here.estimate * (1 + 1e-5)
    assert price(s, 0.8 * q, t, k).estimate <= here.estimate * (1 + 1e-5)
    halves = privacy.compose([Spend(s, q, t // 2), Spend(s, q, t - t // 2)], delta=DELTA, records=k)
    assert halves == here


def test_different_steps_compose() -> None:
    first, second = Spend(1.0, 0.1, 50), Spend(0.5, 0.02, 20)
    mixed = privacy.compose([first, second], delta=DELTA, records=3)
    parts = [privacy.compose([s], delta=DELTA / 2, records=3).upper for s in (first, second)]
    assert privacy.compose([first], delta=DELTA, records=3).estimate < mixed.estimate < sum(parts)
    # A full batch is the same Gaussian whether k images stand at s or one stands at s/k.
    full = privacy.compose([Spend(6.0, 1.0, 2), Spend(3.0, 1.0, 1)], delta=DELTA, records=3)
    alone = privacy.compose([Spend(2.0, 1.0, 2), Spend(1.0, 1.0, 1)], delta=DELTA)
    assert full.estimate == pytest.approx(alone.estimate, rel=1e-12)
    with_full = privacy.compose([Spend(6.0, 1.0, 2), first], delta=DELTA, records=3)
    assert with_full.estimate > privacy.compose([first], delta=DELTA, records=3).estimate
    assert with_full.upper <= with_full.opacus_rdp


@pytest.mark.parametrize(
    ("s", "q", "t", "k"),
    [
        (1e-6, 1e-5, 10**6, 50),
        (1e-6, 0.5, 10**6, 50),
        (11.0, 0.5, 10**6, 50),
        (0.5, 1e-5, 10**6, 8),
        (0.3, 0.07, 1368, 5),
    ],
)
def test_the_corners_of_the_range_are_quick_and_narrow(s: float, q: float, t: int, k: int) -> None:
    start = time.perf_counter()
    found = price(s, q, t, k)
    assert time.perf_counter() - start < 4
    assert 0 < found.lower <= found.estimate <= found.upper <= found.lower * (1 + 1e-4)


@pytest.mark.parametrize(
    ("s", "q", "t", "k", "delta"),
    [
        # ln M is so large here that rounding keeps the root's equation from being met to 1e-12.
        (0.3707530464400752, 0.4534836496516327, 783797, 50, 4.691477250435885e-06),
        # Three steps, whose losses lie far apart: a quarter of a million frequencies resolve them.
        (0.025576405174722504, 0.19016207484946382, 3, 25, 2.8501723673933882e-05),
    ],
)
def test_where_the_inversion_once_failed(s: float, q: float, t: int, k: int, delta: float) -> None:
    found = price(s, q, t, k, delta)
    assert found.method == "numerical"
    assert found.upper <= found.lower * (1 + 1e-5)
    assert found.lower <= group_bounds.revealed(Spend(s, q, t), k, delta) <= found.opacus_rdp


def test_edge_cases_and_bad_arguments() -> None:
    assert math.isinf(price(0.0, 0.5, 3, 4).upper)
    assert price(0.0, 0.5, 3, 4).method == "none"
    covered = price(1e-3, 1e-8, 10, 5)  # an image takes part with probability 5e-7 at most
    assert (covered.upper, covered.method) == (0.0, "rigorous")
    assert price(1e-3, 1e-8, 10, 500).lower > 0
    for records in (0, -1, 1.5, True, math.nan):
        with pytest.raises(ValueError, match="records"):
            price(1.0, 0.1, 10, records)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sample_rate"):
        price(1.0, 1.5, 10, 2)
