"""Mechanism central: what one hospital can change, what is charged, and that who came does not show."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st

import privacy
from configs import Experiment, InputError
from privacy import BudgetExhaustedError, Ledger
from server.adversary.base import PublicTerms
from server.adversary.chair import Chair
from server.central import CentralNoise, CentralPlan, central_plan, ledger_of
from server.checkpoints import read_arrays
from server.events import EventLog, read_events
from server.model import FlatModel
from server.optimizer import ServerOptimizer
from server.roster import Member
from server.settings import ServerSettings
from server.strategy import HospitalStrategy
from simulation.engines.grid import LocalGrid
from simulation.engines.inline import InlineDispatcher
from simulation.run import simulate
from tasks.models import ModelSpec

Make = Callable[..., Experiment]
NAMES = tuple("abcdefgh")
SPEC = ModelSpec("resnet9", (3, 16, 16), 1, 2)
BATCHES = {n: 5.0 + k for k, n in enumerate(NAMES)}
S, Z = 0.25, 0.5
A, B = "a" * 64, "b" * 64
ZEROS = np.zeros(2000)


def noise(tmp_path: Path, steps: int = 3) -> CentralNoise:
    return CentralNoise(CentralPlan(Z, 1.0, steps, S, 4.0), "root", "run", tmp_path)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_no_update_is_longer_than_the_bound_and_short_ones_are_left_alone(values: list[float]) -> None:
    central = CentralNoise.__new__(CentralNoise)
    central.plan = CentralPlan(Z, 1.0, 1, S, 4.0)
    update = np.array(values)
    clipped = central.clipped(update)
    assert np.linalg.norm(clipped) <= S * (1 + 1e-12)
    if np.linalg.norm(update) <= S:
        assert np.array_equal(clipped, update)
    else:
        assert np.allclose(clipped / S, update / np.linalg.norm(update))


def test_what_is_not_finite_counts_as_nothing_and_a_round_does_not_depend_on_it(small: Make, tmp_path: Path) -> None:
    assert not noise(tmp_path / "x").clipped(np.array([1.0, np.nan])).any()
    there = world(small, tmp_path, {}, {"quorum": 1.0})
    replies = [reply(there, n, np.inf if n == "c" else 1.0) for n in NAMES]
    arrays, metrics = there["strategy"].aggregate_train(1, replies)
    assert arrays is not None
    assert metrics["releases"] == len(NAMES)
    assert np.isfinite(there["optimizer"].weights).all()


def test_the_ledger_is_charged_first_and_the_budget_ends(tmp_path: Path) -> None:
    central = noise(tmp_path, steps=2)
    zeros = np.zeros(10)
    first = central.mean(1, zeros, ["a"], A)
    # Made again after a crash: the same, free, and whoever answers then: two means would average the noise away.
    assert np.array_equal(first, central.mean(1, zeros, ["a"], A))
    assert np.array_equal(first, noise(tmp_path, steps=2).mean(1, zeros + 0.1, ["a", "b"], A))
    with pytest.raises(privacy.RepeatedRoundError):
        central.mean(1, zeros, ["a"], B)
    central.mean(2, zeros, ["a"], A)
    with pytest.raises(BudgetExhaustedError):
        central.mean(3, zeros, ["a"], A)
    ledger = Ledger.open(ledger_of(tmp_path))
    assert ledger.steps() == 2
    # q = 1: the closed form of the Gaussian mechanism with mu = sqrt(2) / z
    gaussian = privacy.epsilon(noise_multiplier=Z / math.sqrt(2), sample_rate=1.0, steps=1, delta=1e-5)
    assert ledger.price(1e-5).upper == pytest.approx(gaussian.upper, rel=1e-6)


def test_two_sums_never_meet_the_same_noise(tmp_path: Path) -> None:
    """The same settings over other data: the difference of equal noises would be the data, bare."""
    one, two = (noise(tmp_path / name).mean(1, total, ["a"], A) for name, total in (("x", ZEROS), ("y", ZEROS + 1e-9)))
    apart = one - two
    assert np.std(apart) == pytest.approx(math.sqrt(2) * Z * S / 4.0, rel=0.1)


def test_the_plan_reaches_its_budget_and_counts_rounds_not_steps(small: Make) -> None:
    made = small(
        training={"rounds": 5, "local_steps": 3},
        privacy={"mechanism": "central", "epsilon": 4.0, "delta": 1e-2, "update_norm": 2.0},
    )
    plan = central_plan(made, 12)
    assert (plan.steps, plan.sample_rate, plan.update_bound, plan.expected) == (5, 1.0, 2.0, 12.0)
    price = privacy.epsilon(noise_multiplier=plan.noise_multiplier, sample_rate=1.0, steps=5, delta=1e-2)
    assert 3.99 < price.upper <= 4.0
    drawn = made.updated(hospitals={"partition": "iid", "count": 12}, training={"cohort": 3})
    fewer = central_plan(drawn, 12)
    assert (fewer.sample_rate, fewer.expected) == (0.25, 3.0)
    assert fewer.noise_multiplier < plan.noise_multiplier


def world(small: Make, tmp_path: Path, privacy: dict[str, Any], training: dict[str, Any]) -> dict[str, Any]:
    experiment = small(
        hospitals={"partition": "iid", "count": len(NAMES)},
        training={"server_optimizer": "average", "learning_rate": 1.0, **training},
        privacy={"mechanism": "central", "noise_multiplier": Z, "update_norm": S, **privacy},
    )
    grid = LocalGrid(InlineDispatcher(), len(NAMES), tmp_path / "none.json")
    members = {
        n: Member(n, node, 20, PublicTerms(None, 0.0, 0.5, 1, BATCHES[n], 0.0))
        for n, node in zip(NAMES, grid.get_node_ids(), strict=True)
    }
    settings = ServerSettings.of(experiment, tmp_path)
    model = FlatModel.fresh(SPEC, 1)
    optimizer = ServerOptimizer(experiment.training, model.initial)
    chair = Chair(experiment.adversary, (), None, tmp_path)
    strategy = HospitalStrategy(settings, members, model, optimizer, chair, EventLog(tmp_path / "events.jsonl"))
    messages = {m.metadata.dst_node_id: m for m in strategy.configure_train(1, strategy.arrays(), ConfigRecord(), grid)}
    return {"strategy": strategy, "messages": messages, "members": members, "model": model, "optimizer": optimizer}


def update_of(there: dict[str, Any], name: str, scale: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(ord(name))
    shapes = there["model"].named(there["model"].initial)
    return {n: scale * rng.standard_normal(v.shape) for n, v in shapes.items()}


def reply(there: dict[str, Any], name: str, scale: float) -> Message:
    message: Message = there["messages"][there["members"][name].node]
    head = ConfigRecord({"partition": 0, "hospital": name, "round": 1, "units": 20})
    arrays = ArrayRecord({n: Array(v) for n, v in update_of(there, name, scale).items()})
    return Message(RecordDict({"reply": head, "release": arrays}), reply_to=message)


def test_the_step_is_the_mean_of_clipped_mean_gradients_over_a_constant(small: Make, tmp_path: Path) -> None:
    """Two hospitals of eight did not answer: the sum is still divided by eight."""
    there = world(small, tmp_path, {"noise_multiplier": 1e-9}, {"quorum": 0.5})
    came = NAMES[:6]
    scales = {n: 1e-4 if k % 2 else 10.0 for k, n in enumerate(came)}  # some short, some to be clipped
    arrays, metrics = there["strategy"].aggregate_train(1, [reply(there, n, scales[n]) for n in came])
    assert arrays is not None
    assert (metrics["releases"], metrics["needed"]) == (6, 4)
    expected = np.zeros(there["model"].size)
    lengths = []
    for name in came:
        mean = there["model"].flat(update_of(there, name, scales[name])) / BATCHES[name]
        length = np.linalg.norm(mean)
        lengths.append(length)
        expected += mean if length <= S else mean / length * S
    assert min(lengths) < S < max(lengths)
    moved = there["model"].initial - there["optimizer"].weights
    assert np.allclose(moved, expected / 8, rtol=0, atol=1e-7)


def test_one_hospital_moves_the_step_by_no_more_than_its_share(small: Make, tmp_path: Path) -> None:
    steps = []
    for number, came in enumerate((NAMES, NAMES[1:])):
        there = world(small, tmp_path / str(number), {"noise_multiplier": 1e-9}, {})
        there["strategy"].aggregate_train(1, [reply(there, n, 50.0) for n in came])
        steps.append(there["optimizer"].weights)
    assert np.linalg.norm(steps[0] - steps[1]) == pytest.approx(S / 8, rel=1e-6)


def test_a_cohort_is_drawn_hospital_by_hospital(small: Make, tmp_path: Path) -> None:
    """Independent draws, as the amplification by sampling assumes: sizes vary binomially, also to none."""
    there = world(small, tmp_path, {}, {"cohort": 2, "rounds": 2000})
    sizes = np.array([len(there["strategy"].cohort(r)) for r in range(1, 2001)])
    assert sizes.mean() == pytest.approx(2.0, abs=5 * math.sqrt(8 * 0.25 * 0.75 / 2000))
    assert sizes.var() == pytest.approx(8 * 0.25 * 0.75, rel=0.15)
    assert sizes.min() == 0
    empty = int(np.argmin(sizes)) + 1
    arrays, metrics = there["strategy"].aggregate_train(empty, [])
    assert arrays is not None  # nobody was drawn: a step of noise, charged like any other
    assert (metrics["releases"], metrics["needed"]) == (0, 0)
    assert Ledger.open(ledger_of(tmp_path)).steps() == 1


def test_a_run_is_priced_by_the_servers_ledger_and_hospitals_claim_nothing(small: Make, tmp_path: Path) -> None:
    made = small(
        hospitals={"partition": "iid", "count": 6},
        training={"rounds": 4, "cohort": 3},
        privacy={"mechanism": "central", "epsilon": 5.0, "delta": 1e-2},
    )
    run = simulate(made, tmp_path / "run", report=False)
    row = run.summary["central"]
    assert row["unit"] == "hospital"
    assert row["steps"] == 4
    assert 4.9 < row["epsilon"]["upper"] <= 5.0
    # Known to have been asked k times: the Gaussian of k rounds. Without cohorts a changed update moves the sum by 2 S.
    often = max(h["releases"] for h in run.summary["hospitals"])
    z = row["noise_multiplier"]
    asked = privacy.epsilon(noise_multiplier=z / math.sqrt(often), sample_rate=1.0, steps=1, delta=1e-2)
    assert row["epsilon_if_known"]["upper"] == pytest.approx(asked.upper, rel=1e-6)
    assert row["epsilon_of_a_change"] is None
    whole = simulate(made.updated(training={"cohort": None}), tmp_path / "whole", report=False).summary["central"]
    change = privacy.epsilon(noise_multiplier=whole["noise_multiplier"] / 4, sample_rate=1.0, steps=1, delta=1e-2)
    assert whole["epsilon_of_a_change"]["upper"] == pytest.approx(change.upper, rel=1e-6)
    assert whole["epsilon_if_known"] is None
    assert all(h["epsilon"] is None and h["noise_added"] == 0 for h in run.summary["hospitals"])
    asked = [len(e["asked"]) for e, _ in read_events(run.folder / "events.jsonl") if e["event"] == "round"]
    assert len(asked) == 4
    again = simulate(made, tmp_path / "again", report=False)
    first, second = (read_arrays(r.folder / "model.safetensors")[0] for r in (run, again))
    assert all(np.array_equal(first[n], second[n]) for n in first)


def test_a_budget_that_no_noise_reaches_is_said_at_once(small: Make, tmp_path: Path) -> None:
    for mechanism in ("central", "local"):
        made = small(privacy={"mechanism": mechanism, "epsilon": 1e-9, "delta": 1e-300})
        with pytest.raises(InputError, match=r"privacy\.epsilon: no noise reaches epsilon 1e-09"):
            simulate(made, tmp_path / "run", report=False)
    assert not (tmp_path / "run").exists()
