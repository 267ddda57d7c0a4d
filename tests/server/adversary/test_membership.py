"""Membership inference: confidences against torch's own, an overfitted model, and the figures of its scorer."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from configs import Experiment, RunStoppedError
from configs.adversary import AdversarySettings, MembershipSettings
from server.adversary.base import (
    Candidates,
    MissingCapabilityError,
    Observation,
    PublicData,
    PublicTerms,
    Trace,
    require,
)
from server.adversary.membership import MembershipInference, logit_confidence
from server.adversary.placements import PLACEMENTS
from server.adversary.registry import attack
from server.adversary.views import load_view
from simulation import attack_members
from simulation.attack_members import auc_delong, epsilon_from_pairs, score_members, tpr_at
from simulation.attacking import Case
from simulation.folder import RunFolder
from simulation.pictures import Pictures
from simulation.pools import make_pools, targets_of
from simulation.run import simulate
from simulation.setup import prepare
from tasks.models import ModelSpec, build, initial_weights, load_weights, normalise
from tests.server.adversary.hospital import images

Make = Callable[..., Experiment]

SPEC = ModelSpec("resnet9", (3, 16, 16), 1, 4)
DENSE = ModelSpec("unet", (1, 16, 16), 3, 2)
TERMS = PublicTerms(None, 0.0, 1.0, 1, 32.0, 0.0)


def trained(spec: ModelSpec, pictures: np.ndarray, targets: np.ndarray, steps: int) -> Trace:
    """A model fitted to a few images by torch's Adam, as the one that was handed out."""
    start = initial_weights(spec, 3)
    model = build(spec)
    load_weights(model, start)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    labels = torch.from_numpy(targets)
    for _ in range(steps):
        optimizer.zero_grad()
        logits = model(normalise(torch.from_numpy(pictures)))
        if spec.dense:
            loss = torch.nn.functional.cross_entropy(logits, labels)
        else:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
        loss.backward()
        optimizer.step()
    after = dict(model.named_parameters())
    release = {name: (after[name].detach() - start[name]).double().numpy() for name in after}
    weights = {name: value.numpy() for name, value in start.items()}
    return Trace.of(Observation(steps, "all", spec, weights, release, TERMS, rounds=tuple(range(1, steps + 1))))


def test_confidence_is_the_log_odds_of_the_label() -> None:
    logits, labels = torch.randn(20, 5, dtype=torch.float64), torch.arange(20) % 5
    p = torch.softmax(logits, dim=1)[torch.arange(20), labels]
    torch.testing.assert_close(logit_confidence(logits, labels), torch.log(p / (1 - p)))
    p = torch.sigmoid(logits[:, 0])
    own = torch.where(labels % 2 == 1, p, 1 - p)
    torch.testing.assert_close(logit_confidence(logits[:, :1], labels % 2), torch.log(own / (1 - own)))
    sure = logit_confidence(torch.tensor([[900.0, -900.0]]), torch.tensor([0]))  # no rounding to infinity
    assert sure.item() == pytest.approx(1800)


@pytest.mark.parametrize("spec", [SPEC, DENSE], ids=["classes", "masks"])
def test_images_that_were_fitted_are_told_from_others(spec: ModelSpec) -> None:
    pictures = images(11, 128, 16)[:, : spec.shape[0]]
    rng = np.random.default_rng(0)
    shape = (128, 16, 16) if spec.dense else 128
    targets = rng.integers(0, 3 if spec.dense else 2, shape)  # noise: nothing but memory explains it
    members, others = slice(0, 32), slice(32, 64)
    trace = trained(spec, pictures[members], targets[members], steps=60)
    public = PublicData(pictures[64:], "others", targets[64:])
    lira = MembershipInference(MembershipSettings(shadows=4, steps=20))
    found = [lira.informed(trace, public, Candidates(pictures[p], targets[p])) for p in (members, others)]
    assert found[0] is not None
    assert found[1] is not None
    assert auc_delong(found[0], found[1])[0] > 0.9
    null = [lira.untrained(trace, Candidates(pictures[p], targets[p])) for p in (members, others)]
    assert null[0] is not None
    assert null[1] is not None
    assert abs(auc_delong(null[0], null[1])[0] - 0.5) < 0.25
    fresh = MembershipInference(MembershipSettings(shadows=4, steps=20))
    again = fresh.informed(trace, public, Candidates(pictures[others], targets[others]))
    np.testing.assert_array_equal(again, found[1])


def test_it_says_what_it_cannot_and_reads_nothing_but_the_final_model() -> None:
    lira = attack("membership", AdversarySettings())
    for name, seat in PLACEMENTS.items():
        if name == "release":
            require(lira, name, seat.capabilities)
        else:
            with pytest.raises(MissingCapabilityError, match="the final model"):
                require(lira, name, seat.capabilities)
    pictures, labels = images(1, 8, 16), np.arange(8) % 2
    trace = trained(SPEC, pictures, labels, steps=1)
    assert lira.informed(trace, PublicData(pictures, "no labels"), Candidates(pictures, labels)) is None
    assert lira.informed(trace, PublicData(pictures, "labels", labels), Candidates(pictures)) is None
    assert lira.informed(trace, PublicData(pictures[:3], "few", labels[:3]), Candidates(pictures, labels)) is None


