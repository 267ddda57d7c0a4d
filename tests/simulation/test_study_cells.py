"""Which runs a study has: each once, all on the same data and examples, and what cannot be is said, not run."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import privacy
from configs import Experiment, InputError, Study
from configs.experiment import Budget, StudyAxes
from configs.sections import Mechanism
from simulation.grid import in_order
from simulation.study import Federations, cells, draft, folder_names, written
from simulation.study_checks import outline
from tasks.dealing import deal_experiment

Make = Callable[..., Experiment]

PRICED = ("local", "distributed", "central")
FREE = ("none", "clip_only", "noise_only")
ALL: tuple[Mechanism, ...] = ("alone", "pooled", *PRICED, *FREE)
BUDGETS: tuple[Budget, ...] = ("none", 1.0, 8.0, 1e6, 1234567.0, 1234568.0)
FOUR = {"rosendahl", "vidir_modern", "vidir_molemax", "vienna_dias"}
DELTA = {"delta": 1e-4}


def study_of(experiment: Experiment, **axes: Any) -> Study:
    return Study(experiment=experiment, axes=StudyAxes.model_validate(axes))


def expected(mechanisms: list[Mechanism], budgets: list[Budget], seeds: list[int]) -> set[tuple[Any, ...]]:
    """Count by the contract: an epsilon has a cell per budget, the others one, `alone` one per hospital."""
    found: set[tuple[Any, ...]] = set()
    for seed, mechanism in itertools.product(seeds, mechanisms):
        for budget in budgets:
            if budget == "none":
                found.add(("none", "none", seed, None))
            if mechanism in FREE:
                found.add((mechanism, "none", seed, None))
            elif mechanism == "alone":
                found |= {("alone", budget, seed, hospital) for hospital in FOUR}
            elif budget != "none" or mechanism == "pooled":
                found.add((mechanism, budget, seed, None))
    return found


@pytest.fixture(scope="module")
def base(small: Make) -> Experiment:
    return small(privacy=DELTA, adversary={"placement": "malicious_server"})


@pytest.fixture(scope="module")
def federations(base: Experiment) -> Federations:
    return Federations(base)


@given(
    st.lists(st.sampled_from(ALL), min_size=1, unique=True),
    st.lists(st.sampled_from(BUDGETS), min_size=1),
    st.lists(st.sampled_from((10, 11)), min_size=1),
)
@settings(max_examples=40, deadline=None)
def test_every_cell_once_and_no_two_alike(
    base: Experiment,
    federations: Federations,
    mechanisms: list[Mechanism],
    budgets: list[Budget],
    seeds: list[int],
) -> None:
    if budgets.count("none") == len(budgets):
        mechanisms = [m for m in mechanisms if m not in PRICED and m != "noise_only"]
        if not mechanisms:
            return
    found, refused = draft(study_of(base, mechanisms=mechanisms, budgets=budgets, seeds=seeds), federations)
    assert not refused
    assert {(c.mechanism, c.budget, c.seed, c.hospital) for c in found} == expected(mechanisms, budgets, seeds)
    for distinct in ({c.name.casefold() for c in found}, {c.experiment.digest() for c in found}):
        assert len(distinct) == len(found)
    for cell in found:
        assert cell.experiment.seed == cell.seed
        assert cell.experiment.privacy.mechanism == cell.mechanism
        assert (cell.experiment.privacy.budget or "none") == cell.budget
        assert cell.experiment.hospitals.only == cell.hospital
        assert cell.experiment.task == base.task
    ordered = in_order(found, budgets)
    assert sorted(c.name for c in ordered) == sorted(c.name for c in found)
    for seed, own in itertools.groupby(ordered, key=lambda c: c.seed):
        numbers = [c.budget == "none" for c in own]
        assert numbers == sorted(numbers, reverse=True), seed  # what needs no budget comes before what does


def test_a_mechanism_changes_only_what_it_must(base: Experiment) -> None:
    study = study_of(base, mechanisms=ALL, budgets=["none", 8])
    by_name = {cell.name: cell for cell in cells(study)}
    assert set(by_name) == {
        *("none-seed-10", "clip_only-seed-10", "noise_only-seed-10", "pooled-none-seed-10", "pooled-eps-8-seed-10"),
        *("local-eps-8-seed-10", "distributed-eps-8-seed-10", "central-eps-8-seed-10"),
        *(f"alone-{budget}-seed-10-{name}" for budget in ("none", "eps-8") for name in FOUR),
    }
    summed = by_name["distributed-eps-8-seed-10"].experiment
    assert summed.training.secure_sum
    assert summed.adversary.placement == "malicious_aggregate"
    assert by_name["alone-eps-8-seed-10-rosendahl"].experiment.adversary.placement == "none"
    for name in ("none-seed-10", "local-eps-8-seed-10", "central-eps-8-seed-10", "clip_only-seed-10"):
        experiment = by_name[name].experiment
        assert (experiment.training, experiment.adversary) == (base.training, base.adversary)
    assert by_name["pooled-none-seed-10"].experiment.training == base.training.model_copy(update={"quorum": 0.5})


@pytest.mark.parametrize("placement", ["wire", "server"])
def test_who_reads_single_releases_reads_the_sum_where_there_is_nothing_else(small: Make, placement: str) -> None:
    seat = {"seat": "rosendahl"} if placement == "wire" else {}
    adversary = {"placement": placement, "attacks": ["mean_image"], **seat}
    study = study_of(small(adversary=adversary), mechanisms=["pooled", "distributed", "local"], budgets=[8])
    own = {c.mechanism: c.experiment.adversary for c in outline(study).cells}
    assert (own["distributed"].placement, own["distributed"].seat) == ("aggregate", None)
    assert (own["pooled"].placement, own["pooled"].seat) == (placement, None)
    assert (own["local"].placement, own["local"].seat) == (placement, seat.get("seat"))


def test_what_has_no_sum_reads_single_releases_also_in_a_summed_federation(small: Make) -> None:
    base = small(training={"secure_sum": True}, adversary={"placement": "malicious_aggregate"})
    found = outline(study_of(base, mechanisms=["pooled", "distributed", "central", "local"], budgets=[8]))
    assert not found.refused
    own = {c.mechanism: c.experiment for c in found.cells}
    for mechanism in ("pooled", "central"):
        assert not own[mechanism].training.secure_sum
        assert own[mechanism].adversary.placement == "malicious_server"
    for mechanism in ("distributed", "local"):
        assert (own[mechanism].training, own[mechanism].adversary) == (base.training, base.adversary)


def test_twins_see_as_many_examples_as_the_cohorts_of_the_federation(small: Make) -> None:
    training = {"cohort": 2, "stragglers": 0.25, "batch_size": 40, "quorum": 1}
    base = small(hospitals={"partition": "iid", "count": 5}, training=training)
    twins = {c.name: c.experiment for c in cells(study_of(base, mechanisms=["pooled", "alone"], budgets=["none"]))}
    federated = twins.pop("none-seed-10").training
    assert (federated.cohort, federated.batch_size) == (2, 40)
    for experiment in twins.values():
        own = experiment.training
        assert own.batch_size == pytest.approx(40 * 2 / 5 * 0.75)
        assert (own.cohort, own.stragglers) == (None, 0.0)
    full = base.updated(training={"batch_size": None, "stragglers": 0.0})
    pooled = cells(study_of(full, mechanisms=["pooled"], budgets=["none"]))[1].experiment.training
    units = Federations(full).of(10).units
    assert pooled.batch_size == pytest.approx(sum(units.values()) * 2 / 5)


def test_noise_only_takes_the_largest_noise_of_its_local_cell(small: Make) -> None:
    base = small(training={"batch": "equal", "batch_size": 16}, privacy=DELTA)
    study = study_of(base, mechanisms=["local", "noise_only"], budgets=["none", 3, 8])
    cell = next(c for c in cells(study) if c.mechanism == "noise_only")
    units = Federations(base).of(10).units
    steps = base.training.rounds
    noise = privacy.noise_multiplier(epsilon=3, delta=1e-4, sample_rate=4 / min(units.values()), steps=steps)
    assert cell.noise_of == 3
    assert cell.experiment.privacy.noise_multiplier == pytest.approx(noise, rel=1e-6)
    named = study_of(base, mechanisms=["noise_only"], budgets=["none"], noise_of=8)
    other = next(c for c in cells(named) if c.mechanism == "noise_only")
    assert other.noise_of == 8
    assert other.experiment.privacy.noise_multiplier < noise  # type: ignore[operator]
    own = base.updated(privacy={"mechanism": "noise_only", "noise_multiplier": 0.5})
    (only,) = cells(study_of(own))
    assert (only.noise_of, only.experiment.privacy.noise_multiplier) == (None, 0.5)
    with pytest.raises(InputError, match=r"study\.noise_of"):
        cells(study_of(base, mechanisms=["noise_only"], budgets=["none"]))


@pytest.mark.parametrize(
    ("sections", "setting"),
    [
        ({"training": {"local_steps": 2, "server_optimizer": "average"}}, "training.local_steps"),
        ({"hospitals": {"partition": "iid", "count": 2}}, "training.secure_sum"),
        ({"privacy": {"colluders": 4}}, "privacy.colluders"),
        ({"hospitals": {"smallest_sum": 5}}, "training.secure_sum"),
    ],
)
def test_what_cannot_be_is_said_and_the_rest_runs(small: Make, sections: dict[str, Any], setting: str) -> None:
    base = small(**sections)
    found = outline(study_of(base, mechanisms=["local", "distributed", "clip_only"], budgets=["none", 8, 1e6]))
    assert {c.mechanism for c in found.cells} == {"none", "local", "clip_only"}
    assert [(r.mechanism, r.budget) for r in found.refused] == [("distributed", 8), ("distributed", 1e6)]
    for refused in found.refused:
        assert refused.why.startswith(f"{setting}: ")
    with pytest.raises(InputError, match=setting):
        outline(study_of(base, mechanisms=["distributed"], budgets=[8]))


def test_a_budget_that_no_noise_reaches_is_left_out_alone(small: Make) -> None:
    base = small(privacy={"delta": 1e-12})
    found = outline(study_of(base, mechanisms=["local", "alone"], budgets=[1e-9, 8]))
    assert {(r.mechanism, r.budget) for r in found.refused} == {("local", 1e-9), ("alone", 1e-9)}
    assert {(c.mechanism, c.budget) for c in found.cells} == {("local", 8), ("alone", 8)}


def test_what_stops_every_cell_stops_the_study(small: Make) -> None:
    both = {"mechanisms": ["local", "pooled"], "budgets": ["none", 8]}
    with pytest.raises(InputError, match=r"adversary\.attacks: attack 'imprint' needs control"):
        outline(study_of(small(adversary={"placement": "server"}), **both))
    with pytest.raises(InputError, match=r"training\.batch_size"):
        outline(study_of(small(training={"batch_size": 10_000}), **both))
    with pytest.raises(InputError, match="/nowhere"):
        outline(study_of(small(task={"root": "/nowhere"}), **both))
    with pytest.raises(InputError, match="needs at least one budget"):
        outline(study_of(small(), mechanisms=["local"]))


def test_a_delta_that_lets_a_record_go_whole_is_noted(small: Make) -> None:
    base = small(privacy={"delta": 2e-2})
    axes = {"mechanisms": ["pooled", "local", "distributed", "central", "clip_only"], "budgets": [8]}
    notes = outline(study_of(base, **axes)).notes
    largest = max(Federations(base).of(10).units.values())
    total = sum(Federations(base).of(10).units.values())
    assert [n for n in notes if f"1/{total} of the pooled images" in n and "'pooled'" in n]
    assert [n for n in notes if f"1/{largest} of the images at" in n and "'local'" in n]
    assert not [n for n in notes if "'central'" in n or "'clip_only'" in n]  # 2e-2 lies below 1/4
    quiet = outline(study_of(base.updated(privacy={"delta": 0.9 / total}), **axes))
    assert not quiet.notes
    assert [n for n in outline(study_of(base.updated(privacy={"delta": 0.3}), **axes)).notes if "hospitals" in n]


def test_who_attacks_nobody_is_said(small: Make) -> None:
    adversary = {"placement": "hospital", "attacks": ["mean_image"]}
    base = small(adversary=adversary, training={"server_optimizer": "average"})
    study = study_of(base, mechanisms=["alone", "pooled", "distributed", "central", "local"], budgets=[8])
    found = outline(study)
    own = {c.mechanism: c.experiment.adversary.placement for c in found.cells}
    assert own == {**dict.fromkeys(("alone", "pooled", "distributed", "central"), "none"), "local": "hospital"}
    assert len(found.notes) == 4


def test_the_plans_of_alone_are_those_of_the_federation(small: Make) -> None:
    base = small(privacy=DELTA)
    alone = [c for c in cells(study_of(base, mechanisms=["alone"], budgets=[8])) if c.hospital]
    import tasks
    from clients.planning import plan_deal

    training, _ = tasks.get(base.task).load().parts("test")
    local = base.updated(privacy={"mechanism": "local", "epsilon": 8})
    federated = plan_deal(local, deal_experiment(local, training))
    for cell in alone:
        (own,) = plan_deal(cell.experiment, deal_experiment(cell.experiment, training)).values()
        assert own == federated[own.hospital]
        assert own.hospital == cell.hospital


@given(st.lists(st.text(min_size=1, max_size=80), unique=True, min_size=1, max_size=8))
def test_hospitals_have_folders_of_their_own(names: list[str]) -> None:
    found = folder_names(dict.fromkeys(names, 1))
    assert list(found) == names
    assert len({n.casefold() for n in found.values()}) == len(names)
    for name in found.values():
        assert name
        assert not set(name) & set("/\\:\0 ")
        assert name not in (".", "..")


@given(st.floats(min_value=1e-3, max_value=1e15), st.floats(min_value=1e-3, max_value=1e15))
def test_budgets_are_written_apart(one: float, other: float) -> None:
    assert (written(one) == written(other)) == (one == other)
    assert math.isclose(float(written(one)), one, rel_tol=0)


def test_a_given_noise_never_stands_at_the_budget_of_no_privacy(small: Make) -> None:
    made = small(privacy={"mechanism": "local", "noise_multiplier": 1.0, "delta": 1e-3})
    with pytest.raises(InputError, match="as if it were one"):
        cells(Study(experiment=made, axes=StudyAxes.model_validate({"mechanisms": ["local"], "budgets": ["none"]})))
    (alone,) = cells(Study(experiment=made, axes=StudyAxes.model_validate({"mechanisms": ["local"]})))
    assert alone.experiment.privacy.noise_multiplier == 1.0
