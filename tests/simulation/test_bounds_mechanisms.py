"""What each seat may get under each mechanism, against closed forms and enumeration."""

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

import privacy
from configs import Experiment
from simulation.bounds import experiment_bounds, fewest_in_a_sum
from simulation.setup import prepare

Make = Callable[..., Experiment]
IID = {"partition": "iid", "count": 6}


def distributed(small: Make, **privacy_settings: float) -> Experiment:
    return small(
        hospitals=IID,
        training={"secure_sum": True, "quorum": 0.5},
        privacy={"mechanism": "distributed", "epsilon": 8, "delta": 1e-3, **privacy_settings},
    )


@pytest.mark.parametrize(("t", "d"), [(0, 0), (1, 0), (2, 1), (1, 3), (3, 2)])
def test_no_sum_of_shares_is_bounded_with_more_noise_than_it_holds(small: Make, t: int, d: int) -> None:
    setup = prepare(distributed(small, colluders=t, dropouts=d))
    rows, notes = experiment_bounds(setup)
    assert notes == []
    shares = [p.added for p in setup.plans.values()]
    for name, plan in setup.plans.items():
        mine = {r.seen.what: r for r in rows if r.seen.who == name}
        # Every list of survivors that is opened, and every set of colluders among them: what is left of the noise.
        left = [
            math.sqrt(sum(s**2 for s in inside) - sum(s**2 for s in known))
            for inside in combinations(shares, 6 - d)
            for known in combinations(inside, t)
        ]
        all_sums = mine[f"all sums, {t} colluders and {d} dropouts taken off"]
        assert all_sums.seen.noise_multiplier == pytest.approx(min(left))
        assert all_sums.seen.noise_multiplier == plan.noise_multiplier
        assert all_sums.epsilon is not None
        assert all_sums.epsilon <= 8
        whole = mine[f"the sum of {max(3, 6 - d)} or more hospitals"]
        assert whole.seen.noise_multiplier == pytest.approx(plan.added * math.sqrt(max(3, 6 - d)))
        insider = mine["that sum, by a hospital in it"]
        assert insider.seen.noise_multiplier == pytest.approx(plan.added * math.sqrt(max(3, 6 - d) - 1))
        if t >= 1:
            assert insider.worst_case <= all_sums.worst_case * (1 + 1e-9)
        else:  # nobody was to collude: a hospital sees more than the ledger says, and the row tells it
            assert insider.worst_case > all_sums.worst_case
        assert not [what for what in mine if "release" in what]


@pytest.mark.parametrize("quorum", [0.1, 0.5, 0.9, 4.0])
@pytest.mark.parametrize("cohort", [None, 9])
def test_the_smallest_sum_is_the_smallest_that_any_number_of_advertisements_opens(
    small: Make, quorum: float, cohort: int | None
) -> None:
    training = {"secure_sum": True, "quorum": quorum, "cohort": cohort}
    experiment = small(hospitals={"partition": "iid", "count": 12}, training=training)
    opened = [experiment.sum_threshold(12, n) for n in range(1, (cohort or 12) + 1)]
    possible = [least for n, least in enumerate(opened, start=1) if least <= n]  # as many have to be there
    assert fewest_in_a_sum(experiment, 12) == min(possible)
    assert fewest_in_a_sum(experiment.updated(training={"secure_sum": False}), 12) == max(
        1, math.ceil(quorum * (cohort or 12)) if quorum <= 1 else int(quorum)
    )


def test_local_noise_in_a_secure_sum(small: Make) -> None:
    training = {"secure_sum": True, "quorum": 0.2}
    setup = prepare(small(hospitals=IID, training=training, privacy={"mechanism": "local", "noise_multiplier": 2.0}))
    rows, notes = experiment_bounds(setup)
    assert "if all others collude" in notes[0]
    sums = [r for r in rows if r.seen.what == "the sum of 3 or more hospitals"]  # smallest_sum, above the quorum of 2
    assert len(sums) == 6
    assert all(r.seen.noise_multiplier == pytest.approx(2 * math.sqrt(3)) for r in sums)


