"""Which hospital belongs to which class, and what of it is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import Experiment, InputError, load
from configs.runtime import REST, HospitalClass, RaySettings, RuntimeSettings

NAMES = ["berlin", "bern", "graz", "vienna_east", "vienna_west"]


def classes(**asked: list[str]) -> RaySettings:
    return RaySettings.model_validate({"classes": {name: {"hospitals": own} for name, own in asked.items()}})


def test_a_hospital_belongs_to_the_first_class_that_names_it_and_the_rest_to_none() -> None:
    settings = classes(big=["vienna_*", "bern"], small=["ber*"])
    assert settings.sort(NAMES) == ("small", "big", REST, "big", "big")
    assert RaySettings().sort(NAMES) == (REST,) * 5


@given(order=st.permutations(NAMES))
def test_the_class_does_not_depend_on_the_order_of_the_deal(order: list[str]) -> None:
    settings = classes(big=["*_east", "g*"], small=["[bv]*"])
    straight = dict(zip(NAMES, settings.sort(NAMES), strict=True))
    assert dict(zip(order, settings.sort(order), strict=True)) == straight


def test_a_hospital_that_does_not_train_in_this_run_may_be_named() -> None:
    settings = classes(big=["vienna_*"])
    assert settings.sort(["pooled"], NAMES) == (REST,)
    with pytest.raises(InputError, match="none of the 1 hospitals"):
        settings.sort(["pooled"])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"big": ["viena_east"]}, r"classes\.big\.hospitals: 'viena_east' is none .* did you mean 'vienna_east'\?"),
        ({"big": ["q*"]}, r"classes\.big\.hospitals: 'q\*' is none of the 5 hospitals; there are berlin, bern"),
        ({"big": ["b*"], "small": ["bern"]}, r"classes\.small\.hospitals: all of them belong to classes before it"),
    ],
)
def test_a_class_without_hospitals_is_refused(asked: dict[str, list[str]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        classes(**asked).sort(NAMES)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("ray.classes.big={hospitals: [a], gpu: 1}", r"runtime\.ray\.classes\.big\.gpu: unknown key; .*'gpus'"),
        ("ray.classes.big={hospitals: []}", r"runtime\.ray\.classes\.big\.hospitals: .*at least 1"),
        ("ray.classes.big={hospitals: [a], gpus: 1.5}", r"classes\.big\.gpus: 1\.5 GPUs: .*\(up to 1\) or whole"),
        ("ray.classes.big={hospitals: [a], resources: {GPU: 1}}", r"resources: 'GPU' has a key of its own; set gpus"),
        ("ray.classes.big={hospitals: [a], strategy: PAK}", r"strategy: 'PAK' is not allowed"),
        ("gpus_per_hospital=2.5", r"runtime\.gpus_per_hospital: 2\.5 GPUs"),
        ("ray.root={a: b}", r"runtime\.ray\.root: unknown key; did you mean 'roots'"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load("demo", [f"runtime.{setting}"])


def test_flowers_own_engine_knows_no_classes() -> None:
    with pytest.raises(InputError, match=r"runtime: ray\.classes: Flower's own engine"):
        load("demo", ["runtime.engine=flower", "runtime.ray.classes.big={hospitals: ['*']}"])


@pytest.mark.parametrize(
    "ray",
    [
        {"address": "10.0.0.1:6379"},
        {"classes": {"big": {"hospitals": ["*"], "gpus": 0.5, "strategy": "SPREAD"}}},
        {"roots": {"a": "/data"}, "patience": 3},
    ],
)
def test_where_a_run_is_executed_is_no_part_of_what_it_is(ray: dict[str, Any]) -> None:
    there = Experiment().updated(runtime={"engine": "ray", "ray": ray})
    assert there.digest() == Experiment().digest()
    assert Experiment.model_validate(there.model_dump(mode="json")) == there
    assert there.runtime.ray.placed


def test_the_settings_are_frozen_and_without_a_cluster_nobody_is_placed() -> None:
    settings = RuntimeSettings()
    assert not settings.ray.placed
    with pytest.raises(ValueError, match="frozen"):
        settings.ray.patience = 3  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        HospitalClass(hospitals=("a",)).workers = 3  # type: ignore[misc]
