import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import InputError
from configs.sections import HospitalSettings
from tasks.base import Mapped, Records
from tasks.partition import Deal, deal
from tests.tasks.conftest import make_records

SITES = ("rosendahl", "vidir_modern", "unknown")


@st.composite
def random_records(draw: st.DrawFn) -> Records:
    n = draw(st.integers(6, 60))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = generator.integers(1, 5, n).tolist()
    labels = generator.integers(0, draw(st.sampled_from([1, 2, 7])), n).tolist()
    sites = generator.choice(SITES, n).tolist()
    return make_records(sizes, labels, sites)


@st.composite
def random_settings(draw: st.DrawFn) -> HospitalSettings:
    partition = draw(st.sampled_from(["natural", "iid", "dirichlet", "size"]))
    return HospitalSettings(
        partition=partition,  # type: ignore[arg-type]
        count=None if partition == "natural" else draw(st.integers(1, 6)),
        alpha=draw(st.sampled_from([0.1, 0.5, 5.0])),
        max_records=draw(st.sampled_from([None, 4, 10])),
    )


def content(result: Deal) -> list[tuple[str, list[str]]]:
    named = [(hospital.name, hospital.records.ids.tolist()) for hospital in result.hospitals]
    return [*named, ("leftover", result.leftover.ids.tolist())]


def attempt(records: Records, wish: HospitalSettings, seed: int) -> Deal | None:
    # A strong label skew over few units may leave a hospital empty; every other wish here can be met.
    if wish.partition != "dirichlet":
        return deal(records, wish, seed)
    try:
        return deal(records, wish, seed)
    except InputError:
        return None


@settings(max_examples=120, deadline=None)
@given(records=random_records(), wish=random_settings(), seed=st.integers(0, 2**40))
def test_a_deal_is_a_partition_of_whole_units(records: Records, wish: HospitalSettings, seed: int) -> None:
    result = attempt(records, wish, seed)
    if result is None:
        return
    parts = [*(hospital.records for hospital in result.hospitals), result.leftover]
    ids = [name for part in parts for name in part.ids.tolist()]
    assert sorted(ids) == sorted(records.ids.tolist()), "sizes add up, no record twice"
    units = [unit for part in parts for unit in set(part.units.tolist())]
    assert len(units) == len(set(units)), "no unit in two places"
    names = [hospital.name for hospital in result.hospitals]
    assert names == sorted(set(names))
    if wish.count is not None:
        assert len(names) == wish.count
    for hospital in result.hospitals:
        assert len(hospital.records) <= (wish.max_records or len(records))
        assert len(hospital.records.unit_rows()) >= wish.min_units
        for k, row in enumerate(hospital.records.rows):  # labels and sites went along with their image
            assert hospital.records.ids[k] == records.ids[row]
            assert hospital.records.labels[k] == records.labels[row]
            assert hospital.records.sites[k] == records.sites[row]


@settings(max_examples=60, deadline=None)
@given(records=random_records(), wish=random_settings(), seed=st.integers(0, 2**40), shuffle=st.integers(0, 99))
def test_same_seed_same_deal_whatever_the_order(
    records: Records, wish: HospitalSettings, seed: int, shuffle: int
) -> None:
    result = attempt(records, wish, seed)
    mixed = records.take(np.random.default_rng(shuffle).permutation(len(records)))
    again = attempt(mixed, wish, seed)
    assert (result is None) == (again is None)
    if result is not None and again is not None:
        assert content(result) == content(again)


def test_another_seed_another_deal() -> None:
    records = make_records([1] * 60, [0, 1] * 30, ["a"] * 60)
    for partition in ("iid", "dirichlet", "size"):
        wish = HospitalSettings(partition=partition, count=3, alpha=2.0)
        assert content(deal(records, wish, 1)) != content(deal(records, wish, 2)), partition


def test_no_global_random_state_is_used_or_changed() -> None:
    records = make_records([1] * 40, [0, 1] * 20, ["a"] * 40)
    wish = HospitalSettings(partition="dirichlet", count=3, alpha=2.0)
    np.random.seed(1)  # noqa: NPY002 - the global state is what is tested
    first = content(deal(records, wish, 5))
    after = np.random.random()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    assert np.random.random() == after  # noqa: NPY002
    assert content(deal(records, wish, 5)) == first


def test_another_process_deals_alike() -> None:
    code = (
        "from tests.tasks.test_partition import content, example\n"
        "from tasks.partition import deal\n"
        "print([content(deal(*example(p), 7)) for p in ('natural', 'iid', 'dirichlet', 'size')])\n"
    )
    here = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(here), "PYTHONHASHSEED": "12345"}
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=here, env=environment, check=True
    )
    mine = [content(deal(*example(p), 7)) for p in ("natural", "iid", "dirichlet", "size")]
    assert answer.stdout.strip() == str(mine)


