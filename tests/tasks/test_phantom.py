import csv
import hashlib
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import structural_similarity
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from configs.errors import InputError
from configs.sections import TaskSettings
from tasks.base import Records, Splits
from tasks.ham10000 import phantom as module
from tasks.ham10000 import phantom_root, write_phantom
from tasks.losses import loss
from tasks.models import build, initial_weights, load_weights, normalise
from tasks.registry import get
from tasks.registry import phantom as phantom_task

# Counted in the official metadata: images per diagnosis and per site.
DIAGNOSES = {"nv": 6705, "mel": 1113, "bkl": 1099, "bcc": 514, "akiec": 327, "vasc": 142, "df": 115}
SITES = {"vidir_molemax": 3954, "vidir_modern": 3363, "rosendahl": 2259, "vienna_dias": 439}
COLUMNS = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset"]


def rows_of(root: Path) -> list[dict[str, str]]:
    with (root / "HAM10000_metadata.csv").open() as file:
        return list(csv.DictReader(file))


def digest(root: Path) -> str:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    content = b"".join(str(path.relative_to(root)).encode() + path.read_bytes() for path in files)
    return hashlib.sha256(content).hexdigest()


def test_layout(phantom: Path) -> None:
    rows = rows_of(phantom)
    assert list(rows[0]) == COLUMNS
    assert len(rows) == 400
    files = [*phantom.glob("HAM10000_images_part_1/*.jpg"), *phantom.glob("HAM10000_images_part_2/*.jpg")]
    assert {path.stem for path in files} == {row["image_id"] for row in rows}
    assert len(list(phantom.glob("HAM10000_images_part_1/*"))) == 200
    assert Image.open(files[0]).size == (200, 150)


def test_priors(phantom: Path) -> None:
    rows = rows_of(phantom)
    for column, expected in (("dx", DIAGNOSES), ("dataset", SITES)):
        counts = Counter(row[column] for row in rows)
        for name, count in expected.items():
            assert abs(counts[name] - count * 400 / 10_015) <= 4, name
    assert {row["dataset"] for row in rows if row["dx"] == "akiec"} <= {"rosendahl", "vidir_modern"}


def test_lesions(phantom: Path) -> None:
    lesions: dict[str, list[dict[str, str]]] = {}
    for row in rows_of(phantom):
        lesions.setdefault(row["lesion_id"], []).append(row)
    sizes = Counter(map(len, lesions.values()))
    assert set(sizes) <= {1, 2, 3, 4}
    assert 0.6 < sizes[1] / len(lesions) < 0.9  # 74 % in HAM10000
    shared = ("dx", "dx_type", "age", "sex", "localization", "dataset")
    assert all(len({tuple(row[c] for c in shared) for row in group}) == 1 for group in lesions.values())


@pytest.mark.parametrize("images", [64, 65, 100])
def test_every_diagnosis_and_site_occurs(tmp_path: Path, images: int) -> None:
    write_phantom(tmp_path / "ham", images=images, seed=images)
    rows = rows_of(tmp_path / "ham")
    assert len(rows) == images
    assert {row["dx"] for row in rows} == set(DIAGNOSES)
    assert {row["dataset"] for row in rows} == set(SITES)


def test_same_seed_same_bytes_and_speed(tmp_path: Path) -> None:
    start = time.process_time()
    write_phantom(tmp_path / "a", images=64, seed=1)
    seconds = time.process_time() - start
    write_phantom(tmp_path / "b", images=64, seed=1)
    write_phantom(tmp_path / "c", images=64, seed=2)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")
    assert seconds < 64 / 20  # above 100 images/s on a free core; a busy one gets room


def test_an_interrupted_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "photograph", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "ham", images=64, seed=1)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        write_phantom(tmp_path, images=64, seed=1)
    with pytest.raises(InputError, match="phantom_images"):
        write_phantom(tmp_path / "new", images=63, seed=1)


def test_the_cached_phantom(own_cache: Path) -> None:
    settings = TaskSettings(root="phantom", phantom_images=64, image_size=8)
    root = phantom_root(settings)
    assert root.parent == own_cache
    before = root.stat().st_mtime_ns
    assert phantom_root(settings) == root
    assert root.stat().st_mtime_ns == before
    task = phantom_task(settings, 1)
    assert len(list(own_cache.iterdir())) == 1, "nothing is written before the data are asked for"
    other = task.load()
    assert other.fingerprint != phantom_task(settings, 0).load().fingerprint


def similarity(records: Records, i: int, j: int) -> float:
    a, b = (records.pixels(slice(k, k + 1))[0].transpose(1, 2, 0) for k in (i, j))
    return float(structural_similarity(a, b, channel_axis=2, data_range=255))


def test_lesions_differ_and_views_of_one_are_alike(phantom_splits: Splits) -> None:
    records = phantom_splits.train
    generator = np.random.default_rng(0)
    pairs = [(int(i), int(j)) for i, j in generator.integers(len(records), size=(200, 2))]
    different = [similarity(records, i, j) for i, j in pairs if records.units[i] != records.units[j]]
    same = [similarity(records, int(r[0]), int(r[1])) for r in records.unit_rows() if len(r) > 1]
    assert np.mean(different) < 0.5
    assert np.max(different) < 0.8
    assert np.mean(same) > np.mean(different) + 0.3


def simple_features(records: Records) -> np.ndarray:
    """Colours of the middle and of the rim, and how much they scatter: what a first glance tells."""
    x = records.pixels().astype(np.float64) / 255
    middle, rim = x[:, :, 8:24, 8:24], np.concatenate([x[:, :, :4], x[:, :, -4:]], axis=2)
    return np.concatenate(
        [middle.mean((2, 3)) - rim.mean((2, 3)), middle.std((2, 3)), middle.min((2, 3)), rim.mean((2, 3))],
        axis=1,
    )


def test_the_planted_structure_is_learnable_but_not_trivial(phantom_splits: Splits) -> None:
    train, test = phantom_splits.train, Records.joined([phantom_splits.validation, phantom_splits.test])
    features = simple_features(train)
    mean, std = features.mean(0), features.std(0)
    model = LogisticRegression(C=1.0, max_iter=1000).fit((features - mean) / std, train.labels)
    area = roc_auc_score(test.labels, model.decision_function((simple_features(test) - mean) / std))
    assert 0.6 < area < 0.95


@pytest.mark.slow
def test_a_small_network_learns_it(phantom_splits: Splits, tmp_path: Path) -> None:
    write_phantom(tmp_path / "other", images=200, seed=4)
    task = get(TaskSettings(root=str(tmp_path / "other"), width=8))
    splits = task.load()
    unseen = Records.joined([splits.train, splits.validation, splits.test])
    train = phantom_splits.train
    model = build(task.spec)
    load_weights(model, initial_weights(task.spec, 1))
    optimiser = torch.optim.NAdam(model.parameters(), lr=5e-3)
    generator = np.random.default_rng(1)
    for _ in range(30):
        batch = generator.choice(len(train), 64, replace=False)
        logits = model(normalise(torch.from_numpy(train.pixels(batch))))
        optimiser.zero_grad()
        loss("binary")(logits, torch.from_numpy(train.labels[batch])).mean().backward()
        optimiser.step()
    with torch.no_grad():
        scores = model(normalise(torch.from_numpy(unseen.pixels())))[:, 0].numpy()
    area = roc_auc_score(unseen.labels, scores)
    assert 0.7 < area < 0.97, area
