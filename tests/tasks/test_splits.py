from pathlib import Path

import numpy as np
import pytest

from configs.errors import InputError
from configs.sections import HospitalSettings, TaskSettings
from tasks.base import Records, Splits
from tasks.ham10000.metadata import DIAGNOSES
from tasks.partition import deal
from tasks.registry import get
from tests.tasks.conftest import Writer


def parts(splits: Splits) -> tuple[Records, Records, Records]:
    return splits.train, splits.validation, splits.test


def assert_no_leak(splits: Splits, total: int) -> None:
    train, validation, test = (set(part.units.tolist()) for part in parts(splits))
    assert not train & validation
    assert not train & test
    assert not validation & test
    ids = np.concatenate([part.ids for part in parts(splits)])
    assert len(ids) == len(set(ids.tolist())) == total


@pytest.mark.parametrize("seed", [0, 1, 2, 10])
def test_split_never_cuts_a_lesion(phantom: Path, seed: int) -> None:
    splits = get(TaskSettings(root=str(phantom), split_seed=seed)).load()
    assert_no_leak(splits, 400)


def test_split_is_a_function_of_its_seed(phantom: Path) -> None:
    first, again, other = (
        get(TaskSettings(root=str(phantom), split_seed=seed)).load().test.ids.tolist() for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_split_is_stratified(phantom: Path) -> None:
    splits = get(TaskSettings(root=str(phantom), classes=7)).load()
    lesions = [len(part.unit_rows()) for part in parts(splits)]
    everything = sum(lesions)
    assert lesions[2] == pytest.approx(everything / 10, abs=1)
    assert lesions[1] == pytest.approx(everything * 0.09, abs=1)
    for label in range(7):
        counts = [len(np.unique(part.units[part.labels == label])) for part in parts(splits)]
        assert abs(counts[2] - sum(counts) / 10) <= 1, DIAGNOSES[label]


def test_labels(write: Writer) -> None:
    root = str(write())
    expected = {"ISIC_1": (0, 5), "ISIC_2": (0, 5), "ISIC_3": (1, 4), "ISIC_4": (1, 0)}  # nv, nv, mel, akiec
    for column, classes in enumerate((2, 7)):
        splits = get(TaskSettings(root=root, classes=classes, image_size=8)).load()
        for part in parts(splits):
            for name, label in zip(part.ids.tolist(), part.labels.tolist(), strict=True):
                assert label == expected[name][column]


def test_a_single_lesion_is_no_crash(write: Writer) -> None:
    root = write(["HAM_1,ISIC_1,nv,histo,45.0,male,back,rosendahl"])
    splits = get(TaskSettings(root=str(root), image_size=8)).load()
    assert sum(len(part) for part in parts(splits)) == 1


@pytest.mark.parametrize(("classes", "outputs"), [(2, 1), (7, 7)])
def test_the_task(classes: int, outputs: int) -> None:
    task = get(TaskSettings(root="phantom", classes=classes, image_size=24, width=4))  # type: ignore[arg-type]
    assert (task.name, task.unit, task.shape) == ("ham10000", "lesion", (3, 24, 24))
    assert len(task.class_names) == classes
    assert (task.spec.kind, task.spec.outputs, task.spec.width) == ("resnet9", outputs, 4)
    assert task.spec.shape == (3, 24, 24)


def test_a_root_must_be_set() -> None:
    with pytest.raises(InputError, match=r"task\.root: .*'phantom'"):
        get(TaskSettings())


def test_real_split_and_hospitals(data: Path) -> None:
    splits = get(TaskSettings(root=str(data / "ham10000"), image_size=8)).load()
    assert_no_leak(splits, 10_015)
    sizes = [len(part) for part in parts(splits)]
    np.testing.assert_allclose(sizes, (8082, 920, 1013), rtol=0.03)
    for part in parts(splits):
        assert part.labels.mean() == pytest.approx(0.195, abs=0.01)
    dealt = deal(splits.train, HospitalSettings(), 10)
    assert [h.name for h in dealt.hospitals] == ["rosendahl", "vidir_modern", "vidir_molemax", "vienna_dias"]
    shares = [len(h.records) / sizes[0] for h in dealt.hospitals]
    np.testing.assert_allclose(shares, np.array([2259, 3363, 3954, 439]) / 10_015, atol=0.015)
    lesions = [set(h.records.units.tolist()) for h in dealt.hospitals]
    assert sum(map(len, lesions)) == len(set().union(*lesions)), "the nine lesions of two sites went to one each"
