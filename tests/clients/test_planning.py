"""What hospitals agree to add and are charged with, for any federation: against enumeration, prices and fixed point."""

import math
from collections.abc import Callable
from itertools import combinations, pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import privacy
import tasks
from clients.planning import noise_shares, plan_deal, plans, sample_rates
from clients.sum_terms import sum_terms
from configs import Experiment, InputError
from privacy.fixed_point import agreed_exponent
from tasks.dealing import deal_experiment

Make = Callable[..., Experiment]
HOSPITALS = st.integers(3, 9)
SIZES = st.lists(st.integers(1, 100_000), min_size=3, max_size=9)


def experiment(count: int, mechanism: str, training: dict[str, Any] | None = None, **privacy: Any) -> Experiment:
    content: dict[str, Any] = {
        "hospitals": {"partition": "iid", "count": count},
        "training": {"rounds": 20, "secure_sum": mechanism == "distributed", **(training or {})},
        "privacy": {"mechanism": mechanism, "delta": 1e-6, **privacy},
    }
    return Experiment.model_validate(content)


def named(sizes: list[int]) -> dict[str, int]:
    return {f"h{k:02d}": n for k, n in enumerate(sizes)}


def two_lists_can_be_signed(made: Experiment, count: int, colluders: int) -> bool:
    """Whether colluders who sign twice and others who sign once make two lists of survivors of one round."""
    for advertised in range(1, count + 1):
        threshold = made.sum_threshold(count, advertised)
        if threshold > advertised:
            continue
        twice = min(colluders, advertised)
        if 2 * twice + (advertised - twice) >= 2 * threshold:
            return True
    return False


@settings(deadline=None, max_examples=150)
@given(
    sizes=SIZES,
    t=st.integers(0, 6),
    d=st.integers(0, 6),
    asked=st.one_of(st.none(), st.integers(3, 9)),
    batch=st.sampled_from(["proportional", "equal"]),
    s=st.floats(1e-6, 1e3),
)
def test_every_sum_that_is_opened_holds_the_charged_noise_beside_what_colluders_know(
    sizes: list[int], t: int, d: int, asked: int | None, batch: str, s: float
) -> None:
    count = len(sizes)
    assume(asked is None or asked <= count)
    cohort = asked or count
    units = named(sizes)
    size = min(sizes) * count / 2 if batch == "equal" else sum(sizes) / 3
    made = experiment(
        count,
        "distributed",
        {"batch": batch, "batch_size": size, "cohort": asked},
        noise_multiplier=s,
        colluders=t,
        dropouts=d,
    )
    if cohort - t - d < 1:
        with pytest.raises(InputError, match="nobody is left whose noise protects"):
            plans(made, units, units)
        return
    if cohort - t - d > 1 and two_lists_can_be_signed(made, count, t):
        with pytest.raises(InputError, match="two sums of one round opened"):
            plans(made, units, units)
        return
    found = plans(made, units, units)
    assert noise_shares(made, count) == cohort - t - d
    for advertised in range(1, cohort + 1):
        least = made.sum_threshold(count, advertised)
        if least > advertised:
            continue  # so few never open a sum
        for survivors in range(least, advertised + 1):
            left = survivors - min(t, survivors)
            shares = sorted(p.added**2 for p in found.values())[:left]
            assert len(shares) == left
            assert math.sqrt(math.fsum(shares)) >= s * (1 - 1e-12)
    assert {p.noise_multiplier for p in found.values()} == {s}
    assert sum(p.expected_batch for p in found.values()) == pytest.approx(size)


def test_a_few_sums_by_enumeration() -> None:
    """Every set of survivors and of colluders among them, with 6 hospitals, 2 colluders and a dropout."""
    units = named([10, 20, 30, 40, 50, 60])
    made = experiment(6, "distributed", {"batch_size": 21}, noise_multiplier=0.7, colluders=2, dropouts=1)
    found = plans(made, units, units)
    left = [
        math.sqrt(sum(found[n].added ** 2 for n in inside if n not in known))
        for size in (5, 6)
        for inside in combinations(units, size)
        for known in combinations(inside, 2)
    ]
    assert min(left) == pytest.approx(0.7)
    assert max(left) > 0.7


@settings(deadline=None, max_examples=12)
@given(
    sizes=st.lists(st.integers(50, 20_000), min_size=3, max_size=4),
    epsilon=st.sampled_from([0.5, 8.0, 1e3, 1e6, 1e9, 1e12]),
    batch=st.sampled_from(["proportional", "equal"]),
    share=st.sampled_from([0.01, 0.2, 1.0]),
)
def test_local_keeps_the_budget_and_distributed_takes_the_noise_of_whoever_needs_most(
    sizes: list[int], epsilon: float, batch: str, share: float
) -> None:
    units = named(sizes)
    size = share * (min(sizes) * len(sizes) if batch == "equal" else sum(sizes))
    training = {"batch": batch, "batch_size": size}
    local = plans(experiment(len(sizes), "local", training, epsilon=epsilon), units, units)
    for plan in local.values():
        price = privacy.epsilon(
            noise_multiplier=plan.noise_multiplier, sample_rate=plan.sample_rate, steps=plan.steps, delta=1e-6
        )
        assert 0.999 * epsilon < price.upper <= epsilon
        assert plan.added == plan.noise_multiplier
    shared = plans(experiment(len(sizes), "distributed", training, epsilon=epsilon), units, units)
    most = max(p.noise_multiplier for p in local.values())
    assert {p.noise_multiplier for p in shared.values()} == {most}
    assert {p.added for p in shared.values()} == {most / math.sqrt(len(sizes) - 1)}
    # Whoever needs most has the largest rate, so the smallest share of its units is drawn nowhere else more often.
    largest = max(local.values(), key=lambda p: p.sample_rate)
    assert largest.noise_multiplier == most


