"""Planning without training: against what hospitals plan, the server plans, and prices by themselves."""

import io
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy.special import ndtr, ndtri

import privacy
from clients.planning import calibrated, plans
from configs import Experiment, InputError, Study
from configs.experiment import StudyAxes
from server.central import central_plan
from simulation.budgets_plan import plan_command, plan_study
from simulation.budgets_plan_equal import equal_noise_rows
from simulation.budgets_plan_noise import noise_on_mean
from simulation.budgets_plan_terms import Setting, at, settings_of
from simulation.setup import prepare
from simulation.study import cells

ALL = ("none", "pooled", "local", "distributed", "central", "alone", "clip_only", "noise_only")
SIZES = {"big": 4000, "small": 150, "middle": 900, "other": 900}


def study(budgets: tuple[Any, ...], mechanisms: tuple[Any, ...] = ALL, **sections: dict[str, Any]) -> Study:
    content: dict[str, Any] = {
        "training": {"rounds": 60, "batch_size": 200.0, **sections.pop("training", {})},
        "privacy": {"delta": 1e-5, "clipping_norm": 0.5, **sections.pop("privacy", {})},
        **sections,
    }
    axes = StudyAxes(budgets=budgets, mechanisms=mechanisms)
    return Study(experiment=Experiment.model_validate(content), axes=axes)


def rows_by_setting(made: Study, sizes: dict[str, int]) -> dict[tuple[str, Any], dict[str, Any]]:
    return {(r["mechanism"], r["budget"]): r for r in plan_study(made, sizes).to_json()["rows"]}


@pytest.mark.parametrize("batch", ["proportional", "equal"])
@pytest.mark.parametrize("local_steps", [1, 3])
def test_every_hospitals_row_is_what_it_will_plan_and_pay(batch: str, local_steps: int) -> None:
    training = {"batch": batch, "local_steps": local_steps, "rounds": 20, "server_optimizer": "average"}
    made = study(("none", 8.0), training=training)
    rows = rows_by_setting(made, SIZES)
    for mechanism in ("pooled", "local", "distributed", "alone"):
        row = rows[mechanism, 8.0]
        if mechanism == "distributed" and local_steps > 1:
            assert "local_steps" in row["why"]
            continue
        experiment = at(made.experiment, Setting(mechanism, 8.0), SIZES)
        sizes = {"pooled": sum(SIZES.values())} if mechanism == "pooled" else SIZES
        expected = plans(experiment, sizes, sizes)
        assert [p["name"] for p in row["places"]] == sorted(sizes)
        for place in row["places"]:
            plan = expected[place["name"]]
            found = (place["noise_multiplier"], place["noise_added"], place["sample_rate"], place["units"])
            assert found == (plan.noise_multiplier, plan.added, plan.sample_rate, plan.units)
            terms: dict[str, Any] = {
                "noise_multiplier": plan.noise_multiplier,
                "sample_rate": plan.sample_rate,
                "steps": plan.steps,
            }
            price = privacy.epsilon(**terms, delta=1e-5)
            assert (place["epsilon_upper"], place["epsilon_opacus_rdp"]) == (price.upper, price.opacus_rdp)
            worst = privacy.reconstruction_bound(**terms, prior=1 / plan.units, threat="worst_case")
            assert place["worst_case"] == worst
            if mechanism == "alone":
                assert place["noise_on_mean"] == pytest.approx(plan.noise_std / plan.expected_batch)
        assert row["epsilon"]["upper"] == max(p["epsilon_upper"] for p in row["places"]) <= 8
        assert row["bounds"]["worst_case"] == max(p["worst_case"] for p in row["places"])
        assert row["bounds"]["relaxed"] < row["bounds"]["worst_case"]
    pooled = rows["pooled", "none"]
    assert (pooled["epsilon"], pooled["noise_multiplier"], pooled["protects"]) == (None, None, None)


