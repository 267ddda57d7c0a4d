import csv
import hashlib
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.linear_model import RidgeClassifier

from configs.errors import InputError
from configs.sections import TaskSettings
from tasks.radimagenet import phantom as module
from tasks.radimagenet import phantom_root, radimagenet_task, write_phantom
from tasks.radimagenet.phantom_pictures import draw
from tasks.radimagenet.png import encode
from tasks.radimagenet.taxonomy import CLASSES, LABELS
from tests.tasks.radimagenet.conftest import CSVS


def digest(root: Path) -> str:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    content = b"".join(str(path.relative_to(root)).encode() + path.read_bytes() for path in files)
    return hashlib.sha256(content).hexdigest()


def classes_of(root: Path) -> list[Counter[str]]:
    counts: list[Counter[str]] = []
    for name in CSVS:
        with (root / name).open() as file:
            folders = [row["filename"].removeprefix("radiology_ai/").rpartition("/")[0] for row in csv.DictReader(file)]
        counts.append(Counter(folders))
    return counts


def test_layout(phantom: Path) -> None:
    files = list(phantom.glob("radiology_ai/*/**/*.png"))
    assert len(files) == 600
    assert len({path.name for path in files}) == 600
    counted = Counter(str(path.parent.relative_to(phantom / "radiology_ai")) for path in files)
    assert counted == sum(classes_of(phantom), Counter())
    with Image.open(files[0]) as picture:
        assert (picture.mode, picture.size) == ("RGB", (48, 48))


def test_every_class_occurs_and_the_priors_hold(phantom: Path) -> None:
    train, validation, test = classes_of(phantom)
    everything = train + validation + test
    assert set(train) == set(LABELS)
    total = sum(finding.images for finding in CLASSES)
    for finding in CLASSES:
        # One for everybody takes from what the others get in proportion.
        assert 1 <= everything[finding.folder] <= max(2, finding.images / total * 600 + 1)
    for folder, count in everything.items():
        if count >= 3:
            assert min(train[folder], validation[folder], test[folder]) >= 1


@settings(max_examples=60, deadline=None)
@given(images=st.integers(64, 30_000), seed=st.integers(0, 1000))
def test_plan_adds_up(images: int, seed: int) -> None:
    plan = module._plan(images, seed)
    numbers = np.concatenate([chosen.numbers for chosen in plan])
    assert sorted(numbers.tolist()) == list(range(images))
    for chosen in plan:
        assert 0 <= chosen.validation + chosen.test <= max(0, len(chosen.numbers) - 1)
        assert images < module.ALL_CLASSES or len(chosen.numbers) >= 1
    if images > 10_000:
        counts = np.array([len(chosen.numbers) for chosen in plan])
        weights = np.array([finding.images for finding in CLASSES])
        assert np.abs(counts - weights / weights.sum() * images).max() <= 0.02 * images / 2


def test_two_hundred_thousand_have_the_long_tail() -> None:
    counts = np.array([len(chosen.numbers) for chosen in module._plan(200_000, 0)])
    weights = np.array([finding.images for finding in CLASSES])
    expected = weights / weights.sum() * 200_000
    assert np.abs(counts - expected).max() < 0.01 * expected.max() + 1
    assert counts.max() / counts.min() > 1000


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_phantom(tmp_path / name, images=80, seed=seed, side=32)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 99))
def test_png_against_pillow(height: int, width: int, seed: int) -> None:
    grey = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    with Image.open(io.BytesIO(encode(grey)), formats=("PNG",)) as picture:
        picture.load()
        np.testing.assert_array_equal(np.array(picture), np.repeat(grey[:, :, None], 3, axis=2))


def test_modalities_look_like_themselves() -> None:
    generator = np.random.default_rng(0)
    ct, mr, us = (
        draw(CLASSES[LABELS[f]], 32, 96, generator).astype(float)
        for f in ("CT/lung/normal", "MR/brain/normal", "US/liver")
    )
    corners = np.s_[:, :10, :10]
    assert us[corners].max() == 0  # outside the sector
    assert mr[corners].mean() > 2  # a magnitude image has no black noise
    centre = np.s_[:, 40:56, 40:56]

    def relative(pictures: np.ndarray) -> float:
        # Noise from neighbour to neighbour over brightness: speckle is multiplicative and strong.
        return float(np.median(np.abs(np.diff(pictures[centre], axis=1)) / np.maximum(pictures[centre][:, 1:], 1)))

    assert relative(us) > 2 * max(relative(ct), relative(mr))
    lungs, chest = ct[:, 40:56, 26:34].mean(), ct[:, 76:82, 44:52].mean()
    assert lungs < 0.6 * chest


def test_a_linear_model_learns_something_but_not_all(own_cache: Path) -> None:
    settings = TaskSettings(name="radimagenet", root="phantom", phantom_images=4000, image_size=24)
    splits = radimagenet_task(settings).load()
    train, test = (part.pixels().reshape(len(part), -1) / 255 - 0.5 for part in (splits.train, splits.test))
    model = RidgeClassifier(alpha=30).fit(train, splits.train.labels)
    right = float((model.predict(test) == splits.test.labels).mean())
    prior = float(np.bincount(splits.test.labels).max() / len(splits.test))
    assert right > 2 * prior
    assert right < 0.97


def test_an_interrupted_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "draw", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "rin", images=64, seed=1)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_and_too_few_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        write_phantom(tmp_path, images=64, seed=1)
    with pytest.raises(InputError, match=r"task\.phantom_images: 63"):
        write_phantom(tmp_path / "new", images=63, seed=1)


def test_the_cached_phantom(own_cache: Path) -> None:
    settings = TaskSettings(name="radimagenet", root="phantom", phantom_images=64, image_size=8)
    task = radimagenet_task(settings, 1)
    assert not own_cache.exists() or list(own_cache.iterdir()) == [], "nothing is written before the data are asked for"
    root = phantom_root(settings)
    assert root.parent == own_cache
    before = root.stat().st_mtime_ns
    assert phantom_root(settings) == root
    assert root.stat().st_mtime_ns == before
    assert task.load().fingerprint != radimagenet_task(settings, 0).load().fingerprint
