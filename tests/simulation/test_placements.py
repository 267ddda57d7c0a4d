"""The same federated runs from every chair: what is shared, what cannot be, what is pooled, what is kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from configs import Experiment, InputError, Study, StudyAxes
from configs.adversary import Placement
from simulation.placements import run_placements
from simulation.placements_plan import PLACEMENT_NAMES, plan
from simulation.placements_rows import POOLED, adjust, findings, pooled_row
from simulation.run import Run, attack_again

Make = Callable[..., Experiment]
TINY: dict[str, dict[str, Any]] = {
    "training": {"rounds": 2, "server_optimizer": "average", "learning_rate": 0.1},
    "hospitals": {"partition": "iid", "count": 3},
    "privacy": {"delta": 1e-3},
    "adversary": {"targets": 6, "data_traps": {"rows": 32}, "trap_weights": {"rows": 32}},
}


def study(small: Make, *, training: dict[str, Any] | None = None, **axes: Any) -> Study:
    experiment = small(**{**TINY, "training": {**TINY["training"], **(training or {})}})
    return Study(experiment=experiment, axes=StudyAxes.model_validate(axes))


def test_the_plan_shares_one_run_where_nothing_is_changed_and_gives_every_liar_its_own(small: Make) -> None:
    attempts = plan(study(small, attacks=["imprint", "trap_weights", "data_traps", "mean_image"]))
    assert len(attempts) == len(PLACEMENT_NAMES) * 4 == 32
    runs = {(a.placement, a.attack): a.watch.traffic.name for a in attempts if a.watch is not None}
    quiet = ("wire", "server", "malicious_server", "hospital", "release", "worst_case")
    assert {runs[name, "mean_image"] for name in quiet} == {"none-seed-10/watched"}
    assert {runs[name, "mean_image"] for name in ("aggregate", "malicious_aggregate")} == {"none-seed-10/sum"}
    assert runs["malicious_server", "imprint"] == runs["worst_case", "imprint"] == "none-seed-10/planted-imprint"
    assert runs["malicious_server", "trap_weights"] == "none-seed-10/planted-trap_weights"
    assert runs["malicious_aggregate", "imprint"] == "none-seed-10/sum-planted-imprint"
    assert runs["release", "data_traps"] == "none-seed-10/started-data_traps"
    experiments = {a.watch.traffic.name: a.watch.traffic.experiment for a in attempts if a.watch is not None}
    assert len(experiments) == 7
    for name, experiment in experiments.items():
        assert experiment.training.secure_sum == ("sum" in name.split("/")[1])
        assert len(experiment.adversary.attacks) == int("planted" in name or "started" in name)


def test_the_worst_case_is_read_with_the_terms_that_its_run_had(small: Make, tmp_path: Path) -> None:
    """Its view is made by deriving the noise again, which only the run's own settings give."""
    experiment = small(**{**TINY, "privacy": {"mechanism": "local", "epsilon": 8, "delta": 1e-3}})
    axes = StudyAxes.model_validate({"placements": ["worst_case"], "attacks": ["candidate_matching"]})
    run = run_placements(Study(experiment=experiment, axes=axes), tmp_path / "s", "x", resume=False, console=None)
    row = run.summary["rows"][0]
    assert row["n"] > 0
    assert 0 < row["bound_worst_case"] <= 1
    assert "ε = 8" in " ".join(run.summary["words"])


def test_what_cannot_be_keeps_its_place_and_says_why(small: Make) -> None:
    attempts = plan(study(small, training={"server_optimizer": "nadam"}, attacks=["imprint", "mean_image"]))
    why = {(a.placement, a.attack): a.reason for a in attempts}
    assert "control of the broadcast" in why["server", "imprint"]
    assert "server_optimizer is average" in why["hospital", "mean_image"]
    assert not why["server", "mean_image"]
    assert all((a.watch is None) == bool(a.reason) == bool(a.short) for a in attempts)


def test_a_sum_of_too_few_hospitals_is_a_cell_with_its_reason(small: Make) -> None:
    few = small(**{**TINY, "hospitals": {"partition": "iid", "count": 2}})
    axes = StudyAxes.model_validate({"placements": ["aggregate", "server"], "attacks": ["mean_image"]})
    summed, single = plan(Study(experiment=few, axes=axes))
    assert summed.watch is None
    assert "smallest_sum" in summed.reason
    assert single.watch is not None


def test_nobodys_seat_and_a_study_that_cannot_run_are_refused_before_anything(small: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"study\.placements"):
        plan(study(small, placements=["none"]))
    with pytest.raises(InputError, match=r"training\.batch_size"):
        run_placements(study(small, training={"batch_size": 1e6}), tmp_path / "out", "x", resume=False, console=None)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Run]:
    from tests.conftest import SMALL

    sections = {name: {**SMALL.get(name, {}), **TINY.get(name, {})} for name in {*SMALL, *TINY}}
    sections["adversary"] = {**sections["adversary"], "placement": "none"}
    placements: tuple[Placement, ...] = ("wire", "server", "malicious_server", "hospital")
    axes = StudyAxes(placements=placements, attacks=("imprint", "mean_image"), seeds=(10, 11))
    chosen = Study(experiment=Experiment.model_validate(sections), axes=axes)
    out = tmp_path_factory.mktemp("placements") / "study"
    return chosen, run_placements(chosen, out, "small", resume=False, console=None)


