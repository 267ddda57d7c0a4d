"""The audit runs the hospital's own code: honest it stays below the ledger, planted faults are caught seed by seed."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from clients import local
from clients.gradients import GradientEngine
from clients.planning import Plan, calibrated
from clients.sampling import Draw
from configs import Experiment, InputError, RunStoppedError
from configs.sections import TrainingSettings
from privacy.audit import one_run_bound
from simulation.auditing import TESTS, Audit, audit_plan
from simulation.canaries import LOUD, QUIET, WEIGHT, CanaryModel, audit_records
from simulation.cli_audit import audit

DELTA = 1e-5
LEVEL = 0.01 / TESTS
SEEDS = range(200, 210)
noisy_sum, draws_of_round = local.noisy_sum, local.draws_of_round


def plan_of(epsilon: float, rate: float, steps: int, clip: float = 1.0) -> Plan:
    noise = calibrated(epsilon, DELTA, rate, steps)
    return Plan("somewhere", 900, 900, rate, 900 * rate, clip, noise, noise, steps, True)


SAMPLED = plan_of(8.0, 0.1, 20)
WHOLE = plan_of(2.0, 1.0, 1)


def run(plan: Plan, seed: int, canaries: int = 1500, training: TrainingSettings | None = None) -> Audit:
    return audit_plan(plan, training or TrainingSettings(), delta=DELTA, canaries=canaries, seed=seed)


def halved(engine: GradientEngine, records: object, drawn: Draw, plan: Plan, seed: int) -> Tensor:
    weaker = replace(plan, added=plan.added / 2)
    return noisy_sum(engine, records, drawn, weaker, seed)  # type: ignore[arg-type]


def forgotten_on_empty(engine: GradientEngine, records: object, drawn: Draw, plan: Plan, seed: int) -> Tensor:
    silent = replace(plan, added=0.0) if len(drawn.rows) == 0 else plan
    return noisy_sum(engine, records, drawn, silent, seed)  # type: ignore[arg-type]


def per_batch(engine: GradientEngine, images: Tensor, labels: Tensor, groups: Tensor, clipping_norm: float) -> Tensor:
    total = engine.plain_sum(images, labels)
    return total * min(1.0, clipping_norm * len(groups.unique()) / max(float(total.norm()), 1e-300))


def fixed_batches(*arguments: object, **keywords: object) -> Iterator[Draw]:
    """Draw exactly q n units: every unit of the whole draw has the same chance, without replacement."""
    root, plan, training, round_number, unit_rows = arguments
    whole = replace(plan, sample_rate=1.0)  # type: ignore[type-var]
    for drawn in draws_of_round(root, whole, training, round_number, unit_rows, **keywords):  # type: ignore[arg-type]
        size = round(plan.sample_rate * len(drawn.units))  # type: ignore[attr-defined]
        rng = np.random.default_rng([round_number, len(drawn.units)])  # type: ignore[list-item]
        chosen = np.sort(rng.choice(len(drawn.units), size=size, replace=False))
        views = np.isin(drawn.groups, chosen)
        groups = np.searchsorted(chosen, drawn.groups[views])
        yield replace(
            drawn, units=drawn.units[chosen], rows=drawn.rows[views], groups=groups, views=drawn.views.take(views)
        )


def test_honest_code_is_refuted_at_no_seed_and_bounds_stay_below_the_ledger() -> None:
    for seed in SEEDS:
        found = run(SAMPLED, seed)
        assert found.refuted == ()
        assert 0 < found.one_run_epsilon < found.curve_epsilon <= found.claimed.upper <= 8
        assert abs(found.noise_ratio - 1) < 0.05


@pytest.mark.parametrize(
    "plan",
    [plan_of(0.5, 0.3, 10), plan_of(3.0, 0.02, 60), plan_of(8.0, 1.0, 5), plan_of(30.0, 0.5, 8), plan_of(1e6, 0.1, 9)],
    ids=lambda p: f"s={p.noise_multiplier:.3g} q={p.sample_rate:g} T={p.steps}",
)
def test_bounds_stay_below_the_ledger_wherever_it_is_honest(plan: Plan) -> None:
    found = run(plan, 7, canaries=1000)
    assert max(found.one_run_epsilon, found.curve_epsilon) <= found.claimed.upper
    assert found.refuted == ()


def test_the_curve_bound_is_close_to_the_ledger() -> None:
    found = run(plan_of(8.0, 1.0, 1), 1, canaries=4000)
    assert 0.75 * found.claimed.upper < found.curve_epsilon <= found.claimed.upper


def test_halved_noise_is_caught_at_nine_of_ten_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "noisy_sum", halved)
    found = [run(SAMPLED, seed) for seed in SEEDS]
    assert sum(f.curve_epsilon > f.claimed.upper for f in found) >= 9
    assert all(f.noise_p < LEVEL and abs(f.noise_ratio - 0.5) < 0.05 for f in found)
    assert all(f.dispersion_p > LEVEL for f in found)


@pytest.mark.parametrize("plan", [SAMPLED, WHOLE], ids=["epsilon 8", "epsilon 2"])
def test_clipping_per_batch_is_caught_at_nine_of_ten_seeds(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    monkeypatch.setattr(GradientEngine, "clipped_sum", per_batch)
    found = [run(plan, seed, canaries=3000) for seed in SEEDS]
    assert sum(f.curve_epsilon > f.claimed.upper for f in found) >= 9
    assert all(f.refuted for f in found)
    if plan is WHOLE:  # the one-run bound alone: it cannot exceed about ln(r/6) and reaches low claims only
        assert sum(f.one_run_epsilon > f.claimed.upper for f in found) >= 9


def test_sampling_without_replacement_is_caught_by_dispersion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "draws_of_round", fixed_batches)
    for seed in SEEDS:
        found = run(SAMPLED, seed)
        assert found.dispersion_p < LEVEL
        assert found.dispersion is not None
        assert found.dispersion < 0.05
        assert len(found.refuted) == 1


def test_noise_forgotten_on_empty_batches_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "noisy_sum", forgotten_on_empty)
    found = run(SAMPLED, 3)
    assert found.noise_p == 0.0
    assert "noise is 0 of what was planned" in found.refuted[0]


def test_canaries_have_orthogonal_gradients_of_the_clipping_norm() -> None:
    clip, coins = 0.3, np.array([True, False, True, True])
    records = audit_records(coins, ordinary=2)
    model = CanaryModel(len(coins), clip)
    engine = GradientEngine(model, "binary")
    engine.load(model.zeros())
    images, labels = torch.from_numpy(records.pixels()), torch.from_numpy(records.labels)
    got = engine.clipped_sum(images, labels, torch.arange(5), clip)
    assert got.tolist() == pytest.approx([clip, 0, clip, clip, 2 * QUIET * clip], rel=1e-6, abs=1e-12)
    raw = engine.plain_sum(images, labels)
    assert raw.tolist() == pytest.approx([LOUD * clip, 0, LOUD * clip, LOUD * clip, 2 * QUIET * clip], rel=1e-5)


def test_names_of_canaries_survive_bytes_and_views() -> None:
    coins = np.ones(70_000, dtype=bool)
    records = audit_records(coins, ordinary=1)
    pick = np.array([0, 255, 256, 65_535, 65_536, 69_999])
    model = CanaryModel(len(coins), 1.0)
    with torch.no_grad():
        model.head.weight.copy_(torch.arange(70_001.0)[None])
    said = model(torch.from_numpy((records.pixels(pick) / 255.0 - 0.5) / 0.25).float()).ravel() / (2 * LOUD)
    assert said.tolist() == pytest.approx(pick.tolist(), rel=1e-6, abs=1e-6)
    assert model.counted() == 6
    assert model.counted() == 0


def test_views_flips_and_shifts_change_no_batch_size_and_no_bound_beyond_chance() -> None:
    training = TrainingSettings(views=3, flips=0.5, shift=2)
    found = run(SAMPLED, 11, training=training)
    plain = run(SAMPLED, 11)
    assert found.refuted == ()
    assert found.dispersion == plain.dispersion
    assert found.correct == plain.correct


def test_the_clipping_norm_is_only_a_unit() -> None:
    one, other = run(plan_of(8.0, 0.1, 20), 5), run(plan_of(8.0, 0.1, 20, clip=1e-3), 5)
    assert (one.correct, one.guesses) == (other.correct, other.guesses)


def test_the_number_of_guesses_does_not_look_at_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    before = run(SAMPLED, 4).guesses
    monkeypatch.setattr(local, "noisy_sum", halved)
    after = run(SAMPLED, 4)
    assert after.guesses == before
    again = one_run_bound(
        canaries=1500, guesses=after.guesses, correct=after.correct, delta=DELTA, confidence=1 - LEVEL
    )
    assert after.one_run_epsilon == again


def test_fewer_steps_than_planned_are_priced_as_such() -> None:
    found = audit_plan(SAMPLED, TrainingSettings(), delta=DELTA, canaries=500, steps=4, seed=0)
    assert (found.steps, found.planned_steps) == (4, 20)
    assert found.claimed.upper < 8
    with pytest.raises(ValueError, match="claims no epsilon"):
        audit_plan(replace(SAMPLED, claims=False), TrainingSettings(), delta=DELTA)
    with pytest.raises(ValueError, match="canaries"):
        audit_plan(SAMPLED, TrainingSettings(), delta=DELTA, canaries=3)


COMMAND = [
    *("task.image_size=16", "task.width=4", "task.phantom_images=240", "training.rounds=8"),
    *("training.batch_size=48", "privacy.mechanism=local", "privacy.epsilon=8"),
]


def test_the_command_prints_one_document_and_refutes_with_code_3(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    audit("demo", COMMAND, canaries=1500, steps=500, seed=1, as_json=True)
    content = json.loads(capsys.readouterr().out)
    assert content["verdict"] == "no contradiction found"
    assert content["one_run_epsilon"] < content["claimed"]["upper"] <= 8
    assert content["steps"] == 8
    assert Experiment().privacy.delta != content["delta"] == 1e-5  # the configuration's
    monkeypatch.setattr(local, "noisy_sum", halved)
    with pytest.raises(RunStoppedError, match="refuted") as stopped:
        audit("demo", COMMAND, canaries=1500, steps=500, seed=1, as_json=False)
    assert stopped.value.exit_code == 3
    shown = capsys.readouterr()
    assert "Verdict: the claim is refuted" in shown.err
    assert shown.out == ""


def test_the_command_refuses_what_it_cannot_audit() -> None:
    with pytest.raises(InputError, match=r"privacy\.mechanism"):
        audit("demo", COMMAND[:-2], canaries=1500, steps=5, seed=1)
    with pytest.raises(InputError, match="--hospital nowhere"):
        audit("demo", COMMAND, hospital="nowhere", canaries=1500, steps=5, seed=1)


def test_weights_are_where_the_audit_reads() -> None:
    assert list(CanaryModel(3, 1.0).zeros()) == [WEIGHT] == GradientEngine(CanaryModel(3, 1.0), "binary").names
    assert "opacus" in sys.modules  # the real hooks, not a stand-in
