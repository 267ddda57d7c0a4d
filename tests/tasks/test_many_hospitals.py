"""Units are dealt as Flower Datasets deals them, whose partitioners are independent of ours; also to ten thousand."""

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.errors import InputError
from configs.sections import HospitalSettings
from configs.seeds import derive
from tasks.partition import deal
from tasks.partitioners import assign
from tests.tasks.conftest import make_records

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner


def originals(labels: NDArray[np.int64], settings: HospitalSettings, seed: int) -> list[NDArray[np.int64]]:
    from datasets import Dataset
    from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner

    assert settings.count is not None
    partitioner: Partitioner = IidPartitioner(settings.count)
    if settings.partition == "dirichlet":
        partitioner = DirichletPartitioner(
            settings.count,
            "label",
            alpha=settings.alpha,
            min_partition_size=settings.min_units,
            shuffle=False,
            seed=derive(seed, "deal", "partitioner"),
        )
    order = np.random.default_rng(derive(seed, "deal", "order")).permutation(len(labels))
    partitioner.dataset = Dataset.from_dict({"unit": order, "label": labels[order]})
    with warnings.catch_warnings():  # of each failed attempt
        warnings.simplefilter("ignore")
        return [np.sort(partitioner.load_partition(k)["unit"][:]) for k in range(settings.count)]


@pytest.mark.parametrize(("units", "count", "classes"), [(200, 7, 2), (97, 20, 2), (333, 3, 165)])
@pytest.mark.parametrize(
    ("partition", "alpha", "least"), [("iid", 1.0, 1), ("dirichlet", 0.5, 1), ("dirichlet", 10.0, 2)]
)
def test_units_are_dealt_as_flower_datasets_deals_them(
    units: int, count: int, classes: int, partition: str, alpha: float, least: int
) -> None:
    settings = HospitalSettings(partition=partition, count=count, alpha=alpha, min_units=least)  # type: ignore[arg-type]
    for seed in range(4):
        labels = np.random.default_rng(seed).integers(0, classes, units)
        try:
            expected = originals(labels, settings, seed)
        except ValueError:
            with pytest.raises(InputError, match=r"hospitals\.min_units"):
                assign(labels, settings, seed)
            continue
        got = assign(labels, settings, seed)
        assert [part.tolist() for part in got] == [part.tolist() for part in expected]


@pytest.mark.parametrize("partition", ["iid", "size", "dirichlet"])
def test_ten_thousand_hospitals_are_dealt_whole_units_each_once(partition: str) -> None:
    generator = np.random.default_rng(0)
    sizes = generator.integers(1, 4, 80_000 if partition == "dirichlet" else 25_000)
    records = make_records(sizes.tolist(), generator.integers(0, 2, len(sizes)).tolist(), ["unknown"] * len(sizes))
    dealt = deal(records, HospitalSettings(partition=partition, count=10_000, alpha=4.0), 3)  # type: ignore[arg-type]
    names = [hospital.name for hospital in dealt.hospitals]
    assert len(names) == 10_000
    assert names == sorted(set(names))
    counts = [len(np.unique(hospital.records.units)) for hospital in dealt.hospitals]
    assert min(counts) >= 1
    assert sum(counts) == len(sizes), "a unit in two places would be counted twice"
    if partition == "iid":
        assert max(counts) - min(counts) <= 1
    rows = np.concatenate([hospital.records.rows for hospital in dealt.hospitals])
    assert np.array_equal(np.sort(rows), np.arange(len(records)))