def test_the_noise_on_the_mean_is_the_tables() -> None:
    """The last column of the table of mechanisms, at equal rates."""
    rows = rows_by_setting(study((8.0,), privacy={"mechanism": "central", "epsilon": 1.0, "update_norm": 2.0}), SIZES)
    s = rows["pooled", 8.0]["noise_multiplier"]["max"]
    mean = {name: row["noise_on_mean"]["max"] for (name, _), row in rows.items()}
    clip, batch, count = 0.5, 200.0, 4
    assert mean["pooled"] == pytest.approx(s * clip / batch)
    assert mean["local"] == pytest.approx(math.sqrt(count) * s * clip / batch)
    assert mean["distributed"] == pytest.approx(math.sqrt(count / (count - 1)) * s * clip / batch)
    z = central_plan(at(study((8.0,)).experiment, Setting("central", 8.0), SIZES), 4).noise_multiplier
    assert mean["central"] == pytest.approx(z * 2.0 / count)
    assert rows["central", 8.0]["epsilon"]["upper"] <= 8
    gamma = float(ndtr(ndtri(1 / count) + math.sqrt(60) / z))
    assert rows["central", 8.0]["bounds"]["worst_case"] == pytest.approx(gamma)
    assert rows["central", 8.0]["protects"] == "hospital"
    assert mean["noise_only"] == pytest.approx(math.sqrt(count) * s * clip / batch)  # takes that of local
    assert rows["noise_only", "none"]["bounds"]["worst_case"] is None
    assert (mean["none"], mean["clip_only"]) == (0, 0)


@pytest.mark.parametrize("local_steps", [1, 4])
def test_the_noise_on_the_mean_is_that_of_simulated_noise(local_steps: int) -> None:
    """Draws of every hospital's noise, averaged as the server does: by batch, or (FedAvg) by units."""
    training = {"batch": "equal", "local_steps": local_steps, "server_optimizer": "average"}
    experiment = at(study((8.0,), training=training).experiment, Setting("local", 8.0), SIZES)
    found = list(plans(experiment, SIZES, SIZES).values())
    assert len({p.noise_multiplier for p in found}) == 3
    rng = np.random.default_rng(0)
    sums = [p.noise_std * rng.standard_normal(400_000) for p in found]
    if local_steps == 1:
        mean = np.sum(sums, axis=0) / sum(p.expected_batch for p in found)
    else:
        weighted = [p.units * noise / p.expected_batch for p, noise in zip(found, sums, strict=True)]
        mean = np.sum(weighted, axis=0) / sum(p.units for p in found)
    assert noise_on_mean(experiment, found) == pytest.approx(float(mean.std()), rel=0.01)


def test_twins_see_as_many_examples_as_a_cohort_and_noise_is_an_average_cohorts() -> None:
    made = study((8.0,), training={"cohort": 2, "batch_size": 100.0}, hospitals={"smallest_sum": 2})
    rows = rows_by_setting(made, dict.fromkeys("abcd", 500))
    (pooled,) = rows["pooled", 8.0]["places"]
    assert pooled["sample_rate"] == pytest.approx(50 / 2000)
    local = rows["local", 8.0]
    assert {p["sample_rate"] for p in local["places"]} == {100 / 2000}
    s = local["noise_multiplier"]["max"]
    assert local["noise_on_mean"]["max"] == pytest.approx(math.sqrt(2) * s * 0.5 / 50)
    assert any("always asked" in n for n in local["notes"])
    assert rows["central", 8.0]["places"][0]["sample_rate"] == 0.5


def test_many_sizes_are_never_given_too_little_and_the_note_is_true() -> None:
    rng = np.random.default_rng(1)
    sizes = {f"h{k:03d}": int(n) for k, n in enumerate(rng.integers(40, 3000, 300))}
    ordered = sorted(sizes, key=lambda n: sizes[n])
    chosen = [ordered[k] for k in (0, 2, 30, 150, 290, 299)]
    made = study((1.0, 1e9), ("local", "distributed"), training={"batch": "equal", "batch_size": 900.0})
    found = plan_study(made, sizes)
    for row in found.to_json()["rows"]:
        budget, shared = row["budget"], row["mechanism"] == "distributed"
        places = {p["name"]: p for p in row["places"]}
        assert len({p["noise_multiplier"] for p in row["places"]}) <= 16
        assert row["epsilon"]["upper"] <= budget
        for place in (places[name] for name in chosen):
            rate, noise = place["sample_rate"], place["noise_multiplier"]
            assert rate == pytest.approx(3 / sizes[place["name"]])
            need = calibrated(budget, 1e-5, rate, 60)
            assert noise >= need * (1 - 2e-4)  # a calibration is known to 1e-4
            if not shared:
                assert noise <= need * (1 + row["noise_more_than_needed"] + 2e-4)
            terms: dict[str, Any] = {"noise_multiplier": noise, "sample_rate": rate, "steps": 60}
            assert privacy.epsilon(**terms, delta=1e-5).upper <= place["epsilon_upper"] * (1 + 1e-6)
            bound = privacy.reconstruction_bound(**terms, prior=1 / place["units"], threat="worst_case")
            assert bound <= place["worst_case"] * (1 + 2e-3)
        if shared:
            most = max(p["sample_rate"] for p in row["places"])
            assert {p["noise_multiplier"] for p in row["places"]} == {calibrated(budget, 1e-5, most, 60)}
    assert any("more than each needs" in note for note in found.notes)


