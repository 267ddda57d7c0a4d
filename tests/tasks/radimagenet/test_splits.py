import csv
import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from configs.errors import InputError
from configs.sections import HospitalSettings, TaskSettings
from tasks.base import Records, Splits
from tasks.lazy import Lazy
from tasks.partition import deal
from tasks.radimagenet import radimagenet_task
from tasks.radimagenet.loading import NO_PATIENTS, load_splits
from tests.tasks.radimagenet.conftest import CSVS, ROWS, Writer


def parts(splits: Splits) -> tuple[Records, Records, Records]:
    return splits.train, splits.validation, splits.test


def reference(path: Path, size: int) -> np.ndarray:
    picture = Image.open(path)
    picture.load()
    return np.array(picture.convert("L").resize((size, size), resample=2))[None]  # 2: bilinear


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open() as stream:
        return list(csv.DictReader(stream))


def test_the_split_is_the_csvs_own(phantom: Path) -> None:
    splits = load_splits(phantom, size=16)
    for name, part in zip(CSVS, parts(splits), strict=True):
        names = {Path(row["filename"]).stem: row["filename"].split("/")[1:-1] for row in rows_of(phantom / name)}
        assert set(part.ids.tolist()) == set(names)
        for k, stem in enumerate(part.ids.tolist()):
            *site, _ = names[stem]
            assert part.sites[k] == "/".join(site)
            assert part.groups["modality"][k] == site[0]
            assert part.groups["anatomy"][k] == (site[1] if site[1:] else "")
    assert sum(map(len, parts(splits))) == 600
    assert NO_PATIENTS in splits.notes


def test_pixels_equal_an_independent_reading(phantom: Path, own_cache: Path) -> None:
    splits = load_splits(phantom, size=20)
    for name, part in zip(CSVS, parts(splits), strict=True):
        paths = {Path(row["filename"]).stem: phantom / row["filename"] for row in rows_of(phantom / name)}
        index = np.random.default_rng(0).permutation(len(part))[:40]
        for _ in range(2):  # decoded, then from the store
            for k, pixels in zip(index, part.pixels(index), strict=True):
                np.testing.assert_array_equal(pixels, reference(paths[str(part.ids[k])], 20))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA"])
def test_other_modes_of_png(write: Writer, own_cache: Path, mode: str) -> None:
    root = write()
    path = root / ROWS[1][0]
    Image.open(path).convert(mode).save(path)
    np.testing.assert_array_equal(load_splits(root, size=8).validation.pixels()[0], reference(path, 8))


