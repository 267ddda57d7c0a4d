"""The alarm sees planted blocks on images that are nobody's, tells nothing about records, and changes no release."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clients.alarm import FACTOR, MARGIN, Alarm, AlarmLog, Reading, alarms, fresh_readings, read
from clients.alarm_probes import FLAT, Probes, make_probes, noise_probes, smooth_probes
from clients.broadcast import broadcast_digest
from clients.gradients import engine
from clients.site import RefusalError, Site, ledger_file
from configs import Experiment
from configs.adversary import DataTrapsSettings, ImprintSettings
from configs.sections import TaskSettings
from privacy import Ledger
from server.adversary.base import PublicData
from server.adversary.data_traps import DataTraps
from server.adversary.imprint import Imprint
from tasks.models import ModelSpec, build, initial_weights, normalise
from tests.clients.test_site import make_site

Make = Callable[..., Experiment]
SPEC = ModelSpec("resnet9", (3, 16, 16), 1, 4)
TASK = TaskSettings(root="phantom", image_size=16, width=4)
Weights = dict[str, torch.Tensor]


def planted(spec: ModelSpec, name: str = "imprint") -> tuple[ModelSpec, Weights]:
    """Return a fresh model with a block, laid out on smooth public images."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 215, (120, spec.shape[0], 4, 4))
    images = np.kron(coarse, np.ones((1, 1, 4, 4))) + rng.normal(0, 8, (120, *spec.shape))
    public = PublicData(np.clip(images, 0, 255).astype(np.uint8), "blobs")
    clean = {n: w.numpy() for n, w in initial_weights(spec, 3).items()}
    one = (
        Imprint(ImprintSettings(rows=32, components=20)) if name == "imprint" else DataTraps(DataTrapsSettings(rows=32))
    )
    sent, weights = one.plant(spec, clean, public)
    return sent, {n: torch.from_numpy(np.array(w)) for n, w in weights.items()}