def test_every_cell_is_in_the_table_with_its_seeds_and_its_reason(done: tuple[Study, Run]) -> None:
    rows = done[1].summary["rows"]
    assert len(rows) == 4 * 2 * 3
    written = pd.read_csv(done[1].folder / "placements.csv")
    assert len(written) == len(rows)
    assert {"n", "success", "success_low", "success_high", "success_null", "success_p_holm", "reason"} <= {*written}
    pooled = {(r["placement"], r["attack"]): r for r in rows if r["seed"] == POOLED}
    assert pooled["server", "imprint"]["success"] is None
    assert "control of the broadcast" in pooled["server", "imprint"]["reason"]
    assert pooled["server", "imprint"]["run"] == ""
    for (placement, attack), row in pooled.items():
        single = [r for r in rows if (r["placement"], r["attack"]) == (placement, attack) and r["seed"] != POOLED]
        assert row["n"] == sum(r["n"] for r in single)
        if row["success"] is not None:
            assert row["hits"] == sum(r["hits"] for r in single)
            assert row["seeds"] == 2
            assert not row["reason"]


def test_one_run_seen_from_several_chairs_holds_the_same_images(done: tuple[Study, Run]) -> None:
    folder, summary = done[1].folder, done[1].summary
    assert [c["cell"] for c in summary["cells"]] == [
        f"none-seed-{seed}/{kind}" for seed in (10, 11) for kind in ("watched", "planted-imprint")
    ]
    seats = folder / "cells" / "none-seed-10" / "watched" / "seats"
    seen = {
        name: {t["target"] for t in json.loads((seats / f"{name}-mean_image.json").read_text())["targets"]}
        for name in ("wire", "server", "malicious_server", "hospital")
    }
    assert seen["server"] == seen["malicious_server"] == seen["wire"] | seen["hospital"]
    assert not seen["wire"] & seen["hospital"]  # the seat is one hospital; it watches the others
    pooled = {(r["placement"], r["attack"]): r for r in summary["rows"] if r["seed"] == 10}
    planted = next(c["summary"] for c in summary["cells"] if c["cell"] == "none-seed-10/planted-imprint")
    copied = sum(round(r["recovered"] * r["targets"]) for r in planted["attacks"])
    assert pooled["malicious_server", "imprint"]["hits"] == copied > 0