def example(partition: str) -> tuple[Records, HospitalSettings]:
    records = make_records([1, 2, 3, 1] * 10, [0, 0, 1, 0] * 10, ["a", "b", "a", "c"] * 10)
    count = None if partition == "natural" else 4
    return records, HospitalSettings(partition=partition, count=count, alpha=3.0, max_records=9)  # type: ignore[arg-type]


def test_natural_by_hand() -> None:
    records = Records(
        images=Mapped(np.zeros((7, 1, 1, 1), dtype=np.uint8)),
        labels=np.zeros(7, dtype=np.int64),
        units=np.array(["u1", "u1", "u1", "u2", "u3", "u3", "u4"]),
        sites=np.array(["y", "x", "y", "x", "y", "x", "z"]),
        ids=np.array([f"i{k}" for k in range(7)]),
        rows=np.arange(7, dtype=np.int64),
    )
    result = deal(records, HospitalSettings(), 1)
    # u1 lies mostly at y; u3 is torn evenly and goes to the first site by name.
    assert content(result) == [
        ("x", ["i3", "i4", "i5"]),
        ("y", ["i0", "i1", "i2"]),
        ("z", ["i6"]),
        ("leftover", []),
    ]


def test_iid_is_even_and_names_are_padded() -> None:
    records = make_records([2] * 103, [0] * 103, ["a"] * 103)
    result = deal(records, HospitalSettings(partition="iid", count=10), 1)
    assert [h.name for h in result.hospitals] == [f"hospital-{k:02d}" for k in range(1, 11)]
    assert sorted(len(h.records) for h in result.hospitals) == [20] * 7 + [22] * 3
    many = deal(records, HospitalSettings(partition="iid", count=100), 1)
    assert [h.name for h in many.hospitals][:2] == ["hospital-001", "hospital-002"]


def label_spread(alpha: float) -> float:
    records = make_records([1] * 2000, [0, 1] * 1000, ["a"] * 2000)
    result = deal(records, HospitalSettings(partition="dirichlet", count=5, alpha=alpha), 3)
    return float(np.std([h.records.labels.mean() for h in result.hospitals]))


def size_spread(alpha: float) -> float:
    records = make_records([1] * 2000, [0, 1] * 1000, ["a"] * 2000)
    result = deal(records, HospitalSettings(partition="size", count=8, alpha=alpha), 3)
    return float(np.std([len(h.records) for h in result.hospitals])) / 250


def test_alpha_means_skew() -> None:
    assert label_spread(0.5) > 0.15
    assert label_spread(1000.0) < 0.03
    assert size_spread(0.3) > 0.5
    assert size_spread(1000.0) < 0.1


def test_size_keeps_min_units_however_skewed() -> None:
    records = make_records([1] * 60, [0] * 60, ["a"] * 60)
    for seed in range(20):
        result = deal(records, HospitalSettings(partition="size", count=6, alpha=0.01, min_units=5), seed)
        sizes = [len(h.records) for h in result.hospitals]
        assert min(sizes) >= 5
        assert sum(sizes) == 60


def test_max_records_keeps_whole_units() -> None:
    records = make_records([4] * 20, [0] * 20, ["a"] * 20)
    result = deal(records, HospitalSettings(max_records=10), 1)
    assert len(result.hospitals[0].records) == 8
    assert len(result.leftover) == 72


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"partition": "iid", "count": 21}, ("hospitals.count", "21", "20")),
        ({"partition": "iid", "count": 5, "min_units": 5}, ("hospitals.min_units", "25", "20")),
        ({"partition": "iid"}, ("hospitals.count",)),
        ({"partition": "dirichlet", "count": 10, "alpha": 1e-3}, ("hospitals.min_units", "hospitals.alpha")),
        ({"partition": "natural"}, ("hospitals.partition", "dataset", "iid")),
        (
            {"partition": "iid", "count": 2, "max_records": 1},
            ("hospitals.min_units", "hospitals.max_records"),
        ),
        ({"partition": "size", "count": 2, "min_units": 8, "max_records": 14}, ("hospitals.max_records",)),
    ],
)
def test_the_impossible_is_refused_in_words(wish: dict[str, object], words: tuple[str, ...]) -> None:
    records = make_records([2] * 20, [0, 1] * 10, ["unknown"] * 20)
    with pytest.raises(InputError) as caught:
        deal(records, HospitalSettings.model_validate(wish), 1)
    for word in words:
        assert word in str(caught.value)


def test_a_small_natural_hospital_is_refused() -> None:
    records = make_records([1] * 5, [0] * 5, ["a", "a", "a", "a", "b"])
    with pytest.raises(InputError, match=r"hospitals\.min_units: 'b' has 1 units, fewer than 2"):
        deal(records, HospitalSettings(min_units=2), 1)
