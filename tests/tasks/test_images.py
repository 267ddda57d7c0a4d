import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.errors import InputError
from tasks.ham10000 import images
from tasks.ham10000.images import decode, load_images
from tasks.ham10000.loading import load_splits
from tasks.ham10000.metadata import read_metadata
from tests.tasks.conftest import Writer


def reference(path: Path, size: int) -> np.ndarray:
    picture = Image.open(path)
    resized = picture.convert("RGB").resize((size, size), resample=2)  # 2: bilinear
    return np.stack([np.array(band) for band in resized.split()])


def test_cached_pixels_equal_an_independent_reading(write: Writer, own_cache: Path) -> None:
    metadata = read_metadata(write())
    array, damaged = load_images(metadata, 16)
    assert damaged == {}
    assert array.shape == (4, 3, 16, 16)
    assert array.dtype == np.uint8
    assert array.flags.c_contiguous
    assert not array.flags.writeable
    for image, path in zip(array, metadata.paths, strict=True):
        np.testing.assert_array_equal(image, reference(path, 16))
    np.testing.assert_array_equal(array, load_images(metadata, 16)[0])
    assert len(list(own_cache.iterdir())) == 1


def test_orientation_channels_and_squeeze(tmp_path: Path) -> None:
    pixels = np.zeros((60, 80, 3), dtype=np.uint8)
    pixels[:30, :40] = (255, 0, 0)  # above left
    pixels[:30, 40:] = (0, 255, 0)  # above right
    pixels[30:, :40] = (0, 0, 255)  # below left
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=100, subsampling=0)
    small = decode(tmp_path / "a.jpg", 8).astype(int)
    expected = np.zeros((3, 8, 8), dtype=int)
    expected[0, :4, :4] = expected[1, :4, 4:] = expected[2, 4:, :4] = 255
    inner = np.ix_(range(3), [0, 1, 6, 7], [0, 1, 6, 7])  # away from the edges between the colours
    assert np.abs(small - expected)[inner].max() <= 3


def test_reduction_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((120, 160, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.jpg", quality=100, subsampling=0)
    assert np.abs(decode(tmp_path / "a.jpg", 16).astype(int) - 127).max() <= 6


def test_grey_jpeg_becomes_three_channels(tmp_path: Path) -> None:
    Image.fromarray(np.full((30, 40), 90, dtype=np.uint8)).save(tmp_path / "a.jpg")
    assert np.abs(decode(tmp_path / "a.jpg", 8).astype(int) - 90).max() <= 2


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("no picture")


def png(path: Path) -> None:
    Image.new("RGB", (4, 4)).save(path, format="PNG")


@pytest.mark.parametrize("damage", [truncated, empty, text, png])
def test_a_bad_image_is_named_and_nothing_stays(write: Writer, own_cache: Path, damage) -> None:
    root = write()
    damage(root / "HAM10000_images" / "ISIC_3.jpg")
    with pytest.raises(InputError, match=r"ISIC_3\.jpg"):
        load_images(read_metadata(root), 16)
    assert list(own_cache.iterdir()) == []


@pytest.mark.parametrize("side", [6_000, 20_000])  # beyond ours; beyond Pillow's own
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    Image.new("L", (16, 16)).save(tmp_path / "bomb.jpg")
    content = bytearray((tmp_path / "bomb.jpg").read_bytes())
    frame = content.index(b"\xff\xc0") + 5  # start of frame: marker, length, precision, then height and width
    content[frame : frame + 4] = side.to_bytes(2, "big") * 2
    (tmp_path / "bomb.jpg").write_bytes(content)
    with pytest.raises(InputError, match=r"bomb\.jpg"):
        decode(tmp_path / "bomb.jpg", 16)


def test_an_interrupted_build_leaves_nothing(write: Writer, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = read_metadata(write())

    def interrupt(path: Path, size: int) -> np.ndarray:
        if path == metadata.paths[2]:
            raise KeyboardInterrupt
        return decode(path, size)

    with monkeypatch.context() as patch:
        patch.setattr(images, "decode", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load_images(metadata, 16)
    assert list(own_cache.iterdir()) == []
    assert load_images(metadata, 16)[0].shape[0] == 4


def test_a_damaged_cache_is_built_again(write: Writer, own_cache: Path) -> None:
    metadata = read_metadata(write())
    whole = np.array(load_images(metadata, 16)[0])
    (file,) = own_cache.iterdir()
    file.write_bytes(file.read_bytes()[:200])
    np.testing.assert_array_equal(load_images(metadata, 16)[0], whole)


def test_a_cache_that_cannot_be_written(write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = read_metadata(write())
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDWARD_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(InputError, match="FEDWARD_CACHE"):
        load_images(metadata, 16)


def test_size_and_data_have_their_own_cache(write: Writer, own_cache: Path) -> None:
    root = write()
    load_images(read_metadata(root), 16)
    load_images(read_metadata(root), 8)
    with (root / "HAM10000_images" / "ISIC_2.jpg").open("ab") as file:
        file.write(b"\0")
    load_images(read_metadata(root), 16)
    assert len(list(own_cache.iterdir())) == 3


def test_two_processes_build_at_once(own_cache: Path) -> None:
    code = (
        "import hashlib\n"
        "from configs.sections import TaskSettings\n"
        "import tasks\n"
        "splits = tasks.get(TaskSettings(root='phantom', phantom_images=64)).load()\n"
        "print(splits.fingerprint, hashlib.sha256(splits.train.pixels().tobytes()).hexdigest())\n"
    )
    command = [sys.executable, "-c", code]
    here = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(here), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=here, env=environment) for _ in range(2)
    ]
    answers = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert answers[0] == answers[1] != ""
    assert [path for path in own_cache.iterdir() if path.name.startswith(".")] == []


def test_real_images(data: Path) -> None:
    metadata = read_metadata(data / "ham10000_fullsize")
    array, _ = load_images(metadata, 32)
    assert array.shape == (55, 3, 32, 32)
    for k in (0, 20, 54):
        np.testing.assert_array_equal(array[k], reference(metadata.paths[k], 32))


def test_skip_leaves_out_and_names_what_is_missing_or_damaged(write: Writer, own_cache: Path) -> None:
    root = write()
    truncated(root / "HAM10000_images" / "ISIC_3.jpg")
    (root / "HAM10000_images" / "ISIC_2.jpg").unlink()
    with pytest.raises(InputError, match=r"ISIC_2\.jpg"):
        read_metadata(root)
    for _ in range(2):  # decoded, then read back from the cache
        splits = load_splits(root, size=16, classes=7, split_seed=0, skip=True)
        kept = [*splits.train.ids, *splits.validation.ids, *splits.test.ids]
        assert sorted(kept) == ["ISIC_1", "ISIC_4"]
        assert len(splits.notes) == 2
        assert "ISIC_2.jpg" in splits.notes[0]
        assert "ISIC_3.jpg" in splits.notes[1]
    with pytest.raises(InputError, match=r"ISIC_3\.jpg"):  # what was skipped once still stops a strict run
        load_images(read_metadata(root, skip=True), 16)
