"""What each seat may get: against the reference values of the paper's settings, and against closed forms."""

import json
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from typer.testing import CliRunner

import privacy
from configs import Experiment
from simulation.bounds import PAPER_BUDGETS, Seen, bound, experiment_bounds, paper_bounds, typical_norm
from simulation.cli import app
from simulation.setup import prepare

Make = Callable[..., Experiment]
LOCAL = {"mechanism": "local", "epsilon": 8, "delta": 1e-3}


def test_the_papers_settings_against_reference_values() -> None:
    rows = {(row.seen.who, budget): row for budget, row in paper_bounds(PAPER_BUDGETS[:4])}
    worst = {"HAM10000": (2.8e-4, 0.0122, 0.223, 0.636), "MSD Liver": (0.0166, 0.180, 0.742, 0.968)}
    relaxed = {"HAM10000": (1.3e-4, 4.3e-4, 0.0078, 0.069), "MSD Liver": (0.0098, 0.037, 0.274, 0.648)}
    for name, expected in worst.items():
        found = [rows[name, budget] for budget in PAPER_BUDGETS[:4]]
        assert [r.worst_case for r in found] == pytest.approx(expected, rel=0.02)
        assert [r.relaxed for r in found] == pytest.approx(relaxed[name], rel=0.025)
        assert all(r.epsilon is not None and r.epsilon < b for r, b in zip(found, PAPER_BUDGETS, strict=False))
        assert [r.epsilon_opacus_rdp for r in found] == pytest.approx(PAPER_BUDGETS[:4])


def test_full_participation_is_the_closed_form() -> None:
    row = bound(Seen("h", "all", 2.0, 1.0, 9, 50, pixels=300), 1e-5)
    assert row.worst_case == pytest.approx(ndtr(ndtri(1 / 50) + 1.5), rel=1e-9)
    assert row.participations == 9
    assert row.ncc == pytest.approx(1 / np.sqrt(1 + 300 * 4 / 9), rel=0.02)
    assert row.psnr is None  # no norm is known


@pytest.mark.parametrize(("training", "least"), [({"quorum": 1.0}, 4), ({}, 2), ({"cohort": 3, "quorum": 3}, 3)])
def test_the_sum_the_insider_and_the_pooled_twin(small: Make, training: dict[str, float], least: int) -> None:
    setup = prepare(small(privacy=LOCAL, training={**training, "batch": "equal", "batch_size": 20}))
    rows, notes = experiment_bounds(setup)
    assert not notes
    plans = setup.plans
    assert len({p.noise_multiplier for p in plans.values()}) > 1
    for name, plan in plans.items():
        mine = {r.seen.what: r for r in rows if r.seen.who == name}
        others = [p.noise_multiplier**2 for p in plans.values() if p.hospital != name]
        # The least noise over all sets of so many hospitals with this one in it, with and without an insider's share.
        sums = [sum(some) for some in combinations(others, least - 1)]
        whole = mine[f"the sum of {least} or more hospitals"]
        assert whole.seen.noise_multiplier == pytest.approx(np.sqrt(plan.noise_multiplier**2 + min(sums)))
        left = [sum(some) - taken for some in combinations(others, least - 1) for taken in some]
        insider = mine["that sum, by a hospital in it"]
        assert insider.seen.noise_multiplier == pytest.approx(np.sqrt(plan.noise_multiplier**2 + min(left)))
        everything, one = mine["all its releases"], mine["one release"]
        assert everything.epsilon == pytest.approx(8, rel=1e-4)
        assert one.seen.steps == 1
        assert one.worst_case < everything.worst_case
        assert whole.worst_case < insider.worst_case <= everything.worst_case
        assert everything.seen.candidates == plan.units
    twin = next(r for r in rows if r.seen.what == "all rounds, equal epsilon")
    assert twin.epsilon == pytest.approx(8, rel=1e-4)
    assert twin.seen.candidates == sum(p.units for p in plans.values())
    assert all(r.seen.candidates == 7 for r in experiment_bounds(setup, 7)[0])


def test_a_sum_that_may_hold_one_hospital_only_is_no_protection(small: Make) -> None:
    rows, notes = experiment_bounds(prepare(small(privacy=LOCAL, training={"cohort": 1})))
    assert not [r for r in rows if "sum" in r.seen.what]
    assert "single release" in notes[0]


def test_one_candidate_is_found() -> None:
    row = bound(Seen("h", "all", 5.0, 0.1, 3, 1), 1e-5)
    assert (row.worst_case, row.relaxed) == (1.0, 1.0)


def test_several_local_steps_have_no_sum_and_no_noise_claims_nothing(small: Make) -> None:
    steps = {"rounds": 2, "local_steps": 2, "server_optimizer": "average"}
    rows, notes = experiment_bounds(prepare(small(privacy=LOCAL, training=steps)))
    assert not [r for r in rows if "sum" in r.seen.what]
    assert "2 local steps" in notes[0]
    assert {r.seen.steps for r in rows if r.seen.what == "one release"} == {2}
    bare, _ = experiment_bounds(prepare(small(privacy={"mechanism": "clip_only"})))
    assert all(r.epsilon is None for r in bare)
    for row in bare:
        miss = (1 - row.seen.sample_rate) ** row.seen.steps
        assert row.worst_case == pytest.approx(1 - miss * (1 - 1 / row.seen.candidates))
    nothing, why = experiment_bounds(prepare(small(privacy={"mechanism": "noise_only", "noise_multiplier": 1.0})))
    assert nothing == []
    assert "clipping" in why[0]


def test_typical_norm_is_the_median_of_the_images(small: Make) -> None:
    setup = prepare(small())
    pixels = setup.heldout.pixels().astype(np.float64) / 255
    norms = np.sqrt(np.sum(pixels**2, axis=(1, 2, 3)))
    assert typical_norm(setup, 10**6) == pytest.approx(np.median(norms), rel=1e-6)


def test_command_line() -> None:
    run = CliRunner().invoke(
        app, ["bounds", "--noise-multiplier", "0.62", "--prior", "100", "--pixels", "3072", "--json"]
    )
    assert run.exit_code == 0
    row = json.loads(run.stdout)["bounds"][0]
    assert row["worst_case"] == pytest.approx(ndtr(ndtri(0.01) + 1 / 0.62))
    assert row["epsilon"] == pytest.approx(
        privacy.epsilon(noise_multiplier=0.62, sample_rate=1.0, steps=1, delta=1e-5).upper
    )
    unclaimed = CliRunner().invoke(app, ["bounds", "--noise-multiplier", "0", "--json"])
    assert json.loads(unclaimed.stdout)["bounds"][0]["epsilon"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give one of"),
        (["demo", "--paper"], "give one of"),
        (["demo", "--delta", "0.1"], "--delta"),
        (["--paper", "--pixels", "12"], "--pixels"),
        (["--noise-multiplier", "-1"], "noise_multiplier"),
        (["--noise-multiplier", "1", "--sample-rate", "2"], "sample_rate"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], words: str) -> None:
    run = CliRunner().invoke(app, ["bounds", *arguments])
    assert words in str(run.exception)