def test_a_finished_study_is_not_run_again_and_gives_the_same_bytes(
    done: tuple[Study, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, run = done
    before = {p: p.read_bytes() for p in run.folder.glob("*.*")}
    with pytest.raises(InputError, match="--resume"):
        run_placements(chosen, run.folder, "small", resume=False, console=None)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("attacked again")

    monkeypatch.setattr("simulation.placements.run_attacks", never)
    monkeypatch.setattr("simulation.run._federate", never)
    run_placements(chosen, run.folder, "small", resume=True, console=None)
    assert {p: p.read_bytes() for p in run.folder.glob("*.*")} == before


def test_recorded_traffic_is_attacked_from_another_seat(done: tuple[Study, Run]) -> None:
    watched = done[1].folder / "cells" / "none-seed-11" / "watched"
    again = attack_again(watched, ["mean_image"], "wire")
    assert {a["placement"] for a in again.summary["attacks"]} == {"wire"}
    assert len(again.summary["attacks"]) == 1
    with pytest.raises(InputError, match="recorded without it"):
        attack_again(watched, ["imprint"], "malicious_server")
    with pytest.raises(InputError, match="secure sum"):
        attack_again(watched, ["mean_image"], "aggregate")
    with pytest.raises(InputError, match="name one"):
        attack_again(watched, [])


def images(hits: int, n: int, *, null: int = 0, **more: Any) -> dict[str, Any]:
    row = {"yields": "images", "targets": n, "recovered": hits / n, "null_recovered": null / n, "above_null_p": 0.5}
    return {**row, "ranked": 0, "decoys": 0, "rounds": 1, "rank1": None, "identified_informed": None, **more}


def targets(ours: str, null: str) -> list[dict[str, Any]]:
    return [{"ssim": f"0.{9 * int(a)}5", "null_ssim": f"0.{9 * int(b)}5"} for a, b in zip(ours, null, strict=True)]


def test_pooling_adds_counts_and_tests_pairs_over_all_releases() -> None:
    row = pooled_row([images(3, 4), images(1, 6, null=2)], targets("1110100000", "0000110000"))
    assert (row["hits"], row["n"], row["success_null"]) == (4, 10, pytest.approx(0.2))
    expected = binomtest(4, 10).proportion_ci(0.95, method="exact")
    assert (row["success_low"], row["success_high"]) == pytest.approx((expected.low, expected.high))
    # 3 images by the attack alone, 1 by the null alone
    assert row["success_p"] == pytest.approx(binomtest(3, 4, 0.5, alternative="greater").pvalue)
    assert row["success_name"] == "copied (SSIM > 0.9)"


def test_identification_is_tested_at_the_fewest_decoys() -> None:
    rows = [
        images(0, 10, ranked=10, decoys=19, rank1=0.3, identified_informed=0.5),
        images(0, 10, ranked=5, decoys=99, rank1=0.2, identified_informed=None),
    ]
    row = pooled_row(rows, [])
    assert (row["ranked"], row["decoys"]) == (15, 19)
    assert row["rank1"] == pytest.approx(4 / 15)
    assert row["rank1_p"] == pytest.approx(binomtest(4, 15, 1 / 20, alternative="greater").pvalue)
    assert row["identified_informed_p"] == pytest.approx(binomtest(5, 10, 1 / 20, alternative="greater").pvalue)


def test_other_yields_bring_their_own_success_and_nothing_is_made_up() -> None:
    shown = {"yields": "candidates", "targets": 50, "ranked": 20, "decoys": 9, "rank1": None, "rounds": 1}
    shown |= {"success": 0.4, "success_null": 0.1, "success_p": 1.0, "success_name": "identified among 10"}
    row = pooled_row([shown], [])
    assert (row["n"], row["hits"], row["recovered"]) == (20, 8, None)
    assert row["success_p"] == pytest.approx(binomtest(8, 20, 0.1, alternative="greater").pvalue)
    again = pooled_row([shown | {"identified_informed": 0.4}], [])
    assert again["identified_informed_p"] is None  # the same count is not tested twice
    labels = {"yields": "labels", "targets": 8, "success": 0.75, "success_null": 0.5, "success_p": 0.02, "rounds": 1}
    labels |= {"success_name": "labels counted right"}
    both = pooled_row([labels, labels | {"success_p": 0.3}], [])
    assert both["success_p"] == pytest.approx(0.04)  # Bonferroni
    dense = {"yields": "labels", "targets": 8, "success": None, "why": "masks have no counts"}
    row = pooled_row([dense], [])
    assert (row["success"], row["success_p"], row["why"]) == (None, None, "masks have no counts")
    assert pooled_row([], [])["success"] is None
    assert pooled_row([images(0, 1) | {"targets": 0, "recovered": None}], [])["success"] is None


def test_holm_runs_over_every_test_of_the_pooled_rows_and_no_other() -> None:
    def row(seed: Any, **p: float) -> dict[str, Any]:
        return {"seed": seed, "success_p": None, "visible_p": None, "rank1_p": None, "identified_informed_p": None, **p}

    rows = [row(POOLED, success_p=0.012, rank1_p=0.02), row(10, success_p=1e-9), row(POOLED, success_p=0.9)]
    adjust(rows)
    assert rows[0]["success_p_holm"] == pytest.approx(3 * 0.012)
    assert rows[0]["rank1_p_holm"] == pytest.approx(2 * 0.02)
    assert rows[2]["success_p_holm"] == pytest.approx(0.9)
    assert rows[1]["success_p_holm"] is None
    assert [findings(r) for r in rows] == [["success", "rank1"], [], []]


def test_p_values_of_null_attacks_are_not_too_small() -> None:
    """Under the null (attack and null equally good) the pooled test rejects at most as often as it may."""
    rng = np.random.default_rng(5)
    rejected = 0
    for _ in range(400):
        ours, null = ("".join(str(int(x)) for x in rng.random(30) < 0.4) for _ in range(2))
        row = pooled_row([images(ours.count("1"), 30, null=null.count("1"))], targets(ours, null))
        rejected += row["success_p"] < 0.05
    assert binomtest(rejected, 400, 0.05, alternative="greater").pvalue > 1e-3


def test_shares_of_noise_are_watched_in_sums_only_and_nobody_watches_a_hospital_alone(small: Make) -> None:
    made = study(small, mechanisms=["distributed"], budgets=[8], attacks=["imprint", "mean_image"])
    found = {(a.placement, a.attack): a for a in plan(made)}
    for seat in ("wire", "server", "malicious_server", "worst_case"):
        assert found[seat, "mean_image"].watch is None
        assert "secure_sum" in found[seat, "mean_image"].reason
    for seat in ("aggregate", "malicious_aggregate"):
        watch = found[seat, "mean_image"].watch
        assert watch is not None
        assert watch.experiment.training.secure_sum
    released = found["release", "mean_image"].watch
    assert released is not None
    assert released.traffic.experiment.training.secure_sum
    with pytest.raises(InputError, match="alone"):
        plan(study(small, mechanisms=["alone"], budgets=[8], attacks=["mean_image"]))
