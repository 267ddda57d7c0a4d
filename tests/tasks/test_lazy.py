import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import InputError
from tasks.lazy import MARK, Lazy

SHAPE = (1, 4, 5)
RECORD = 20 + MARK


class Source:
    """Pictures that tell their row, and count how often they are decoded."""

    def __init__(self, bad: tuple[int, ...] = ()) -> None:
        self.calls: list[int] = []
        self.bad = set(bad)

    def __call__(self, row: int) -> np.ndarray:
        self.calls.append(row)
        if row in self.bad:
            raise InputError(f"image-{row}.png: cannot be decoded; download it again.")
        return picture(row)


def picture(row: int) -> np.ndarray:
    if row == 0:
        return np.zeros(SHAPE, dtype=np.uint8)  # a black picture looks like a hole of the file
    return np.random.default_rng(row).integers(0, 256, SHAPE, dtype=np.uint8)


def make(folder: Path, source: Source, count: int = 40) -> Lazy:
    return Lazy(folder / "store", source, count=count, shape=SHAPE)


@settings(max_examples=40, deadline=None)
@given(reads=st.lists(st.lists(st.integers(0, 39), max_size=12), max_size=6))
def test_any_order_gives_the_pictures_and_decodes_each_once(
    tmp_path_factory: pytest.TempPathFactory, reads: list[list[int]]
) -> None:
    source = Source()
    lazy = make(tmp_path_factory.mktemp("lazy"), source)
    for rows in reads:
        got = lazy.read(np.array(rows, dtype=np.int64))
        assert got.shape == (len(rows), *SHAPE)
        assert got.dtype == np.uint8
        assert got.flags.c_contiguous
        assert all((got[k] == picture(row)).all() for k, row in enumerate(rows))
    assert sorted(source.calls) == sorted({row for rows in reads for row in rows})


def test_more_than_a_chunk_in_one_read(tmp_path: Path) -> None:
    lazy = make(tmp_path, Source(), count=700)
    rows = np.random.default_rng(0).permutation(700)
    np.testing.assert_array_equal(lazy.read(rows), np.stack([picture(int(row)) for row in rows]))


def test_a_later_process_finds_what_was_kept(tmp_path: Path) -> None:
    make(tmp_path, Source()).read(np.arange(10))
    later = Source()
    np.testing.assert_array_equal(make(tmp_path, later).read(np.arange(10)), np.stack([picture(k) for k in range(10)]))
    assert later.calls == []


def test_rows_outside_are_refused(tmp_path: Path) -> None:
    for row in (-1, 40):
        with pytest.raises(IndexError, match=str(row)):
            make(tmp_path, Source()).read(np.array([0, row]))


@pytest.mark.parametrize("byte", [0, 7, 19, 20, 23])  # in the pixels and in the checksum
@pytest.mark.parametrize("row", [0, 3])
def test_a_torn_record_is_never_believed(tmp_path: Path, byte: int, row: int) -> None:
    make(tmp_path, Source()).read(np.arange(6))
    file = tmp_path / "store" / "pictures"
    content = bytearray(file.read_bytes())
    content[row * RECORD + byte] ^= 1
    file.write_bytes(content)
    source = Source()
    np.testing.assert_array_equal(make(tmp_path, source).read(np.arange(6)), np.stack([picture(k) for k in range(6)]))
    assert source.calls == [row]


@pytest.mark.parametrize("kept", [0, 20, RECORD + 3])
def test_a_store_cut_short_is_filled_again(tmp_path: Path, kept: int) -> None:
    lazy = make(tmp_path, Source())
    lazy.read(np.arange(6))
    os.truncate(tmp_path / "store" / "pictures", kept)  # under the reader's feet: through a map this were a SIGBUS
    np.testing.assert_array_equal(lazy.read(np.arange(6)), np.stack([picture(k) for k in range(6)]))


def test_a_record_of_another_row_is_not_believed(tmp_path: Path) -> None:
    make(tmp_path, Source()).read(np.arange(6))
    file = tmp_path / "store" / "pictures"
    content = bytearray(file.read_bytes())
    content[RECORD : 2 * RECORD] = content[2 * RECORD : 3 * RECORD]
    file.write_bytes(content)
    np.testing.assert_array_equal(make(tmp_path, Source()).read(np.array([1]))[0], picture(1))


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = make(tmp_path, Source())
    write = os.pwritev
    # A full disk takes a part of the last record, and refuses the next.
    monkeypatch.setattr(os, "pwritev", lambda fd, parts, at: write(fd, [parts[0][:9]], at))
    with pytest.raises(InputError, match=r"cannot be kept \(No space left.*FEDWARD_CACHE"):
        lazy.read(np.array([5]))
    monkeypatch.undo()
    np.testing.assert_array_equal(lazy.read(np.array([5]))[0], picture(5))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "pictures").symlink_to("/dev/full")
    with pytest.raises(InputError, match="cannot be kept"):
        make(tmp_path, Source()).read(np.array([5]))


def test_a_store_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(InputError, match="FEDWARD_CACHE"):
        make(tmp_path, Source()).read(np.array([0]))


def test_faults_are_found_remembered_and_forgotten(tmp_path: Path) -> None:
    source = Source(bad=(3, 8))
    lazy = make(tmp_path, source)
    assert lazy.known_faults() == []
    with pytest.raises(InputError, match=r"image-[38]\.png"):
        lazy.read(np.arange(10))
    found = lazy.faults(np.arange(40))
    assert [row for row, _ in found] == [3, 8]
    assert "image-8.png" in found[1][1]
    again = make(tmp_path, Source(bad=(8,)))  # 3 was repaired meanwhile
    assert [row for row, _ in again.known_faults()] == [8]
    assert [row for row, _ in make(tmp_path, Source(bad=(3, 8))).known_faults()] == [8]


def test_pickled_and_forked(tmp_path: Path) -> None:
    lazy = Lazy(tmp_path / "store", picture, count=40, shape=SHAPE)
    lazy.read(np.arange(4))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(lazy)).read(np.array([39]))[0], picture(39))
    child = os.fork()
    if child == 0:
        right = (lazy.read(np.array([2, 30]))[1] == picture(30)).all()
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(lazy.read(np.array([2]))[0], picture(2))


def test_processes_read_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, numpy as np\n"
        "from tasks.lazy import Lazy\n"
        "def decode(row):\n"
        "    return np.random.default_rng(row).integers(0, 256, (1, 32, 32), dtype=np.uint8)\n"
        "lazy = Lazy(pathlib.Path(sys.argv[1]), decode, count=900, shape=(1, 32, 32))\n"
        "order = np.random.default_rng(int(sys.argv[2])).permutation(900)\n"
        "for rows in np.array_split(order, 30):\n"
        "    for row, got in zip(rows, lazy.read(rows)):\n"
        "        assert (got == decode(int(row))).all(), row\n"
    )
    here = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(here), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "store"), str(seed)], env=environment)
        for seed in range(3)
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    record = 32 * 32 + MARK
    assert (tmp_path / "store" / "pictures").stat().st_size == 900 * record
