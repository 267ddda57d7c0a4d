"""Replies that do not count are named and left out; what counts is aggregated to the bit in any order."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from configs import Experiment
from server.adversary.base import PublicTerms
from server.adversary.chair import Chair
from server.events import EventLog, read_events
from server.model import FlatModel
from server.optimizer import ServerOptimizer
from server.roster import Member
from server.secure_sum import SecureSum
from server.settings import ServerSettings
from server.strategy import HospitalStrategy
from simulation.engines.grid import LocalGrid
from simulation.engines.inline import InlineDispatcher
from tasks.models import ModelSpec

NAMES = ("a", "b", "c")
SPEC = ModelSpec("resnet9", (3, 16, 16), 1, 2)


@pytest.fixture
def world(small: Callable[..., Experiment], tmp_path: Path) -> dict[str, Any]:
    return make_world(small(training={"server_optimizer": "average", "learning_rate": 1.0, "quorum": 2}), tmp_path)


def make_world(experiment: Experiment, tmp_path: Path) -> dict[str, Any]:
    grid = LocalGrid(InlineDispatcher(), len(NAMES), tmp_path / "none.json")
    terms = PublicTerms(1.0, 0.0, 0.5, 1, 10.0, 0.0)
    members = {n: Member(n, node, 20, terms) for n, node in zip(NAMES, grid.get_node_ids(), strict=True)}
    settings = ServerSettings.of(experiment, tmp_path)
    model = FlatModel.fresh(SPEC, 1)
    optimizer = ServerOptimizer(experiment.training, model.initial)
    events = EventLog(tmp_path / "events.jsonl")
    chair = Chair(experiment.adversary, (), None, tmp_path)
    strategy = HospitalStrategy(settings, members, model, optimizer, chair, events)
    messages = {m.metadata.dst_node_id: m for m in strategy.configure_train(1, strategy.arrays(), ConfigRecord(), grid)}
    return {"strategy": strategy, "messages": messages, "members": members, "model": model, "events": events}


def update_of(world: dict[str, Any], name: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(ord(name))
    return {n: rng.standard_normal(v.shape) for n, v in world["model"].named(world["model"].initial).items()}


def reply(
    world: dict[str, Any], name: str, change: Callable[[dict[str, np.ndarray]], Any] | None = None, **record: Any
) -> Message:
    message: Message = world["messages"][world["members"][record.pop("sender", name)].node]
    update = update_of(world, name)
    if change is not None:
        change(update)
    head = ConfigRecord({"partition": 0, "hospital": name, "round": 1, "units": 20, **record})
    arrays = ArrayRecord({n: Array(v) for n, v in update.items()})
    return Message(RecordDict({"reply": head, "release": arrays}), reply_to=message)


def reasons(world: dict[str, Any]) -> list[str]:
    return [e["reason"] for e, _ in read_events(world["events"].path) if e["event"] == "declined"]


def test_any_order_of_replies_gives_the_same_bits_and_the_mean_gradient(world: dict[str, Any]) -> None:
    replies = [reply(world, n) for n in NAMES]
    start = world["model"].initial
    world["strategy"].aggregate_train(1, replies)
    forward = np.concatenate([v.ravel() for v in (a.numpy() for a in world["strategy"].arrays().values())])
    expected = np.zeros_like(start)
    for name in NAMES:
        rng = np.random.default_rng(ord(name))
        expected += np.concatenate([rng.standard_normal(v.shape).ravel() for v in world["model"].named(start).values()])
    assert np.allclose(forward, start - expected / 30.0, atol=1e-6)  # expected batch 10 each, step 1


def test_order_does_not_matter(world: dict[str, Any]) -> None:
    from copy import deepcopy

    first, second = deepcopy(world["strategy"]), deepcopy(world["strategy"])
    first.aggregate_train(1, [reply(world, n) for n in "abc"])
    second.aggregate_train(1, [reply(world, n) for n in "cab"])
    one, two = first.arrays(), second.arrays()
    assert all(one[n].numpy().tobytes() == two[n].numpy().tobytes() for n in one)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_secure_sum_takes_the_step_that_the_single_releases_would_have_taken(
    small: Callable[..., Experiment], tmp_path: Path, steps: int
) -> None:
    taken: dict[bool, bytes] = {}
    seen: dict[str, np.ndarray] = {}
    for secure in (False, True):
        training = {"server_optimizer": "average", "learning_rate": 1.0, "local_steps": steps, "secure_sum": secure}
        world = make_world(small(training=training), tmp_path / str(secure))
        releases = {n: {k: np.round(v, 9) for k, v in update_of(world, n).items()} for n in NAMES}
        factor = {n: 1.0 if steps == 1 else float(world["members"][n].units) for n in NAMES}
        if secure:
            total = {k: sum(factor[n] * releases[n][k] for n in NAMES) for k in releases["a"]}
            total["wide.units.bias"] = np.arange(3.0)  # an adversary's own parameters do not reach the model
            world["strategy"]._chair.observe_sum = lambda _, terms, release: seen.update(release)
            arrays, metrics = world["strategy"].aggregate_sum(1, SecureSum(NAMES, total, 3, 3))
            divisor = sum(factor.values()) if steps > 1 else 1.0
            assert all(np.array_equal(seen[name], value / divisor) for name, value in total.items())
        else:
            replies = [reply(world, n, lambda update, own=releases[n]: update.update(own)) for n in NAMES]
            arrays, metrics = world["strategy"].aggregate_train(1, replies)
        assert metrics["releases"] == 3
        taken[secure] = b"".join(arrays[name].numpy().tobytes() for name in sorted(arrays))
    assert taken[True] == taken[False]


def test_a_void_sum_moves_nothing(world: dict[str, Any]) -> None:
    before = world["strategy"].arrays()
    for void in (SecureSum((), {}, 2, 3), SecureSum(NAMES, {"fc.weight": np.zeros(3)}, 3, 3)):
        arrays, metrics = world["strategy"].aggregate_sum(1, void)
        assert arrays is None
        assert metrics["needed"] == 3
    after = world["strategy"].arrays()
    assert all(before[n].numpy().tobytes() == after[n].numpy().tobytes() for n in before)


def nan(update: dict[str, np.ndarray]) -> None:
    next(iter(update.values())).flat[0] = np.nan


def huge(update: dict[str, np.ndarray]) -> None:
    next(iter(update.values())).flat[0] = 1e300


def missing(update: dict[str, np.ndarray]) -> None:
    update.pop(next(iter(update)))


def reshaped(update: dict[str, np.ndarray]) -> None:
    name = next(iter(update))
    update[name] = update[name].ravel()


def single(update: dict[str, np.ndarray]) -> None:
    name = next(iter(update))
    update[name] = update[name].astype(np.float32)


@pytest.mark.parametrize(
    ("change", "record", "says"),
    [
        (nan, {}, "not finite"),
        (huge, {}, "magnitude"),
        (missing, {}, "missing"),
        (reshaped, {}, "float64"),
        (single, {}, "float32"),
        (None, {"round": 7}, "round 7"),
        (None, {"sender": "b"}, "not asked"),
        (None, {"declined": "busy"}, "busy"),
    ],
)
def test_a_reply_that_does_not_count_is_named_and_left_out(
    world: dict[str, Any], change: Any, record: dict[str, Any], says: str
) -> None:
    from copy import deepcopy

    without = deepcopy(world["strategy"])
    without.aggregate_train(1, [reply(world, "b"), reply(world, "c")])
    arrays, metrics = world["strategy"].aggregate_train(
        1, [reply(world, "b"), reply(world, "a", change, **record), reply(world, "c")]
    )
    assert metrics is not None
    assert metrics["releases"] == 2
    assert arrays is not None
    assert any(says in r for r in reasons(world))
    expected = without.arrays()
    assert all(arrays[n].numpy().tobytes() == expected[n].numpy().tobytes() for n in expected)


def test_a_second_release_of_a_round_does_not_count_twice_and_a_lost_quorum_moves_nothing(
    world: dict[str, Any],
) -> None:
    before = world["strategy"].arrays()
    arrays, metrics = world["strategy"].aggregate_train(1, [reply(world, "a"), reply(world, "a")])
    assert arrays is None
    assert metrics is not None
    assert metrics["releases"] == 1
    after = world["strategy"].arrays()
    assert all(before[n].numpy().tobytes() == after[n].numpy().tobytes() for n in before)
