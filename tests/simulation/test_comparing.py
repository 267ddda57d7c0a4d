"""A whole comparison of cells whose predictions are made by hand: every figure is one that can be computed apart."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import recall_score, roc_auc_score

import privacy
from configs import Experiment, InputError
from simulation.comparing import compare
from simulation.comparing_prices import price_of
from simulation.comparing_settings import terms_of, worst_of
from simulation.predictions import Predictions, write_predictions
from tasks.metrics import Classified, Overlaps, Segmented

Row = dict[str, Any]
HOSPITALS = ("east", "north", "west")
UNITS = {"east": 40, "north": 80, "west": 120}
STEPS, DELTA, BATCH = 30, 1e-5, 24.0
LABELS = (np.arange(180) % 5 == 0).astype(np.int64)
UNIT = np.arange(180) // 2
SHARE = np.repeat([0, 1, 2], [30, 60, 90])
IMAGES = np.random.default_rng(0).normal(size=180)


def scores_of(cell: str, gap: float) -> NDArray[np.float64]:
    own = np.random.default_rng([len(cell), *cell.encode()]).normal(size=180)
    return 0.8 * IMAGES + 0.6 * own + gap * LABELS


def keep(folder: Path, scores: NDArray[np.float64], ids: NDArray[np.str_] | None = None) -> None:
    folder.mkdir(parents=True)
    names = np.array([f"i{k}" for k in range(180)]) if ids is None else ids
    judged = Classified(scores[:, None], LABELS, UNIT)
    write_predictions(folder, Predictions(judged, LABELS, UNIT, names, SHARE, HOSPITALS, ("well", "ill"), 29))


def summary_of(mechanism: str, budget: float | str, hospital: str | None, attacks: list[Row]) -> Row:
    content: Row = {"mechanism": mechanism, "delta": DELTA, "clipping_norm": 2.0}
    claims = mechanism in ("local", "pooled", "alone") and budget != "none"
    if mechanism in ("local", "pooled", "alone"):
        content["epsilon"] = budget
    experiment = Experiment.model_validate(
        {
            "task": {"root": "phantom"},
            "hospitals": {"only": hospital},
            "training": {"rounds": STEPS, "batch_size": BATCH},
            "privacy": content,
        }
    )
    names = {"pooled": ("pooled",), "alone": (hospital or "",)}.get(mechanism, HOSPITALS)
    rate = BATCH / sum(UNITS.values())
    noise = 1.5 if claims else 0.0
    price = privacy.epsilon(noise_multiplier=noise, sample_rate=rate, steps=STEPS, delta=DELTA) if claims else None
    bracket = None
    if price is not None:
        bracket = {"lower": price.lower, "estimate": price.estimate, "upper": price.upper, "method": price.method}
    rows = [
        {
            "name": name,
            "records": 2 * UNITS.get(name, 240),
            "units": UNITS.get(name, 240),
            "unit": "image",
            "sample_rate": rate,
            "noise_multiplier": noise,
            "noise_added": noise,
            "clipping_norm": 2.0 if claims else None,
            "steps": STEPS,
            "delta": DELTA if claims else None,
            "epsilon": bracket,
            "epsilon_opacus_rdp": price.opacus_rdp if price else None,
        }
        for name in names
    ]
    return {"experiment": experiment.model_dump(mode="json"), "hospitals": rows, "central": None, "attacks": attacks}


def attacks_of(hits: int) -> list[Row]:
    return [
        {
            "placement": "malicious_server",
            "attack": "imprint",
            "yields": "images",
            "hospital": "east",
            "targets": 50,
            "success": hits / 50,
            "success_null": 0.0,
            "success_p": 0.5**hits,
            "success_name": "copied (SSIM > .9)",
            "recovered": hits / 50,
            "visible": None,
            "visible_p": None,
            "ranked": 0,
            "rank1": None,
            "rank1_p": None,
            "decoys": 0,
        }
    ]


GAPS = {"none": 1.6, "pooled": 1.6, "local": 1.5, "alone": 1.0}


def study(root: Path, seeds: tuple[int, ...] = (10, 11)) -> Row:
    cells: list[Row] = []
    for seed in seeds:
        for mechanism, budget in [
            ("none", "none"),
            ("pooled", "none"),
            ("pooled", 8.0),
            ("local", 8.0),
            ("alone", 8.0),
        ]:
            for hospital in HOSPITALS if mechanism == "alone" else (None,):
                name = f"{mechanism}-{budget}-{seed}-{hospital}"
                keep(root / "cells" / name, scores_of(name, GAPS[mechanism]))
                attacks = [] if mechanism == "alone" else attacks_of(0 if budget == 8.0 else 20)
                cells.append(
                    {
                        "cell": name,
                        "mechanism": mechanism,
                        "budget": budget,
                        "seed": seed,
                        "hospital": hospital,
                        "folder": f"cells/{name}",
                        "summary": summary_of(mechanism, budget, hospital, attacks),
                    }
                )
    axes = {"budgets": ["none", 8.0], "mechanisms": ["pooled", "local", "alone"], "seeds": seeds, "tolerance": 0.5}
    return {"kind": "study", "title": "", "axes": axes, "cells": cells}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Row:
    root = tmp_path_factory.mktemp("study")
    return compare(root, study(root))


def setting(found: Row, mechanism: str, budget: float | str) -> Row:
    return next(row for row in found["settings"] if (row["mechanism"], row["budget"]) == (mechanism, budget))


def auroc(cell: str, gap: float, rows: NDArray[np.bool_] | slice = slice(None)) -> float:
    return float(roc_auc_score(LABELS[rows], scores_of(cell, gap)[rows]))


def test_the_result_is_json_and_the_same_again(found: Row, tmp_path: Path) -> None:
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(compare(tmp_path, study(tmp_path))))


def test_settings_stand_by_mechanism_and_the_larger_budget_first(found: Row) -> None:
    rows = [(row["mechanism"], row["budget"]) for row in found["settings"]]
    assert rows == [("none", "none"), ("pooled", "none"), ("pooled", 8.0), ("local", 8.0), ("alone", 8.0)]
    local = setting(found, "local", 8.0)
    assert (local["seeds"], local["rounds"], local["metric"]) == (2, [29], "auroc")
    assert local["cells"] == ["local-8.0-10-None", "local-8.0-11-None"]


def test_utility_is_the_mean_over_seeds(found: Row) -> None:
    local = setting(found, "local", 8.0)
    expected = np.mean([auroc(f"local-8.0-{seed}-None", 1.5) for seed in (10, 11)])
    assert local["utility"]["estimate"] == pytest.approx(expected)
    assert (local["utility"]["n"], local["utility"]["units"]) == (180, 90)
    assert local["utility"]["low"] < expected < local["utility"]["high"] <= 1
    said = [(scores_of(f"local-8.0-{seed}-None", 1.5) > 0).astype(int) for seed in (10, 11)]
    rare = np.mean([recall_score(LABELS, s) for s in said])
    assert local["minority"]["estimate"] == pytest.approx(rare)
    assert (local["minority"]["class"], local["minority"]["metric"], local["minority"]["n"]) == ("ill", "recall", 36)


def test_recall_has_its_specificity_beside_it(found: Row) -> None:
    local = setting(found, "local", 8.0)["minority"]
    said = [(scores_of(f"local-8.0-{seed}-None", 1.5) > 0).astype(int) for seed in (10, 11)]
    expected = np.mean([recall_score(LABELS, s, pos_label=0) for s in said])
    assert local["specificity"]["estimate"] == pytest.approx(expected)
    assert local["specificity"]["low"] < expected < local["specificity"]["high"]
    assert local["specificity"]["n"] == 144
    bare = setting(found, "none", "none")["minority"]
    assert local["against_none"]["difference"] == pytest.approx(local["estimate"] - bare["estimate"])


def test_noise_shared_in_a_sum_is_held_against_noise_at_each(tmp_path: Path) -> None:
    whole = study(tmp_path)
    names = {"pooled": "distributed", "none": "none", "local": "local"}
    cells = [{**c, "mechanism": names[c["mechanism"]]} for c in whole["cells"] if c["mechanism"] in names]
    (row,) = compare(tmp_path, {**whole, "cells": [c for c in cells if c["budget"] in (8.0, "none")]})["shared_noise"]
    pairs = [(auroc(f"pooled-8.0-{s}-None", 1.6), auroc(f"local-8.0-{s}-None", 1.5)) for s in (10, 11)]
    apart = np.mean([shared - own for shared, own in pairs])
    assert (row["budget"], row["seeds"]) == (8.0, 2)
    assert row["difference"] == pytest.approx(apart)
    assert row["low"] < apart < row["high"]


def test_alone_is_the_mean_of_the_own_models_weighted_by_share(found: Row) -> None:
    alone = setting(found, "alone", 8.0)
    each = [[auroc(f"alone-8.0-{seed}-{h}", 1.0) for h in HOSPITALS] for seed in (10, 11)]
    assert alone["utility"]["estimate"] == pytest.approx(np.mean(np.array(each) @ [30 / 180, 60 / 180, 90 / 180]))
    own = [auroc(f"alone-8.0-{seed}-north", 1.0, SHARE == 1) for seed in (10, 11)]
    assert alone["hospitals"]["north"]["estimate"] == pytest.approx(np.mean(own))
    assert alone["attack"] is None
    assert "nobody sits" in alone["why"]["attack"]
    assert alone["attacks"] == []


def inside(cell: str, gap: float) -> float:
    """Compare every pair of one hospital by hand."""
    scores, won, pairs = scores_of(cell, gap), 0.0, 0
    for k in range(3):
        ill, well = (scores[np.equal(SHARE, k) & (label == LABELS)] for label in (1, 0))
        won += float((ill[:, None] > well[None]).sum())
        pairs += ill.size * well.size
    return won / pairs


def test_pairs_of_one_hospital_are_judged_apart(found: Row) -> None:
    local, none = setting(found, "local", 8.0)["within_hospitals"], setting(found, "none", "none")["within_hospitals"]
    ours = [inside(f"local-8.0-{seed}-None", 1.5) for seed in (10, 11)]
    theirs = [inside(f"none-none-{seed}-None", 1.6) for seed in (10, 11)]
    assert local["estimate"] == pytest.approx(np.mean(ours))
    assert local["low"] < np.mean(ours) < local["high"]
    assert (local["n"], local["units"]) == (180, 90)
    # 6, 12 and 18 ill and 24, 48 and 72 well at the three.
    assert local["pairs_share"] == pytest.approx((6 * 24 + 12 * 48 + 18 * 72) / (36 * 144))
    assert local["against_none"]["difference"] == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert none["against_none"] == {"difference": 0.0, "low": 0.0, "high": 0.0, "seeds": 2}
    alone = setting(found, "alone", 8.0)["within_hospitals"]
    each = [[inside(f"alone-8.0-{seed}-{h}", 1.0) for h in HOSPITALS] for seed in (10, 11)]
    assert alone["estimate"] == pytest.approx(np.mean(np.array(each) @ [30 / 180, 60 / 180, 90 / 180]))


def test_hospitals_have_their_own_share_and_terms(found: Row) -> None:
    local = setting(found, "local", 8.0)
    for position, name in enumerate(HOSPITALS):
        row = local["hospitals"][name]
        expected = np.mean([auroc(f"local-8.0-{seed}-None", 1.5, np.equal(SHARE, position)) for seed in (10, 11)])
        assert row["estimate"] == pytest.approx(expected)
        assert (row["n"], row["units"]) == (30 * (position + 1), 15 * (position + 1))
        assert (row["records"], row["sample_rate"], row["noise_multiplier"]) == (2 * UNITS[name], 0.1, 1.5)
    known = {name: row["estimate"] for name, row in local["hospitals"].items() if row["low"] is not None}
    assert local["worst_hospital"]["name"] == min(known, key=lambda name: known[name])
    pooled = setting(found, "pooled", 8.0)["hospitals"]["east"]
    assert (pooled["records"], pooled["noise_multiplier"], pooled["n"]) == (None, 1.5, 30)


def test_prices_and_bounds_are_those_of_the_worst_off(found: Row) -> None:
    price = privacy.epsilon(noise_multiplier=1.5, sample_rate=0.1, steps=STEPS, delta=DELTA)
    local, pooled = setting(found, "local", 8.0), setting(found, "pooled", 8.0)
    assert local["epsilon"]["upper"] == price.upper
    assert local["epsilon_opacus_rdp"] == price.opacus_rdp
    assert (local["delta"], local["protects"]) == (DELTA, "image")
    assert local["noise_multiplier"] == {"min": 1.5, "max": 1.5}
    assert local["noise_on_mean"] == pytest.approx(1.5 * 2.0 * np.sqrt(3) / BATCH)
    assert pooled["noise_on_mean"] == pytest.approx(1.5 * 2.0 / BATCH)
    assert setting(found, "alone", 8.0)["noise_on_mean"] == pytest.approx(1.5 * 2.0 / 4.0)  # of the smallest batch
    bound: Row = {"noise_multiplier": 1.5, "sample_rate": 0.1, "steps": STEPS, "prior": 1 / 40}
    assert local["bounds"]["prior"] == 1 / 40
    assert (local["bounds"]["candidates"], "smallest hospital" in local["bounds"]["among"]) == (40, True)
    assert pooled["bounds"]["prior"] == 1 / 40  # not among all 240: it would look safer for being larger
    assert pooled["bounds"]["worst_case"] == pytest.approx(local["bounds"]["worst_case"])
    assert local["bounds"]["worst_case"] == privacy.reconstruction_bound(**bound, threat="worst_case")
    none = setting(found, "none", "none")
    assert [none[key] for key in ("epsilon", "delta", "protects", "bounds", "noise_multiplier")] == [None] * 5
    assert (none["noise_on_mean"], none["against"]) == (0.0, "nobody")


def test_under_central_the_server_promises_and_every_hospital_is_a_candidate() -> None:
    summary = summary_of("none", "none", None, [])
    promise = {"noise_multiplier": 2.0, "sample_rate": 1.0, "steps": STEPS, "delta": DELTA, "noise_on_mean": 0.7}
    price = privacy.epsilon(noise_multiplier=2.0, sample_rate=1.0, steps=STEPS, delta=DELTA)
    claim = {"lower": price.lower, "estimate": price.estimate, "upper": price.upper, "method": price.method}
    summary["central"] = {**promise, "unit": "hospital", "epsilon": claim, "epsilon_opacus_rdp": price.opacus_rdp}
    summary["experiment"]["privacy"] |= {"mechanism": "central", "epsilon": 8.0}
    found = price_of([{"summary": summary}])
    assert (found["protects"], found["noise_on_mean"], found["epsilon"]) == ("hospital", 0.7, claim)
    assert found["noise_multiplier"] == {"min": 2.0, "max": 2.0}
    assert "not the server" in found["against"]
    # Every round asks all: one Gaussian of T steps, whose trade-off curve is known in closed form.
    assert found["bounds"]["prior"] == pytest.approx(1 / 3)
    assert price_of([{"summary": summary}], 40)["bounds"] == found["bounds"]
    assert found["bounds"]["among"] == "the hospitals of the federation"
    assert found["bounds"]["worst_case"] == pytest.approx(norm.cdf(norm.ppf(1 / 3) + np.sqrt(STEPS) / 2.0), abs=1e-9)


def test_a_claim_that_one_hospital_lacks_is_nobodys() -> None:
    summary = summary_of("local", 8.0, None, [])
    summary["hospitals"][1]["epsilon"] = None  # infinite: not a claim
    found = price_of([{"summary": summary}])
    assert [found[key] for key in ("epsilon", "epsilon_opacus_rdp", "delta", "protects", "bounds")] == [None] * 5
    assert found["against"] == "nobody"


def test_the_worst_off_hospital_of_all_seeds_counts() -> None:
    cells = [{"summary": summary_of("local", 8.0, None, [])} for _ in range(2)]
    worse = privacy.epsilon(noise_multiplier=1.5, sample_rate=0.3, steps=STEPS, delta=DELTA)
    claim = {"lower": worse.lower, "estimate": worse.estimate, "upper": worse.upper, "method": worse.method}
    row = cells[1]["summary"]["hospitals"][2]
    row |= {"sample_rate": 0.3, "epsilon": claim, "epsilon_opacus_rdp": worse.opacus_rdp, "units": 20}
    found = price_of(cells)
    assert found["epsilon"] == claim
    assert found["epsilon_opacus_rdp"] == worse.opacus_rdp
    assert found["bounds"]["prior"] == 1 / 20
    assert terms_of(cells, "west")["sample_rate"] == 0.3


def test_an_anecdote_is_the_worst_hospital_only_where_there_are_no_others() -> None:
    few: Row = {"estimate": 0.5, "low": None, "high": None, "n": 6, "units": 6, "why": "fewer than 10 units"}
    known: Row = {"estimate": 0.8, "low": 0.7, "high": 0.9, "n": 60, "units": 50}
    unknown: Row = {**few, "estimate": None}
    assert worst_of({"a": few, "b": known, "c": {**known, "estimate": 0.9}}) == {
        "name": "b",
        "estimate": 0.8,
        "low": 0.7,
        "high": 0.9,
    }
    anecdote = worst_of({"a": few, "c": unknown})
    assert anecdote is not None
    assert (anecdote["name"], anecdote["low"]) == ("a", None)
    assert worst_of({"c": unknown}) is None


def test_differences_joining_and_price(found: Row) -> None:
    local, none, pooled = (setting(found, *key) for key in (("local", 8.0), ("none", "none"), ("pooled", 8.0)))
    for key, other in (("against_none", none), ("against_pooled", pooled)):
        apart = local["utility"]["estimate"] - other["utility"]["estimate"]
        assert local[key]["difference"] == pytest.approx(apart)
        assert local[key]["low"] < apart < local[key]["high"]
    assert none["against_none"] == {"difference": 0.0, "low": 0.0, "high": 0.0, "seeds": 2}
    joining = {row["hospital"]: row for row in found["joining"]}
    assert {row["mechanism"] for row in found["joining"]} == {"local"}
    assert set(joining) == set(HOSPITALS)
    west = joining["west"]
    assert west["joined"] == local["hospitals"]["west"]["estimate"]
    assert west["alone"] == setting(found, "alone", 8.0)["hospitals"]["west"]["estimate"]
    assert west["difference"] == pytest.approx(west["joined"] - west["alone"])
    price = {(row["mechanism"], row["budget"]): row for row in found["price"]}
    assert set(price) == {("none", "none"), ("local", 8.0)}
    assert price["local", 8.0]["noise_ratio"] == pytest.approx(np.sqrt(3))
    assert price["none", "none"]["noise_ratio"] is None
    assert price["local", 8.0]["difference"] == local["against_pooled"]["difference"]


def test_attacks_deaths_and_recommendation(found: Row) -> None:
    none = setting(found, "none", "none")
    assert none["attack"]["above_null"]
    assert (none["attack"]["hits"], none["attack"]["targets"], none["attack"]["goal"]) == (40, 100, "copied")
    assert found["deaths"]["pooled"]["copied"] == {"quiet_up_to": 8.0, "loud_from": "none"}
    assert (found["recommended"]["mechanism"], found["recommended"]["budget"]) == ("local", 8.0)
    assert found["recommended"]["attack"] == setting(found, "local", 8.0)["attack"]


def test_equal_noise_is_priced_for_this_federation(found: Row) -> None:
    rows = {row["mechanism"]: row for row in found["equal_noise"]}
    assert rows["local"]["noise_multiplier"] == pytest.approx(rows["pooled"]["noise_multiplier"] / np.sqrt(3))
    assert rows["pooled"]["budget"] == 8.0
    assert rows["local"]["epsilon_upper"] > rows["pooled"]["epsilon_upper"]


def test_a_budget_that_no_noise_reaches_keeps_nothing_else_from_being_compared(tmp_path: Path) -> None:
    whole = study(tmp_path, (10,))
    for cell in whole["cells"]:
        cell["summary"]["experiment"]["privacy"]["delta"] = 1e-15
    found = compare(tmp_path, {**whole, "axes": {**whole["axes"], "budgets": [1e-12, 8.0]}})
    first, *others = found["equal_noise"]
    assert (first["budget"], first["noise_multiplier"], first["mechanism"]) == (1e-12, None, "pooled")
    assert "no noise reaches" in first["note"]
    assert {row["budget"] for row in others} == {8.0}


def test_one_seed_says_so_and_has_no_share_of_seeds(tmp_path: Path) -> None:
    found = compare(tmp_path, study(tmp_path, (10,)))
    assert "One seed was run" in found["intervals"]["how"]
    assert setting(found, "local", 8.0)["seeds"] == 1
    assert any("one seed was run" in word for word in found["recommended"]["not_promised"])


def test_a_study_of_one_mechanism_has_nothing_to_compare_with(tmp_path: Path) -> None:
    whole = study(tmp_path)
    only = {**whole, "cells": [cell for cell in whole["cells"] if cell["mechanism"] == "local"]}
    found = compare(tmp_path, only)
    (row,) = found["settings"]
    assert (row["against_none"], row["against_pooled"]) == (None, None)
    assert set(row["why"]) == {"against_none", "against_pooled"}
    assert row["within_hospitals"]["against_none"] is None
    assert (found["joining"], found["price"], found["shared_noise"]) == ([], [], [])
    assert found["recommended"]["budget"] is None


def test_cells_that_were_judged_on_other_records_are_refused(tmp_path: Path) -> None:
    whole = study(tmp_path)
    keep(tmp_path / "cells" / "odd", IMAGES, np.array([f"j{k}" for k in range(180)]))
    with pytest.raises(InputError, match="judged on other records"):
        compare(
            tmp_path, {**whole, "cells": [*whole["cells"], {**whole["cells"][0], "cell": "odd", "folder": "cells/odd"}]}
        )


def segmented(folder: Path, seed: int) -> Segmented:
    generator = np.random.default_rng(seed)
    true = np.tile([900.0, 80.0, 12.0], (40, 1))
    true[20:, 2] = 0.0  # no tumour in the second half of the slices
    said = true * generator.uniform(0.7, 1.3, true.shape)
    said[30:, 2] = 0.0
    both = np.minimum(true, said) * generator.uniform(0.6, 1.0, true.shape)
    judged = Segmented(
        Overlaps(both, said, true, both, said, np.ones(40)), ("body", "liver", "tumour"), np.arange(40) // 2
    )
    folder.mkdir(parents=True)
    ids, labels = np.array([f"s{k}" for k in range(40)]), np.ones(40, dtype=np.int64)
    kept = Predictions(
        judged, labels, np.arange(40) // 2, ids, np.arange(40) // 14, HOSPITALS, ("body", "liver", "tumour"), 29
    )
    write_predictions(folder, kept)
    return judged


def test_outlines_are_compared_by_their_dice(tmp_path: Path) -> None:
    cells: list[Row] = []
    judged: dict[str, Segmented] = {}
    for mechanism, budget in (("none", "none"), ("local", 8.0)):
        judged[mechanism] = segmented(tmp_path / mechanism, len(mechanism))
        head = {"cell": mechanism, "mechanism": mechanism, "budget": budget, "seed": 1, "hospital": None}
        cells.append({**head, "folder": mechanism, "summary": summary_of(mechanism, budget, None, attacks_of(0))})
    found = compare(tmp_path, {"axes": {"budgets": [8.0]}, "cells": cells})
    local, none = setting(found, "local", 8.0), setting(found, "none", "none")
    assert local["metric"] == "dice_liver"
    assert (local["within_hospitals"], "does not rank" in local["why"]["within_hospitals"]) == (None, True)
    for row in (local, none):
        own = judged[row["mechanism"]].metrics()
        assert row["utility"]["estimate"] == pytest.approx(own["dice_liver"])
        assert row["minority"]["estimate"] == pytest.approx(own["dice_tumour"])
        assert (row["minority"]["class"], row["minority"]["metric"]) == ("tumour", "dice")
        assert row["minority"]["specificity"] is None
        assert (row["utility"]["n"], row["utility"]["units"]) == (40, 20)
    share = judged["local"].metrics(np.arange(14))["dice_liver"]
    assert local["hospitals"]["east"]["estimate"] == pytest.approx(share)
    assert local["hospitals"]["east"]["why"] == "fewer than 10 independent units"
    apart = local["against_none"]
    assert apart["difference"] == pytest.approx(local["utility"]["estimate"] - none["utility"]["estimate"])
    assert apart["low"] < apart["difference"] < apart["high"]
