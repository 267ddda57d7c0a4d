import csv
from pathlib import Path

import pytest

from configs.errors import InputError
from tasks.ham10000.metadata import read_metadata
from tests.tasks.conftest import HEADER, ROWS, Writer

KAGGLE = HEADER.removesuffix(",dataset")


def kaggle_rows() -> list[str]:
    return [row.rsplit(",", 1)[0] for row in ROWS]


@pytest.mark.parametrize("name", ["HAM10000_metadata.csv", "HAM10000_metadata"])
def test_official_form(write: Writer, name: str) -> None:
    metadata = read_metadata(write(name=name))
    assert metadata.images.tolist() == ["ISIC_1", "ISIC_2", "ISIC_3", "ISIC_4"]
    assert metadata.lesions.tolist() == ["HAM_1", "HAM_1", "HAM_2", "HAM_3"]
    assert metadata.diagnoses.tolist() == ["nv", "nv", "mel", "akiec"]
    assert metadata.sites.tolist() == ["rosendahl", "rosendahl", "vidir_modern", "rosendahl"]
    assert [path.name for path in metadata.paths] == [f"ISIC_{k}.jpg" for k in range(1, 5)]


def test_kaggle_form_has_unknown_sites(write: Writer) -> None:
    metadata = read_metadata(write(kaggle_rows(), header=KAGGLE))
    assert metadata.sites.tolist() == ["unknown"] * 4


def test_row_order_does_not_matter(write: Writer) -> None:
    metadata = read_metadata(write(ROWS[::-1]))
    assert metadata.images.tolist() == ["ISIC_1", "ISIC_2", "ISIC_3", "ISIC_4"]
    assert metadata.diagnoses.tolist() == ["nv", "nv", "mel", "akiec"]


def test_two_part_folders_and_junk(write: Writer) -> None:
    root = write(folder="HAM10000_images_part_1")
    before = read_metadata(root).fingerprint
    (root / "HAM10000_images_part_2").mkdir()
    moved = root / "HAM10000_images_part_1" / "ISIC_3.jpg"
    moved.rename(root / "HAM10000_images_part_2" / "ISIC_3.jpg")
    (root / "HAM10000_images_part_1" / "._ISIC_1.jpg").write_bytes(b"junk")
    (root / "HAM10000_images_part_2" / "._ISIC_3.jpg").write_bytes(b"junk")
    (root / "HAM10000_images_part_2" / "not_listed.jpg").write_bytes(b"junk")
    metadata = read_metadata(root)
    assert metadata.paths[2].parent.name == "HAM10000_images_part_2"
    assert metadata.fingerprint == before, "where a file lies is not what it is"


def test_fingerprint_follows_metadata_and_sizes(write: Writer) -> None:
    root = write()
    first = read_metadata(root).fingerprint
    with (root / "HAM10000_images" / "ISIC_2.jpg").open("ab") as file:
        file.write(b"\0")
    second = read_metadata(root).fingerprint
    text = root / "HAM10000_metadata.csv"
    text.write_text(text.read_text().replace("45.0", "50.0"))
    third = read_metadata(root).fingerprint
    assert len({first, second, third}) == 3
    assert len(first) == 64


def test_byte_order_mark_is_no_column(write: Writer) -> None:
    root = write()
    file = root / "HAM10000_metadata.csv"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(read_metadata(root).images) == 4


def refused(root: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_metadata(root)
    for word in words:
        assert word in str(caught.value)


def test_missing_root(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "task.root", "nowhere", "phantom")


def test_missing_metadata(tmp_path: Path) -> None:
    refused(tmp_path, "task.root", "HAM10000_metadata.csv")


def test_missing_image(write: Writer) -> None:
    root = write()
    (root / "HAM10000_images" / "ISIC_3.jpg").unlink()
    refused(root, "ISIC_3.jpg", "1 of 4")


def test_missing_image_folder(write: Writer) -> None:
    root = write()
    (root / "HAM10000_images").rename(root / "pictures")
    refused(root, "4 of 4", "HAM10000_images_part_1")


@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        ([ROWS[0].replace("nv", "naevus")], HEADER, ("ISIC_1", "naevus", "akiec")),
        ([ROWS[0], ROWS[0]], HEADER, ("ISIC_1", "more than once")),
        ([ROWS[0].replace("HAM_1", "")], HEADER, ("line 2", "lesion_id")),
        ([ROWS[0]], HEADER.replace("dx,", "diagnosis,"), ("'dx'", "missing")),
        ([], HEADER, ("no rows",)),
    ],
)
def test_bad_metadata(write: Writer, rows: list[str], header: str, words: tuple[str, ...]) -> None:
    refused(write(rows, header=header), "HAM10000_metadata.csv", *words)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00binary", b'lesion_id,image_id,dx\n"a,b,c\n'])
def test_metadata_that_is_no_table(write: Writer, content: bytes) -> None:
    root = write()
    (root / "HAM10000_metadata.csv").write_bytes(content)
    refused(root, "HAM10000_metadata.csv")


def test_an_image_name_cannot_leave_the_folder(write: Writer, tmp_path: Path) -> None:
    root = write()
    (tmp_path / "secret.jpg").write_bytes(b"x")
    file = root / "HAM10000_metadata.csv"
    file.write_text(file.read_text().replace("ISIC_4", "../../secret"))
    refused(root, "../../secret.jpg")


def test_real_metadata(data: Path) -> None:
    metadata = read_metadata(data / "ham10000")
    with (data / "ham10000" / "HAM10000_metadata.csv").open() as file:
        rows = {row["image_id"]: row for row in csv.DictReader(file)}
    assert len(metadata.images) == len(rows) == 10_015
    for k in range(0, 10_015, 7):
        row = rows[metadata.images[k]]
        assert (row["lesion_id"], row["dx"], row["dataset"]) == (
            metadata.lesions[k],
            metadata.diagnoses[k],
            metadata.sites[k],
        )
        assert metadata.paths[k].stem == metadata.images[k]