@settings(deadline=None, max_examples=200)
@given(sizes=SIZES, batch=st.sampled_from(["proportional", "equal"]), share=st.floats(1e-4, 1.0))
def test_rates_draw_the_batch_that_was_asked_for_and_never_more_than_there_is(
    sizes: list[int], batch: str, share: float
) -> None:
    units = named(sizes)
    most = sum(sizes) if batch == "proportional" else len(sizes) * min(sizes)
    rates = sample_rates(units, share * most, batch)
    assert all(0 < q <= 1 for q in rates.values())
    assert sum(q * units[n] for n, q in rates.items()) == pytest.approx(share * most)
    ordered = sorted(units, key=lambda n: units[n])
    assert all(rates[a] >= rates[b] for a, b in pairwise(ordered))  # smaller: no lower rate
    assert sample_rates(units, None, batch) == dict.fromkeys(units, 1.0)
    with pytest.raises(InputError, match=r"training\.batch_size"):
        sample_rates(units, 1.01 * most, batch)


@pytest.mark.parametrize("batch", ["proportional", "equal"])
def test_alone_plans_as_in_the_federation(small: Make, batch: str) -> None:
    training = {"batch": batch, "batch_size": 30}
    terms = {"epsilon": 8, "delta": 1e-3}
    joined = small(
        hospitals={"partition": "size", "count": 4, "min_units": 20, "alpha": 2},
        training=training,
        privacy={"mechanism": "local", **terms},
    )
    records, _ = tasks.get(joined.task).load().parts("test")
    federation = plan_deal(joined, deal_experiment(joined, records))
    assert len({p.units for p in federation.values()}) > 1
    for name, plan in federation.items():
        content = joined.model_dump(mode="json")
        content["hospitals"]["only"] = name
        content["privacy"]["mechanism"] = "alone"
        one = Experiment.model_validate(content)
        assert plan_deal(one, deal_experiment(one, records)) == {name: plan}


@settings(deadline=None, max_examples=300)
@given(
    count=st.integers(3, 300),
    largest=st.integers(1, 100_000),
    s=st.floats(1e-6, 100.0),
    clip=st.floats(1e-3, 1e3),
    spread=st.floats(0.05, 1.0),
)
def test_the_unit_of_a_sum_is_fine_enough_for_shares_and_no_sum_wraps(
    count: int, largest: int, s: float, clip: float, spread: float
) -> None:
    units = named([max(1, round(largest * (spread if k % 2 else 1.0))) for k in range(count)])
    made = experiment(
        count, "distributed", {"batch_size": 0.3 * sum(units.values())}, noise_multiplier=s, clipping_norm=clip
    )
    found = plans(made, units, units)
    terms = [sum_terms(p, made.training, made.privacy) for p in found.values()]
    step = 2.0 ** agreed_exponent([t.bound for t in terms], 1)
    share = s * clip / math.sqrt(count - 1)
    assert all(p.noise_std == pytest.approx(share) for p in found.values())
    assert all(t.coarsest == pytest.approx(share / 1000) and t.words == 1 for t in terms)
    assert step <= share / 1000  # so that rounding before the sum costs nothing: test_rounded_sums
    # Everybody at its bound, rounded: below half of 2^64 steps, so that no sum wraps around.
    assert sum(t.bound / step + 0.5 for t in terms) < 2.0**63
    for name, term in zip(sorted(units), terms, strict=True):
        assert term.bound >= clip * units[name] + 40 * share * (1 - 1e-9)


@pytest.mark.parametrize("epsilon", [1.0, 1e6, 1e9, 1e12])
def test_the_unit_in_use_is_fine_enough_for_budgets_at_which_a_thousandth_is_not(epsilon: float) -> None:
    """Rounding shares is free while (pi share/step)^2 is far above epsilon (docs/secure-sum.md); HAM10000 by size."""
    units = named([363, 1850, 3330, 3470])
    made = experiment(4, "distributed", {"batch_size": 2048, "rounds": 70}, epsilon=epsilon)
    found = plans(made, units, units).values()
    step = 2.0 ** agreed_exponent([sum_terms(p, made.training, made.privacy).bound for p in found], 1)
    fineness = min(p.noise_std for p in found) / step
    assert (math.pi * fineness) ** 2 > 1000 * epsilon
    if epsilon >= 1e9:
        assert (math.pi * 1000) ** 2 < epsilon