def test_central_bounds_whole_hospitals_and_nothing_against_the_server(small: Make) -> None:
    privacy_settings = {"mechanism": "central", "noise_multiplier": 3.0, "delta": 1e-2}
    setup = prepare(small(hospitals=IID, training={"rounds": 4}, privacy=privacy_settings))
    rows, notes = experiment_bounds(setup, 50)
    hospitals = {r.seen.what: r for r in rows if r.seen.who == "a whole hospital"}
    every = hospitals["the models of all rounds"]
    assert (every.seen.candidates, every.seen.sample_rate, every.seen.pixels) == (6, 1.0, None)
    assert every.worst_case == pytest.approx(ndtr(ndtri(1 / 6) + math.sqrt(4) / 3))  # full participation: closed form
    gaussian = privacy.epsilon(noise_multiplier=3.0 / math.sqrt(4), sample_rate=1.0, steps=1, delta=1e-2)
    assert every.epsilon == pytest.approx(gaussian.upper)
    assert hospitals["the model after one round"].worst_case == pytest.approx(ndtr(ndtri(1 / 6) + 1 / 3))
    server = [r for r in rows if r.seen.who in setup.plans]
    assert len(server) == 12
    assert all(r.epsilon is None and r.seen.noise_multiplier == 0 and r.seen.candidates == 50 for r in server)
    assert "not against it" in notes[0]
    assert not [r for r in rows if r.seen.who == "pooled twin"]


def test_alone_sends_no_releases_and_pays_its_budget(small: Make) -> None:
    made = small(hospitals=IID).model_dump(mode="json")
    made["hospitals"]["only"] = "hospital-03"
    made["privacy"] = {"mechanism": "alone", "epsilon": 8, "delta": 1e-3}
    setup = prepare(Experiment.model_validate(made))
    rows, notes = experiment_bounds(setup)
    assert notes == []
    assert [r.seen.what for r in rows] == ["the step of one round", "the steps of all rounds"]
    assert rows[1].epsilon == pytest.approx(8, rel=1e-4)
    assert rows[1].seen.candidates == setup.plans["hospital-03"].units


def test_pooled_without_privacy_claims_nothing(small: Make) -> None:
    setup = prepare(small(privacy={"mechanism": "pooled", "epsilon": "none"}))
    rows, notes = experiment_bounds(setup)
    assert "nothing is claimed" in notes[0]
    (plan,) = setup.plans.values()
    for row in rows:
        assert row.epsilon is None
        missed = (1 - plan.sample_rate) ** row.seen.steps
        assert row.worst_case == pytest.approx(1 - missed * (1 - 1 / plan.units))


@pytest.mark.parametrize("cohort", [None, 2])
@pytest.mark.parametrize("mechanism", ["local", "distributed"])
def test_the_pooled_twin_at_equal_noise_has_the_noise_of_the_mean(
    small: Make, mechanism: str, cohort: int | None
) -> None:
    shared = mechanism == "distributed"
    cohort = 3 if shared and cohort else cohort
    setup = prepare(
        small(
            hospitals={"partition": "size", "count": 5, "min_units": 20},
            training={"batch": "equal", "batch_size": 30, "cohort": cohort, "secure_sum": shared},
            privacy={"mechanism": mechanism, "epsilon": 8, "delta": 1e-3},
        )
    )
    rows, _ = experiment_bounds(setup)
    twins = {r.seen.what: r for r in rows if r.seen.who == "pooled twin"}
    plans, asked = list(setup.plans.values()), cohort or 5
    # By enumeration: the mean variance over cohorts of the mean gradient's noise, in clipping norms; batches are equal.
    variances = [sum(p.added**2 for p in some) / (6.0 * asked) ** 2 for some in combinations(plans, asked)]
    alike = twins["all rounds, equal noise on the mean gradient"]
    assert alike.seen.noise_multiplier / (6.0 * asked) == pytest.approx(math.sqrt(float(np.mean(variances))))
    assert alike.seen.sample_rate == pytest.approx(6.0 * asked / sum(p.units for p in plans))
    assert twins["all rounds, equal epsilon"].epsilon == pytest.approx(8, rel=1e-4)