def test_nothing_is_decoded_before_it_is_read(phantom: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", None)
    splits = load_splits(phantom, size=16)
    assert isinstance(splits.train.images, Lazy)
    assert not [path for path in own_cache.iterdir() if path.is_dir()]
    with pytest.raises(TypeError):
        splits.train.pixels(np.array([0]))


def test_names_that_two_folders_share(write: Writer, own_cache: Path) -> None:
    rows = (("radiology_ai/US/liver/a.png", "radiology_ai/US/spleen/a.png"), *ROWS[1:])
    splits = load_splits(write(rows), size=8)
    assert splits.train.ids.tolist() == ["US/liver/a", "US/spleen/a"]
    assert splits.validation.ids.tolist() == ["US/liver/usn053022"]


def test_a_missing_image(write: Writer, own_cache: Path) -> None:
    root = write()
    whole = load_splits(root, size=8)
    (root / ROWS[0][1]).unlink()
    with pytest.raises(
        InputError, match=r"acl1\.png' is listed in RadiologyAI_train\.csv.*1 of 4.*task\.damaged: skip"
    ):
        load_splits(root, size=8)
    less = load_splits(root, size=8, damaged="skip")
    assert less.train.ids.tolist() == ["lung-normal000032"]
    assert any("acl1.png" in note and note.startswith("1 images") for note in less.notes)
    assert less.fingerprint != whole.fingerprint
    np.testing.assert_array_equal(less.train.pixels(), whole.train.pixels(np.array([0])))


def test_a_part_without_any_image(write: Writer, own_cache: Path) -> None:
    root = write()
    (root / ROWS[2][0]).unlink()
    with pytest.raises(InputError, match=r"no image of RadiologyAI_test\.csv is left"):
        load_splits(root, size=8, damaged="skip")


def test_absent_classes_and_unnamed_files_are_noted(write: Writer, own_cache: Path) -> None:
    root = write()
    (root / "radiology_ai/US/liver/extra.png").touch()
    notes = load_splits(root, size=8).notes
    assert any(note.startswith("1 PNG files") for note in notes)
    assert any(note.startswith("161 classes have no image: CT/abd/abnormal_entire_organ,") for note in notes)
    assert any(note.startswith("163 classes have no training image") for note in notes)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def jpeg(path: Path) -> None:
    Image.new("RGB", (4, 4)).save(path, format="JPEG")


def deep(path: Path) -> None:
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(path)


def bomb(path: Path) -> None:
    content = bytearray(path.read_bytes())
    header = content.index(b"IHDR")
    content[header + 4 : header + 12] = (6_000).to_bytes(4, "big") * 2
    import zlib

    content[header + 17 : header + 21] = zlib.crc32(content[header : header + 17]).to_bytes(4, "big")
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncated, empty, jpeg, deep, bomb])
def test_a_damaged_image_stops_and_is_then_left_out(write: Writer, own_cache: Path, damage) -> None:
    root = write()
    path = root / ROWS[0][1]
    original = path.read_bytes()
    damage(path)
    splits = load_splits(root, size=8, damaged="skip")
    assert len(splits.train) == 2  # nobody can know before it is read
    with pytest.raises(InputError, match=r"acl1\.png: .*task\.damaged: skip"):
        splits.train.pixels()
    assert len(load_splits(root, size=8, damaged="stop").train) == 2
    less = load_splits(root, size=8, damaged="skip")
    assert less.train.ids.tolist() == ["lung-normal000032"]
    assert any(note.startswith("Left out: ") and "acl1.png" in note for note in less.notes)
    path.write_bytes(original)
    again = load_splits(root, size=8, damaged="skip")
    assert len(again.train) == 2
    np.testing.assert_array_equal(again.train.pixels()[1], reference(path, 8))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    partition=st.sampled_from(["natural", "iid", "dirichlet", "size"]),
    count=st.integers(2, 12),
    seed=st.integers(0, 2**32),
    alpha=st.sampled_from([0.3, 1.0, 10.0]),
)
def test_no_image_stands_in_two_places(phantom: Path, partition: str, count: int, seed: int, alpha: float) -> None:
    splits = load_splits(phantom, size=8)
    natural = partition == "natural"
    request = HospitalSettings.model_validate(
        {"partition": partition, "count": None if natural else count, "alpha": alpha, "min_units": 1}
    )
    try:
        dealt = deal(splits.train, request, seed)
    except InputError as error:
        assert partition == "dirichlet"
        assert "hospitals." in str(error)  # noqa: PT017 - a deal that small may be impossible
        return
    everywhere = [h.records for h in dealt.hospitals] + [dealt.leftover, splits.validation, splits.test]
    ids = [name for records in everywhere for name in records.ids.tolist()]
    assert len(ids) == len(set(ids)) == 600
    rows = np.concatenate([records.rows for records in everywhere])
    assert len(np.unique(rows)) == 600
    if natural:
        assert {h.name for h in dealt.hospitals} == set(splits.train.sites.tolist())
        assert all(set(h.records.sites.tolist()) == {h.name} for h in dealt.hospitals)


def test_two_processes_load_and_read_at_once(own_cache: Path) -> None:
    code = (
        "import hashlib\n"
        "from configs.sections import TaskSettings\n"
        "from tasks.radimagenet import radimagenet_task\n"
        "settings = TaskSettings(name='radimagenet', root='phantom', phantom_images=300, classes=165)\n"
        "splits = radimagenet_task(settings).load()\n"
        "print(splits.fingerprint, hashlib.sha256(splits.train.pixels().tobytes()).hexdigest())\n"
    )
    here = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(here), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert answers[0] == answers[1] != ""
    assert [path for path in own_cache.iterdir() if path.name.startswith(".")] == []
    splits = radimagenet_task(TaskSettings(name="radimagenet", root="phantom", phantom_images=300, classes=165)).load()
    assert answers[0].split()[1] == hashlib.sha256(splits.train.pixels().tobytes()).hexdigest()


def test_the_task(phantom: Path) -> None:
    task = radimagenet_task(TaskSettings(name="radimagenet", root=str(phantom), image_size=16, width=8))
    assert (task.unit, task.shape, task.loss) == ("image", (1, 16, 16), "categorical")
    assert task.spec.outputs == len(task.class_names) == 165
    splits = task.load()
    names = Counter(task.class_names[label].rpartition("/")[0] for label in splits.train.labels.tolist())
    assert names == Counter(splits.train.sites.tolist())
    with pytest.raises(InputError, match=r"task\.root: not set.*radimagenet\.com"):
        radimagenet_task(TaskSettings(name="radimagenet"))
