"""Splits, folds, records, slices and the task itself."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from configs.errors import InputError
from configs.sections import HospitalSettings, TaskSettings
from tasks.base import Records, Splits
from tasks.msd_liver import msd_liver_task, phantom_root, write_phantom
from tasks.msd_liver.loading import site_of, split_scans
from tasks.partition import deal
from tests.tasks.msd_liver.conftest import Put


def settings(root: Path | str, **more: object) -> TaskSettings:
    return TaskSettings.model_validate(
        {"name": "msd_liver", "root": str(root), "image_size": 16, "depth": 8, "width": 8, **more}
    )


def parts(splits: Splits) -> tuple[Records, Records, Records]:
    return splits.train, splits.validation, splits.test


@pytest.mark.parametrize(
    ("count", "sizes"), [(131, (106, 12, 13)), (8, (5, 1, 2)), (3, (1, 1, 1)), (4, (2, 1, 1)), (24, (20, 2, 2))]
)
def test_sizes(count: int, sizes: tuple[int, int, int]) -> None:
    assert tuple(len(part) for part in split_scans(count, 0, 0)) == sizes


@pytest.mark.parametrize("count", [3, 4, 5, 8, 17, 40, 131])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_folds_cut_nothing_and_test_nobody_twice(count: int, seed: int) -> None:
    tested: list[set[int]] = []
    fold = 0
    while True:
        try:
            split = split_scans(count, seed, fold)
        except InputError as error:
            assert str(error).startswith("task.fold: ")  # noqa: PT017
            break
        everything = np.concatenate(split)
        assert sorted(everything.tolist()) == list(range(count))
        assert all(len(part) for part in split)
        tested.append(set(split[2].tolist()))
        fold += 1
    assert not any(a & b for a, b in combinations(tested, 2))
    assert len(set().union(*tested)) > count - len(tested[0]), "no further fold would fit"
    assert not np.array_equal(split_scans(40, seed, 0)[2], split_scans(40, seed + 1, 0)[2])


def test_too_few_scans_are_refused(put: Put, root: Path) -> None:
    put("liver_1")
    put("liver_2")
    with pytest.raises(InputError, match=r"2 readable scans"):
        msd_liver_task(settings(root)).load()
    with pytest.raises(InputError, match=r"task\.phantom_images: 2"):
        write_phantom(root / "new", images=2, seed=0)


@pytest.mark.parametrize(
    ("spacing", "site"),
    [
        (0.7, "slices up to 1 mm"),
        (1.0000001, "slices up to 1 mm"),
        (1.25, "slices over 1 to 3 mm"),
        (3.0000002, "slices over 1 to 3 mm"),
        (5.0, "slices over 3 mm"),
    ],
)
def test_sites(spacing: float, site: str) -> None:
    assert site_of(spacing) == site


def test_records(put: Put, root: Path) -> None:
    """Whatever part a scan lands in, it keeps its own picture, mask, label and groups."""
    planted: dict[str, tuple[int, bool, float]] = {}
    for k in range(7):
        image, label = np.full((12, 10, 8), -150 + 50 * k, np.int16), np.zeros((12, 10, 8), np.uint8)
        label[4:8, 4:8, 2:6] = 2 if k % 3 else 1
        spacing = (0.8, 2.0, 5.0)[k % 3]
        put(f"liver_{k}", image=image, label=label, spacing=(1.0, 1.0, spacing))
        planted[f"liver_{k}"] = (round(50 * k * 255 / 350), bool(k % 3), spacing)
    splits = msd_liver_task(settings(root)).load()
    seen: list[str] = []
    for part in parts(splits):
        assert part.pixels().shape == (len(part), 1, 8, 16, 16)
        for k, name in enumerate(part.ids.tolist()):
            level, tumour, spacing = planted[name]
            assert part.units[k] == name
            assert np.unique(part.pixels(slice(k, k + 1))).tolist() == [level]
            mask = part.targets(slice(k, k + 1))[0]
            assert mask.shape == (8, 16, 16)
            assert set(np.unique(mask).tolist()) == {0, 2 if tumour else 1}
            assert part.labels[k] == tumour
            assert part.groups["tumour"][k] == ("yes" if tumour else "no")
            assert part.sites[k] == part.groups["spacing"][k] == site_of(spacing)
            seen.append(name)
    assert sorted(seen) == sorted(planted)


def test_slices_keep_the_scan_as_their_unit(phantom: Path) -> None:
    whole = msd_liver_task(settings(phantom)).load()
    task = msd_liver_task(settings(phantom, slices=True))
    assert (task.shape, task.spec.shape, task.unit) == ((1, 16, 16), (1, 16, 16), "scan")
    for volumes, slices in zip(parts(whole), parts(task.load()), strict=True):
        assert len(slices) == 8 * len(volumes)
        assert set(slices.units.tolist()) == set(volumes.units.tolist())
        for k, (name, unit) in enumerate(zip(slices.ids.tolist(), slices.units.tolist(), strict=True)):
            scan = volumes.ids.tolist().index(unit)
            assert name == f"{unit}/{k % 8:03d}"
            one = slice(scan, scan + 1)
            np.testing.assert_array_equal(slices.pixels(slice(k, k + 1))[0], volumes.pixels(one)[0, :, k % 8])
            np.testing.assert_array_equal(slices.targets(slice(k, k + 1))[0], volumes.targets(one)[0, k % 8])
            assert slices.labels[k] == (2 in volumes.targets(one)[0, k % 8])


def test_the_task(phantom: Path) -> None:
    task = msd_liver_task(settings(phantom, crop=(4, 8, 12)))
    assert (task.name, task.unit, task.shape) == ("msd_liver", "scan", (1, 4, 8, 12))
    assert (task.spec.kind, task.spec.outputs, task.spec.shape, task.loss) == ("unet", 3, (1, 4, 8, 12), "dice")
    assert task.load().train.images.shape == (1, 8, 16, 16), "records stay whole"
    assert msd_liver_task(settings(phantom, loss="dice_ce")).loss == "dice_ce"


@pytest.mark.parametrize("crop", [(9, 8, 8), (8, 17, 8), (8, 8, 17), (0, 8, 8), (-1, 8, 8)])
def test_a_crop_must_fit(phantom: Path, crop: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match=r"task\.crop: "):
        msd_liver_task(settings(phantom, crop=crop))


def test_settings_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"task\.crop: .*task\.slices"):
        msd_liver_task(settings(tmp_path, crop=(2, 2, 2), slices=True))
    with pytest.raises(InputError, match=r"task\.root: not set"):
        msd_liver_task(TaskSettings(name="msd_liver"))
    for wrong, words in ((tmp_path / "no", "does not exist"), (tmp_path, "not in the official layout")):
        with pytest.raises(InputError, match=rf"task\.root: .*{words}"):
            msd_liver_task(settings(wrong)).load()
    (tmp_path / "imagesTr").mkdir()
    with pytest.raises(InputError, match="has no folder labelsTr"):
        msd_liver_task(settings(tmp_path)).load()
    (tmp_path / "labelsTr").mkdir()
    with pytest.raises(InputError, match="holds no labelled scan"):
        msd_liver_task(settings(tmp_path)).load()


def test_root_may_be_the_folder_or_its_parent(phantom: Path) -> None:
    outer, inner = (msd_liver_task(settings(r)).load() for r in (phantom, phantom / "Task03_Liver"))
    assert outer.fingerprint == inner.fingerprint
    np.testing.assert_array_equal(outer.test.pixels(), inner.test.pixels())


def test_a_damaged_cache_is_read_again(phantom: Path, own_cache: Path) -> None:
    before = msd_liver_task(settings(phantom)).load().train.pixels()
    (folder,) = own_cache.glob("msd_liver-8x16x16-*")
    with (folder / "images.bin").open("r+b") as file:
        file.truncate(100)
    np.testing.assert_array_equal(msd_liver_task(settings(phantom)).load().train.pixels(), before)


def test_a_tumour_lost_to_resampling_is_noted(put: Put, root: Path) -> None:
    for k in range(3):
        label = np.zeros((12, 10, 8), np.uint8)
        label[1, 1, 1] = 2 if k == 1 else 1
        put(f"liver_{k}", label=label)
    splits = msd_liver_task(settings(root, image_size=8, depth=2)).load()
    assert len(splits.notes) == 1
    assert splits.notes[0].startswith("liver_1: its tumour of 1 voxels")


def test_phantom_has_the_layout_and_the_priors(phantom: Path) -> None:
    home = phantom / "Task03_Liver"
    names = [f"liver_{9000 + k}.nii.gz" for k in range(4)]
    assert sorted(p.name for p in (home / "labelsTr").iterdir()) == names
    assert sorted(p.name for p in (home / "imagesTr").iterdir()) == [f"._{names[0]}", *names]
    everything = Records.joined(parts(msd_liver_task(settings(phantom, image_size=64, depth=32)).load()))
    assert sorted(everything.groups["tumour"].tolist()) == ["no", "yes", "yes", "yes"]
    share = np.bincount(everything.targets().ravel(), minlength=3) / everything.targets().size
    assert 0.02 < share[1] < 0.08, "LiTS: about .03 of a body-wide volume"
    assert 0 < share[2] < 0.02
    pixels, masks = everything.pixels()[:, 0], everything.targets()
    liver, tumour = ((pixels[masks == c].mean() * 350 / 255 - 150) for c in (1, 2))
    assert 70 < liver < 130, "portal-venous liver, HU"
    assert tumour < liver - 15


def test_phantom_is_a_function_of_its_seed(tmp_path: Path, own_cache: Path) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_phantom(tmp_path / folder, images=3, seed=seed)
    one, again, other = (
        [p.read_bytes() for p in sorted((tmp_path / folder).rglob("liver_*.nii.gz"))] for folder in "abc"
    )
    assert one == again
    assert one != other
    with pytest.raises(InputError, match="exists already"):
        write_phantom(tmp_path / "a", images=3, seed=1)


def test_phantom_root_is_written_once(own_cache: Path) -> None:
    given = settings("phantom", phantom_images=4)
    root = phantom_root(given, 7)
    stamp = (root / "PHANTOM.txt").stat().st_mtime_ns
    assert phantom_root(given, 7) == root
    assert (root / "PHANTOM.txt").stat().st_mtime_ns == stamp
    assert msd_liver_task(given, phantom_seed=7).load().fingerprint


def test_real_scans_are_dealt_to_hospitals(real_data: Path) -> None:
    held: list[str] = []
    for fold in range(4):
        splits = msd_liver_task(settings(real_data / "msd_liver", fold=fold)).load()
        train, test = splits.parts("test")
        dealt = deal(train, HospitalSettings(partition="iid", count=3), 10)
        assert [len(h.records) for h in dealt.hospitals] == [2, 2, 2]
        held += test.ids.tolist()
    assert len(set(held)) == len(held) == 8
    natural = deal(train, HospitalSettings(), 10)
    assert {h.name for h in natural.hospitals} <= {"slices over 1 to 3 mm", "slices over 3 mm"}