def test_a_reading_is_what_plain_autograd_says() -> None:
    weights = initial_weights(SPEC, 1)
    probes = make_probes(SPEC, TASK, 5)
    got = read(engine(SPEC, "binary"), weights, probes)
    model = build(SPEC)
    model.load_state_dict(weights)
    norms, shares = [], []
    for image, target in zip(probes.images, probes.targets, strict=True):
        logit = model(normalise(image[None])).squeeze()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, target.float())
        gradient = dict(
            zip(
                [n for n, _ in model.named_parameters()],
                torch.autograd.grad(loss, list(model.parameters())),
                strict=True,
            )
        )
        energy: dict[str, float] = {}
        for name, part in gradient.items():
            layer = name.rsplit(".", 1)[0]
            energy[layer] = energy.get(layer, 0.0) + float(part.double().square().sum())
        norms.append(sum(energy.values()) ** 0.5)
        shares.append({layer: value / sum(energy.values()) for layer, value in energy.items()})
    assert len(probes) == 3 * FLAT
    assert got.norm == pytest.approx(sorted(norms)[len(norms) // 2], rel=1e-4)
    for layer in shares[0]:
        assert got.shares[layer] == pytest.approx(max(s[layer] for s in shares), rel=1e-3)
        assert got.means[layer] == pytest.approx(np.mean([s[layer] for s in shares]), rel=1e-3)
    assert sum(got.means.values()) == pytest.approx(1)


@pytest.mark.parametrize("name", ["imprint", "data_traps"])
def test_a_planted_block_is_seen_and_a_fresh_model_is_not(name: str) -> None:
    probes = make_probes(SPEC, TASK, 5)
    fresh = fresh_readings(SPEC, engine(SPEC, "binary"), probes)
    sent, weights = planted(SPEC, name)
    found = read(engine(sent, "binary"), weights, probes)
    assert found.shares["wide.units"] > 0.999
    assert set(fresh[0].shares) == set(found.shares) - {"wide.units"}
    assert len(alarms(found, fresh, [])) == 2  # the share and the norm
    for seed in range(20, 26):
        honest = read(engine(SPEC, "binary"), initial_weights(SPEC, seed), probes)
        assert alarms(honest, fresh, []) == ()


def reading(norm: float = 1.0, **shares: float) -> Reading:
    return Reading(shares, shares, norm)


def test_usual_follows_training_and_a_foreign_layer_cannot_creep_up() -> None:
    fresh = [reading(head=0.3, body=0.7)]
    assert not alarms(reading(head=0.3 + MARGIN - 0.01), fresh, [])
    assert alarms(reading(head=0.3 + MARGIN + 0.01), fresh, [])
    assert not alarms(reading(head=0.9), fresh, [reading(head=0.6)])
    assert not alarms(reading(wide=MARGIN - 0.01), fresh, [])
    assert alarms(reading(wide=MARGIN + 0.01), fresh, [reading(wide=MARGIN - 0.01)])
    assert not alarms(reading(norm=FACTOR - 0.1), fresh, [])
    assert alarms(reading(norm=FACTOR + 0.1), fresh, [])
    assert not alarms(reading(norm=5 * FACTOR), fresh, [reading(norm=6)])
    assert alarms(reading(norm=1e3), fresh, [reading(norm=500)])  # however slowly it rose
    assert alarms(reading(norm=float("inf")), fresh, []) == ("its gradient is not finite",)


def watching(folder: Path, seed: int = 5) -> Alarm:
    probes = make_probes(SPEC, TASK, seed)
    return Alarm(SPEC, partial(engine, loss="binary"), probes, AlarmLog(folder / "x.alarm.log"))


def test_it_remembers_across_processes_and_reads_a_broadcast_once(tmp_path: Path) -> None:
    weights = initial_weights(SPEC, 1)
    assert watching(tmp_path).check(1, "a", SPEC, weights) == ()
    sent, bad = planted(SPEC)
    first = watching(tmp_path).check(2, "b", sent, bad)
    assert len(first) == 2
    before = (tmp_path / "x.alarm.log").read_bytes()
    assert watching(tmp_path).check(2, "b", sent, bad) == first
    assert (tmp_path / "x.alarm.log").read_bytes() == before
    with (tmp_path / "x.alarm.log").open("a") as log:
        log.write('{"kind": "broad')  # a process that died while it wrote
    assert watching(tmp_path).check(2, "b", sent, bad) == first
    kinds = [json.loads(line)["kind"] for line in before.decode().splitlines()]
    assert kinds == ["fresh", "broadcast", "broadcast"]


def test_weights_that_are_not_finite_are_an_alarm_and_the_log_stays_json(tmp_path: Path) -> None:
    weights = {n: torch.full_like(w, float("nan")) for n, w in initial_weights(SPEC, 1).items()}
    assert watching(tmp_path).check(1, "a", SPEC, weights) == ("its gradient is not finite",)
    last = json.loads((tmp_path / "x.alarm.log").read_text().splitlines()[-1])
    assert last["reading"]["norm"] is None
    assert Reading.from_json(last["reading"]).norm == float("inf")


def test_probes_are_secret_by_their_seed_and_fit_the_model() -> None:
    first, again, other = (make_probes(SPEC, TASK, seed) for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert not any(torch.equal(a, b) for a in first.images for b in other.images)
    assert first.images.dtype == torch.uint8
    assert {int(t) for t in first.targets} == {0, 1}
    dense = ModelSpec("unet", (1, 16, 16), 3, 4)
    rng = np.random.default_rng(1)
    masks = noise_probes(dense, 4, rng).with_more(smooth_probes(dense, 4, rng))
    assert masks.images.shape == (8, 1, 16, 16)
    assert masks.targets.shape == (8, 16, 16)
    assert {int(t) for t in masks.targets.unique()} == {0, 1, 2}
    assert read(engine(dense, "dice_ce"), initial_weights(dense, 0), masks).norm > 0


def ask(site: Site, sent: ModelSpec, weights: Weights) -> dict[str, np.ndarray]:
    digest = broadcast_digest(1, sent.to_json(), {n: w.numpy() for n, w in weights.items()})
    return dict(site.release(1, sent, weights, digest).arrays)


def alarm_log(folder: Path, site: Site) -> Path:
    return ledger_file(folder, site.plan.hospital).with_suffix(".alarm.log")


def test_refuse_declines_before_the_charge_and_log_lets_through(small: Make, tmp_path: Path) -> None:
    local: dict[str, Any] = {"mechanism": "local", "epsilon": 8, "delta": 1e-3}
    strict = make_site(small(privacy=local, hospitals={"alarm": "refuse"}), tmp_path / "refuse")
    sent, weights = planted(strict.spec)
    with pytest.raises(RefusalError, match="alarm") as told:
        ask(strict, sent, weights)
    assert not any(character.isdigit() for character in str(told.value))
    assert Ledger.open(ledger_file(tmp_path / "refuse", strict.plan.hospital)).entries == ()
    ask(strict, strict.spec, initial_weights(strict.spec, 0))
    mild = make_site(small(privacy=local, hospitals={"alarm": "log"}), tmp_path / "log")
    ask(mild, sent, weights)
    lines = [json.loads(text) for text in alarm_log(tmp_path / "log", mild).read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["fresh", "broadcast", "own"]
    assert lines[1]["alarms"]
    assert lines[2]["reading"]["shares"]["wide.units"] > 0.999
    off = make_site(small(privacy=local), tmp_path / "off")
    ask(off, sent, weights)
    assert not alarm_log(tmp_path / "off", off).exists()


def test_what_it_decides_does_not_depend_on_the_records(small: Make, tmp_path: Path) -> None:
    experiment = small(hospitals={"alarm": "log"}, privacy={"mechanism": "clip_only"})
    first = make_site(experiment, tmp_path / "a", 0)
    other = make_site(experiment, tmp_path / "b", 1)
    swapped = Site(
        replace(first.settings, ledgers=tmp_path / "c"), other.records, first.plan, first.spec, first.loss, "data"
    )
    weights = initial_weights(first.spec, 0)
    logs: list[list[dict[str, Any]]] = []
    for site in (first, swapped):
        site.release(1, site.spec, weights, "0" * 64)
        logs.append([json.loads(t) for t in alarm_log(site.settings.ledgers, site).read_text().splitlines()])
    assert logs[0][:2] == logs[1][:2]  # fresh models and the broadcast
    assert logs[0][2] != logs[1][2]  # the own batch, which decides nothing


def test_a_release_is_the_same_with_and_without(small: Make, tmp_path: Path) -> None:
    sites = [
        make_site(small(hospitals={"alarm": mode}, privacy={"mechanism": "clip_only"}), tmp_path / mode)
        for mode in ("off", "log", "refuse")
    ]
    off, log, refuse = (ask(site, site.spec, initial_weights(site.spec, 0)) for site in sites)
    assert all(off[n].tobytes() == log[n].tobytes() == refuse[n].tobytes() for n in off)


def test_an_empty_draw_is_logged_and_released(small: Make, tmp_path: Path) -> None:
    site = make_site(
        small(training={"batch_size": 1e-6}, hospitals={"alarm": "log"}, privacy={"mechanism": "clip_only"}), tmp_path
    )
    ask(site, site.spec, initial_weights(site.spec, 0))
    last = json.loads(alarm_log(tmp_path, site).read_text().splitlines()[-1])
    assert last["reading"] == {"shares": {}, "means": {}, "norm": 0.0}


def test_a_block_that_fires_on_no_probe_is_not_seen() -> None:
    """The limit of the alarm, and why the probes' seed is the hospital's secret."""
    sent, weights = planted(SPEC)
    fresh_probes = make_probes(SPEC, TASK, 5)
    model: Any = build(sent)
    model.load_state_dict(weights)
    flat = normalise(fresh_probes.images).flatten(1)
    with torch.no_grad():
        raised = model.wide.units(model.wide.block.scale * (flat - model.wide.centre))
    fires = ((raised > 0) & (raised < model.wide.block.ceiling)).any(dim=0)
    assert fires.any()
    assert not fires.all()
    weights["wide.units.weight"][fires] = 0.0
    weights["wide.units.bias"][fires] = -1.0
    fresh = fresh_readings(SPEC, engine(SPEC, "binary"), fresh_probes)
    assert alarms(read(engine(sent, "binary"), weights, fresh_probes), fresh, []) == ()
    secret = make_probes(SPEC, TASK, 6)
    fresh = fresh_readings(SPEC, engine(SPEC, "binary"), secret)
    assert alarms(read(engine(sent, "binary"), weights, secret), fresh, [])


def test_no_probes_read_nothing() -> None:
    none = Probes(torch.zeros((0, *SPEC.shape), dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
    assert read(engine(SPEC, "binary"), initial_weights(SPEC, 0), none) == Reading({}, {}, 0.0)