@pytest.mark.parametrize("batch", ["proportional", "equal"])
def test_ten_thousand_hospitals_are_priced_as_few_times_as_twenty(batch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pricing is what takes time: 16 classes, a few looks at each (seconds: docs/mechanisms.md)."""
    asked: list[float] = []
    price = privacy.epsilon

    def counting(**terms: Any) -> privacy.Epsilon:
        asked.append(terms["sample_rate"])
        return price(**terms)

    monkeypatch.setattr(privacy, "epsilon", counting)
    sizes = np.random.default_rng(0).lognormal(5.5, 0.8, 10_000).astype(int).clip(20)
    made = study((1e9, "none"), training={"batch": batch, "batch_size": 10_000.0})
    found = plan_study(made, {f"h{k}": int(n) for k, n in enumerate(sizes)})
    rows = json.loads(json.dumps(found.to_json(), allow_nan=False))["rows"]
    per_hospital = [r for r in rows if r["mechanism"] in ("local", "alone", "distributed") and r["budget"] == 1e9]
    assert all(len(r["places"]) == 10_000 for r in per_hospital)
    # Four mechanisms look at up to 16 classes (noise_only at local's again), each with a few tries and a price.
    assert len(asked) <= 5 * 16 * 4
    assert len(set(asked)) <= 16 + 3


def test_a_delta_that_allows_giving_somebody_away_is_warned_of() -> None:
    made = study((8.0,), ("pooled", "local", "central"), privacy={"delta": 2e-4})
    notes = {m: " ".join(r["notes"]) for (m, _), r in rows_by_setting(made, SIZES).items()}
    # 1/4000 = 2.5e-4 is above delta, 1/5950 = 1.7e-4 below it, 1/4 above it.
    assert "Warning" in notes["pooled"]
    assert "1/5,950" in notes["pooled"]
    assert "Warning" not in notes["local"]
    assert "Warning" not in notes["central"]
    made = study((8.0,), ("local", "central"), privacy={"delta": 0.25})
    notes = {m: " ".join(r["notes"]) for (m, _), r in rows_by_setting(made, SIZES).items()}
    assert "1/4,000" in notes["local"]
    assert "4 hospitals" in notes["central"]


def test_what_cannot_be_is_a_row_with_a_reason_and_nothing_else_is_an_error() -> None:
    rows = rows_by_setting(study((8.0,), ("pooled", "distributed")), {"a": 300, "b": 200})
    assert "smallest_sum" in rows["distributed", 8.0]["why"]
    assert rows["pooled", 8.0]["epsilon"]["upper"] <= 8
    with pytest.raises(InputError, match="smallest_sum"):
        plan_study(study((8.0,), ("distributed",)), {"a": 300, "b": 200})
    with pytest.raises(InputError, match="at least one unit"):
        plan_study(study((8.0,)), {})
    with pytest.raises(InputError, match=r"training\.batch_size"):
        plan_study(study((8.0,)), {"a": 100, "b": 50})
    with pytest.raises(InputError, match=r"training\.cohort: 3"):
        plan_study(study((8.0,), training={"cohort": 3}), {"a": 100, "b": 500})
    with pytest.raises(InputError, match=r"study\.budgets: mechanism 'local'"):
        plan_study(study((), ("local",)), SIZES)
    rows = rows_by_setting(study((8.0,), ("local", "distributed"), privacy={"colluders": 4}), SIZES)
    assert "nobody is left" in rows["distributed", 8.0]["why"]


def test_the_settings_of_a_study_in_order_each_once() -> None:
    made = study(("none", 8, 1), ("local", "pooled", "alone", "noise_only", "none"))
    found = [(s.mechanism, s.budget) for s in settings_of(made)]
    assert found == [
        ("none", "none"),
        *[("local", 8), ("local", 1)],
        *[("pooled", "none"), ("pooled", 8), ("pooled", 1)],
        *[("alone", "none"), ("alone", 8), ("alone", 1)],
        ("noise_only", "none"),
    ]
    given = study((), ("local",), privacy={"mechanism": "local", "noise_multiplier": 1.5})
    assert [(s.mechanism, s.budget) for s in settings_of(given)] == [("local", None)]
    assert rows_by_setting(given, SIZES)["local", None]["noise_multiplier"] == {"min": 1.5, "max": 1.5}


# --- equal noise


def test_equal_noise_in_closed_form_at_full_participation() -> None:
    """q = 1: Gaussian, mu = sqrt(T)/s; local has sqrt(H) times the mu of pooled, distributed sqrt(H/(H-t-d)) times."""
    made = study((8.0,), training={"batch_size": None, "rounds": 9}, privacy={"dropouts": 1}).experiment
    rows = {r["mechanism"]: r for r in equal_noise_rows(made, SIZES, (8.0, "none"))}
    s, total = calibrated(8.0, 1e-5, 1.0, 9), sum(SIZES.values())
    assert all(r["noise_on_mean"] == pytest.approx(s * 0.5 / total) for r in rows.values())

    def gaussian(mu: float) -> float:
        return privacy.epsilon(noise_multiplier=1 / mu, sample_rate=1.0, steps=1, delta=1e-5).upper

    mu = 3 / s
    assert rows["pooled"]["epsilon_upper"] == pytest.approx(gaussian(mu))
    assert rows["local"]["epsilon_upper"] == pytest.approx(gaussian(mu * 2))
    assert rows["distributed"]["epsilon_upper"] == pytest.approx(gaussian(mu * math.sqrt(4 / 2)))
    # central: z S/(QH) = s C/B, so z = s C H/(B S); here C = S.
    z = s * 4 / total
    assert rows["central"]["noise_multiplier"] == pytest.approx(z)
    assert rows["central"]["epsilon_upper"] == pytest.approx(gaussian(3 / z))
    assert [rows[m]["protects"] for m in ("pooled", "local", "central")] == ["image", "image", "hospital"]
    assert "in law" in rows["local"]["note"]
    assert "not pooled's" in rows["central"]["note"]


@settings(deadline=None, max_examples=10)
@given(
    sizes=st.lists(st.integers(100, 3000), min_size=3, max_size=6),
    budget=st.sampled_from([2.0, 50.0, 1e6]),
    batch=st.sampled_from(["proportional", "equal"]),
    asked=st.sampled_from([None, 3]),
)
def test_equal_noise_priced_back(sizes: list[int], budget: float, batch: str, asked: int | None) -> None:
    """With its noise given, each mechanism's own plans have the noise on the mean and the price that the row says."""
    units = {f"h{k}": n for k, n in enumerate(sizes)}
    training = {"batch": batch, "batch_size": 30.0 * len(sizes), "rounds": 15, "cohort": asked}
    made = study((budget,), training=training).experiment
    rows = equal_noise_rows(made, units, (budget,))
    assert [r["mechanism"] for r in rows] == ["pooled", "local", "distributed", "central"]
    for row in rows:
        mechanism, noise = row["mechanism"], row["noise_multiplier"]
        experiment = at(made, Setting(mechanism, None), units, noise)
        if mechanism == "central":
            plan = central_plan(experiment, len(units))
            mean, steps, rate = plan.noise_on_mean, plan.steps, plan.sample_rate
        else:
            found = plans(experiment, *[{"pooled": sum(sizes)} if mechanism == "pooled" else units] * 2)
            mean, steps = noise_on_mean(experiment, found.values()), 15
            rate = max(p.sample_rate for p in found.values())
        assert mean == pytest.approx(row["noise_on_mean"])
        price = privacy.epsilon(noise_multiplier=noise, sample_rate=rate, steps=steps, delta=1e-5)
        assert price.upper == pytest.approx(row["epsilon_upper"])
    paid = {r["mechanism"]: r["epsilon_upper"] for r in rows}
    assert paid["pooled"] <= budget
    assert paid["pooled"] <= paid["distributed"] * (1 + 1e-9)
    assert (paid["distributed"] < paid["local"]) == ((asked or len(sizes)) > 2)
    law = batch == "proportional" or len(set(sizes)) == 1
    whole = asked in (None, len(sizes))
    assert ("in law with" in rows[1]["note"]) == (law and whole)


def test_no_equal_noise_with_several_local_steps_and_a_reason_for_what_cannot_be() -> None:
    made = study((8.0,), training={"local_steps": 2, "server_optimizer": "average"}).experiment
    assert equal_noise_rows(made, SIZES, (8.0,)) == []
    two = {r["mechanism"]: r for r in equal_noise_rows(study((8.0,)).experiment, {"a": 300, "b": 300}, (8.0,))}
    assert (two["distributed"]["epsilon_upper"], two["distributed"]["protects"]) == (None, None)
    assert "smallest_sum" in two["distributed"]["note"]
    assert two["local"]["epsilon_upper"] > 8


@pytest.mark.parametrize("mechanism", ["local", "distributed", "central"])
def test_equal_noise_is_the_same_whichever_cells_experiment_is_given(mechanism: str) -> None:
    made = study((8.0,))
    cell = at(made.experiment, Setting(mechanism, 1e3), SIZES).updated(  # pyright: ignore
        adversary={"placement": "aggregate" if mechanism == "distributed" else "server", "attacks": ["inversion"]}
    )
    assert equal_noise_rows(cell, SIZES, (8.0,)) == equal_noise_rows(made.experiment, SIZES, (8.0,))


# --- the command


def test_the_command_prints_json_alone_or_tables(capsys: pytest.CaptureFixture[str]) -> None:
    made = study((8.0, "none"))
    shown = io.StringIO()
    plan_command(made, SIZES, Console(file=shown, width=140), as_json=True)
    content = json.loads(capsys.readouterr().out)
    assert shown.getvalue() == ""
    assert (content["hospitals"], content["units"], content["unit"]) == (4, 5950, "image")
    assert len(content["rows"]) == 1 + 2 + 1 + 1 + 1 + 2 + 1 + 1
    plan_command(made, SIZES, Console(file=shown, width=140), as_json=False)
    assert capsys.readouterr().out == ""
    text = shown.getvalue()
    for words in ("4 hospitals, 5,950 images", "each other hospital", "not the server", "equal noise", "noise_only"):
        assert words in text


def test_sizes_come_from_the_deal_where_none_are_given() -> None:
    made = study(
        (8.0,),
        ("local",),
        task={"root": "phantom", "image_size": 16, "phantom_images": 240},
        hospitals={"partition": "iid", "count": 3},
        training={"batch_size": 20.0},
    )
    found = plan_study(made)
    assert sorted(found.units) == ["hospital-01", "hospital-02", "hospital-03"]
    assert 150 < sum(found.units.values()) < 240  # the rest is held out


@pytest.mark.parametrize("training", [{}, {"cohort": 3, "batch": "equal"}, {"batch_size": None, "cohort": 4}])
def test_a_plan_is_that_of_the_cells_the_study_runs(training: dict[str, Any]) -> None:
    """Every cell of the study itself, loaded and dealt, has the terms of the plan's row."""
    made = study(
        ("none", 8.0),
        task={"root": "phantom", "image_size": 16, "phantom_images": 240},
        hospitals={"partition": "size", "count": 5, "min_units": 15},
        training={"batch_size": 40.0, "rounds": 5, **training},
        privacy={"delta": 1e-3},
    )
    rows = {(r["mechanism"], r["budget"]): r for r in plan_study(made).to_json()["rows"]}
    run = cells(made)
    assert {(c.mechanism, c.budget) for c in run} == set(rows)
    for cell in run:
        places = {p["name"]: p for p in rows[cell.mechanism, cell.budget]["places"]}
        setup = prepare(cell.experiment)
        if cell.mechanism == "central":
            plan = central_plan(cell.experiment, len(setup.plans))
            (server,) = places.values()
            assert (server["noise_multiplier"], server["sample_rate"]) == (plan.noise_multiplier, plan.sample_rate)
            continue
        for name, own in setup.plans.items():
            assert places[name]["units"] == own.units
            assert places[name]["sample_rate"] == own.sample_rate
            if own.claims:
                assert (places[name]["noise_multiplier"], places[name]["noise_added"]) == (
                    own.noise_multiplier,
                    own.added,
                )
            elif cell.mechanism == "noise_only":  # nothing is clipped: the plan's noise is absolute
                assert places[name]["noise_added"] * 0.5 == own.noise_std
            else:
                assert (places[name]["noise_added"], own.added) == (None, 0)
        if cell.mechanism != "alone":
            mean = noise_on_mean(cell.experiment, setup.plans.values())
            assert rows[cell.mechanism, cell.budget]["noise_on_mean"]["max"] == pytest.approx(mean)