def test_the_area_and_its_interval() -> None:
    rng = np.random.default_rng(0)
    truth = 0.7602  # Phi(1 / sqrt 2)
    covered = 0
    for _ in range(200):
        inside, outside = rng.normal(1, 1, 40), rng.normal(0, 1, 60)
        auc, (low, high) = auc_delong(inside, outside)
        both = np.concatenate([inside, outside])
        assert auc == pytest.approx(roc_auc_score(np.arange(100) < 40, both))
        covered += low <= truth <= high
    assert binom.sf(covered - 1, 200, 0.99) > 1e-3  # not too wide
    assert binom.cdf(covered, 200, 0.92) > 1e-3  # nor too narrow
    ties, _ = auc_delong(np.zeros(4), np.zeros(6))
    assert ties == 0.5


def test_the_true_positive_rate_and_its_exact_p_value() -> None:
    outside = np.arange(100.0)
    assert tpr_at(np.array([89.5, 89.0, 95.5, 200.0]), outside, 0.1)[0] == 0.75  # ten exceed 89
    assert tpr_at(np.array([98.5, 99.5, 98.0, 0.0]), outside, 0.01)[0] == 0.5  # one exceeds 98
    assert tpr_at(np.array([5.0, 6.0]), np.array([5.0, 5.0]), 0.0)[0] == 0.5
    rng = np.random.default_rng(1)
    scores = rng.random((1500, 2, 15))
    rates, p = np.array([tpr_at(one, other, 0.2) for one, other in scores]).T
    for level in (0.01, 0.05, 0.2):
        assert binom.sf(np.count_nonzero(p <= level) - 1, 1500, level) > 1e-4
    for rate in (1 / 3, 0.6):  # exact: the chance of a rate as large is the p-value itself
        here = np.isclose(rates, rate)
        expected = p[here][0]
        assert np.mean(rates >= rate - 1e-9) == pytest.approx(expected, abs=4 * np.sqrt(expected / 1500))


def test_the_bound_on_epsilon_is_below_the_truth_and_rises_with_it() -> None:
    """Scores of randomised response at a known epsilon: the bound exceeds it as rarely as it says."""
    rng = np.random.default_rng(2)
    for epsilon in (0.0, 1.0, 3.0):
        tell = np.exp(epsilon) / (1 + np.exp(epsilon))
        found = []
        for seed in range(40):
            truthful = rng.random((2, 300)) < tell
            inside, outside = truthful[0] + 1e-3 * rng.random(300), ~truthful[1] + 1e-3 * rng.random(300)
            found.append(epsilon_from_pairs(inside, outside, delta=1e-6, confidence=0.95, seed=seed))
        above = int(np.count_nonzero(np.array(found) > epsilon + 1e-9))
        assert binom.sf(above - 1, 40, 0.05) > 1e-4
        assert epsilon < 3 or np.median(found) > 1.0
    assert epsilon_from_pairs(np.ones(7), np.zeros(7), delta=1e-6, confidence=0.95, seed=0) == 0.0
    assert epsilon_from_pairs(np.ones(200), np.zeros(200), delta=0.0, confidence=0.95, seed=0) > 3


def case_of(small: Make, folder: Path, **sections: dict[str, Any]) -> Case:
    """A live run watched from its final model, with labelled public images."""
    seat = {"placement": "release", "attacks": ["membership"], "membership": {"shadows": 3, "steps": 6}}
    experiment = small(adversary={**seat, "targets": 12}, **sections).with_seed(3)
    done = simulate(experiment, folder / "run", report=False)
    setup, pools = prepare(experiment), None
    pools = make_pools(setup)
    (trace,) = load_view(done.folder / "views", experiment.adversary).traces
    released = {name: [1, 2, 3] for name in trace.members}
    targets = targets_of(setup, released)
    rng = np.random.default_rng(0)
    public = replace(pools.public, targets=rng.integers(0, 2, len(pools.public.images)))
    run_folder = RunFolder(done.folder)
    lira = attack("membership", experiment.adversary)
    pictures = Pictures(run_folder, experiment)
    return Case(setup, "release", lira, trace, public, pools, pools.public.images[:0], targets, pictures, released)


def test_a_live_run_is_scored_and_may_not_tell_more_than_its_ledger(
    small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = {"mechanism": "local", "epsilon": 1.0, "delta": 1e-5}
    case = case_of(small, tmp_path, privacy=private, task={"width": 2})
    row, rows = score_members(case)
    assert row["ranked"] == row["decoys"] == len(rows) > 10
    assert row["epsilon_lower"] <= row["epsilon_ledger"] <= 1.0 + 1e-3
    assert row["success"] == row["tpr_at_10"] >= row["tpr_at_1"]
    assert row["success_null"] == 0.1
    members, others = attack_members._pairs(case)
    assert set(members.ids) <= set(case.targets.ids)
    inside, outside = ({image.tobytes() for image in part.pixels()} for part in (members, others))
    assert not inside & outside  # by name they may meet: one phantom is named like another
    assert members.labels.tolist() == others.labels.tolist()
    assert len(set(members.units)) == len(members)
    assert len(set(others.units)) == len(others)
    blind, _ = score_members(replace(case, public=replace(case.public, targets=None)))
    assert blind["success"] is None
    assert "labels" in blind["why"]

    def oracle(trace: Trace, public: PublicData, candidates: Candidates) -> np.ndarray:
        known = members.pixels()
        hits = [float(any(np.array_equal(image, own) for own in known)) for image in candidates.images]
        return np.array(hits)

    monkeypatch.setattr(case.attack, "informed", oracle)
    monkeypatch.setattr(attack_members, "_ledger", lambda case: 0.05)
    with pytest.raises(RunStoppedError, match=r"ledger says 0\.05"):
        score_members(case)
