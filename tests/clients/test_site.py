"""A hospital charges before it releases, releases once, and refuses the rest."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tasks
from clients.broadcast import broadcast_digest
from clients.planning import plan_deal
from clients.sampling import draw
from clients.site import LocalTrainingError, RefusalError, Site, SiteSettings, ledger_file
from configs import HOSPITALS, Experiment, InputError, root_of
from configs.sections import TrainingSettings
from privacy import Ledger
from tasks.dealing import deal_experiment
from tasks.models import initial_weights

Make = Callable[..., Experiment]


def make_site(experiment: Experiment, folder: Path, index: int = 0, data: str = "") -> Site:
    task = tasks.get(experiment.task)
    splits = task.load()
    records, _ = splits.parts("test")
    dealt = deal_experiment(experiment, records)
    settings = SiteSettings(experiment, root_of(experiment.seed, HOSPITALS), folder)
    hospital = dealt.hospitals[index]
    return Site(
        settings,
        hospital.records,
        plan_deal(experiment, dealt)[hospital.name],
        task.spec,
        task.loss,
        splits.fingerprint + data,
    )


def ask(site: Site, round_number: int, seed: int = 0) -> dict[str, np.ndarray]:
    weights = initial_weights(site.spec, seed)
    digest = broadcast_digest(round_number, site.spec.to_json(), {n: w.numpy() for n, w in weights.items()})
    return dict(site.release(round_number, site.spec, weights, digest).arrays)


LOCAL = {"mechanism": "local", "epsilon": 8, "delta": 1e-3}


def test_the_same_broadcast_gives_the_same_release_at_no_charge_and_another_is_refused(
    small: Make, tmp_path: Path
) -> None:
    experiment = small(privacy=LOCAL)
    site = make_site(experiment, tmp_path)
    first, again = ask(site, 1), ask(make_site(experiment, tmp_path), 1)
    assert all(first[n].tobytes() == again[n].tobytes() for n in first)
    assert len(Ledger.open(ledger_file(tmp_path, site.plan.hospital)).entries) == 1
    with pytest.raises(RefusalError, match="another broadcast"):
        ask(site, 1, seed=5)
    assert len(Ledger.open(ledger_file(tmp_path, site.plan.hospital)).entries) == 1


def test_the_line_is_on_disk_before_the_gradients_are_computed(
    small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(small(privacy=LOCAL), tmp_path)

    def crash(**_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("clients.site.local_update", crash)
    with pytest.raises(LocalTrainingError):
        ask(site, 1)
    assert [e.round for e in Ledger.open(ledger_file(tmp_path, site.plan.hospital)).entries] == [1]


def test_unplanned_rounds_are_declined_and_the_price_stays_within_the_budget(small: Make, tmp_path: Path) -> None:
    site = make_site(small(privacy=LOCAL, training={"rounds": 2}), tmp_path)
    ask(site, 1)
    with pytest.raises(RefusalError, match="not one of the agreed rounds"):
        ask(site, 7)
    ask(site, 2)
    with pytest.raises(RefusalError, match="not one of the agreed rounds"):
        ask(site, 3)
    price = Ledger.open(ledger_file(tmp_path, site.plan.hospital)).price(1e-3)
    assert price.upper <= 8


@pytest.mark.parametrize("noise_multiplier", [1e-5, 1e-2, 1.0, 10.0])
def test_the_noise_is_in_what_is_released(small: Make, tmp_path: Path, noise_multiplier: float) -> None:
    common = {"clipping_norm": 0.5, "delta": 1e-3}
    noisy = small(privacy={"mechanism": "local", "noise_multiplier": noise_multiplier, **common})
    clear = small(privacy={"mechanism": "clip_only", **common})
    released, without = ask(make_site(noisy, tmp_path / "a"), 1), ask(make_site(clear, tmp_path / "b"), 1)
    noise = np.concatenate([(released[n] - without[n]).ravel() for n in released])
    expected = noise_multiplier * 0.5
    assert abs(noise.std() / expected - 1) < 4 / np.sqrt(2 * noise.size)
    assert abs(noise.mean()) < 4 * expected / np.sqrt(noise.size)


def test_an_empty_draw_takes_the_same_noisy_step(small: Make, tmp_path: Path) -> None:
    experiment = small(privacy={"mechanism": "local", "noise_multiplier": 2.0}, training={"batch_size": 1e-6})
    site = make_site(experiment, tmp_path)
    released = np.concatenate([v.ravel() for v in ask(site, 1).values()])
    assert abs(released.std() / 2.0 - 1) < 4 / np.sqrt(2 * released.size)
    assert len(Ledger.open(ledger_file(tmp_path, site.plan.hospital)).entries) == 1


def test_poisson_draws_have_binomial_sizes_and_do_not_depend_on_each_other() -> None:
    units = [np.array([i]) for i in range(200)]
    settings = {"training": TrainingSettings(), "whole": (8, 8), "size": (8, 8)}
    kwargs = {"unit_rows": units, "sample_rate": 0.3, **settings}
    sizes = np.array([len(draw("root", "h", r, 0, **kwargs).units) for r in range(400)])  # type: ignore[arg-type]
    variance = 200 * 0.3 * 0.7
    assert abs(sizes.mean() - 60) < 4 * np.sqrt(variance / 400)
    assert abs(sizes.var() / variance - 1) < 4 * np.sqrt(2 / 400)  # without replacement it would be 0
    first = draw("root", "h", 1, 0, **kwargs)  # type: ignore[arg-type]
    assert not np.array_equal(first.units, draw("root", "other", 1, 0, **kwargs).units)  # type: ignore[arg-type]
    assert not np.array_equal(first.units, draw("root", "h", 1, 1, **kwargs).units)  # type: ignore[arg-type]


def test_a_batch_larger_than_the_data_names_the_setting(small: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training\.batch_size"):
        make_site(small(training={"batch_size": 1e6}), tmp_path)


def test_settings_file_is_the_owners_alone_and_reads_back(small: Make, tmp_path: Path) -> None:
    settings = SiteSettings(small(), "abc", tmp_path / "ledger")
    settings.save(tmp_path / "s.json")
    assert (tmp_path / "s.json").stat().st_mode & 0o077 == 0
    assert SiteSettings.read(tmp_path / "s.json") == settings
    (tmp_path / "s.json").write_text("{")
    with pytest.raises(InputError, match=r"s\.json"):
        SiteSettings.read(tmp_path / "s.json")


def test_weights_that_do_not_fit_are_refused_before_the_charge(small: Make, tmp_path: Path) -> None:
    site = make_site(small(), tmp_path)
    good = initial_weights(site.spec, 0)
    name = next(iter(good))
    for weights in ({"nothing": torch.zeros(1)}, {**good, name: good[name][:1]}, {**good, "more": torch.zeros(1)}):
        with pytest.raises(RefusalError, match="do not fit"):
            site.release(1, site.spec, weights, "0" * 64)
    assert Ledger.open(ledger_file(tmp_path, site.plan.hospital)).entries == ()


def test_the_figure_of_the_self_check_says_nothing_about_the_records(small: Make, tmp_path: Path) -> None:
    experiment = small(privacy=LOCAL)
    first, other = make_site(experiment, tmp_path, 0), make_site(experiment, tmp_path, 1)
    assert first.plan.hospital != other.plan.hospital
    assert first.introduce() == other.introduce() > 0


@pytest.mark.parametrize("change", [{"outputs": 3}, {"width": 2}, {"kind": "scattering"}])
def test_another_architecture_is_refused_before_the_charge(
    small: Make, tmp_path: Path, change: dict[str, object]
) -> None:
    # With other outputs than agreed the round would fail exactly when certain labels were drawn.
    site = make_site(small(privacy=LOCAL), tmp_path)
    sent = replace(site.spec, **change)
    weights = initial_weights(sent, 0)
    with pytest.raises(RefusalError, match="not the agreed one"):
        site.release(1, sent, weights, "0" * 64)
    assert Ledger.open(ledger_file(tmp_path, site.plan.hospital)).entries == ()


def test_a_failure_inside_tells_the_server_nothing_and_the_next_round_works(
    small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(small(privacy=LOCAL), tmp_path)

    def crash(**_: object) -> None:
        raise ValueError("image ISIC_42 of patient X")

    with monkeypatch.context() as patch:
        patch.setattr("clients.site.local_update", crash)
        with pytest.raises(LocalTrainingError) as told:
            ask(site, 1)
    assert "ISIC_42" not in str(told.value)
    assert told.value.__cause__ is None
    assert told.value.__suppress_context__
    log = ledger_file(tmp_path, site.plan.hospital).with_suffix(".errors.log").read_text()
    assert "ISIC_42" in log
    ask(site, 1)
    ask(site, 2)


def test_two_runs_of_one_seed_never_share_their_noise(small: Make, tmp_path: Path) -> None:
    # Else the releases of two budgets would give the clipped sum away: (s1 r2 - s2 r1) / (s1 - s2).
    clean = released(make_site(small(privacy={"mechanism": "clip_only"}), tmp_path / "clean"))
    sites = [make_site(small(privacy={**LOCAL, "epsilon": e}), tmp_path / str(e)) for e in (1, 8)]
    noises = [(released(site) - clean) / site.plan.noise_std for site in sites]
    for noise in noises:  # the two runs drew alike: nothing but noise is left
        assert abs(noise.std() - 1) < 4 / np.sqrt(2 * noise.size)
    assert abs(np.corrcoef(*noises)[0, 1]) < 4 / np.sqrt(noises[0].size)


def test_the_same_settings_over_other_data_have_other_noise(small: Make, tmp_path: Path) -> None:
    # Else the difference of the two releases would be what was added to the data, without any noise.
    first, second = (released(make_site(small(privacy=LOCAL), tmp_path / d, data=d)) for d in ("", "changed"))
    std = make_site(small(privacy=LOCAL), tmp_path / "x").plan.noise_std
    assert (first - second).std() == pytest.approx(np.sqrt(2) * std, rel=4 / np.sqrt(2 * first.size))


def released(site: Site) -> np.ndarray:
    return np.concatenate([v.ravel() for v in ask(site, 1).values()])


def test_two_runs_on_one_ledger_share_one_budget(small: Make, tmp_path: Path) -> None:
    rounds = {"rounds": 2}
    first = make_site(small(privacy=LOCAL, training=rounds), tmp_path)
    second = make_site(small(privacy=LOCAL, training={**rounds, "learning_rate": 0.5}), tmp_path)
    ask(second, 1)  # opens the ledger before the other spends
    ask(first, 1)
    with pytest.raises(RefusalError, match="budget exhausted"):
        ask(second, 2)
    with pytest.raises(RefusalError, match="budget exhausted"):
        ask(first, 2)
