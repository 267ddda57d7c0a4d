import csv
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from configs.errors import InputError
from tasks.radimagenet import metadata
from tasks.radimagenet.loading import load_splits
from tasks.radimagenet.metadata import present, read_index
from tasks.radimagenet.taxonomy import CLASSES, LABELS, SITES, nearest
from tests.tasks.radimagenet.conftest import CSVS, ROWS, Writer


def test_taxonomy_by_its_published_counts() -> None:
    assert len(CLASSES) == len(LABELS) == 165
    per_site = {"CT/abd": 28, "CT/lung": 6, "MR/abd": 26, "MR/af": 25, "MR/brain": 10, "MR/hip": 14}
    per_site |= {"MR/knee": 18, "MR/shoulder": 14, "MR/spine": 9, "US": 15}
    assert Counter(finding.site for finding in CLASSES) == per_site
    assert sorted(per_site) == list(SITES)
    assert [finding.folder for finding in CLASSES] == sorted(finding.folder for finding in CLASSES)


def test_estimated_counts() -> None:
    # 1.35 million in all; two folders that were counted; a tail of three orders of magnitude within MR.
    assert sum(finding.images for finding in CLASSES) == pytest.approx(1.35e6, rel=1e-3)
    assert CLASSES[LABELS["CT/abd/normal"]].images == 69_238
    assert CLASSES[LABELS["MR/abd/normal"]].images == pytest.approx(72_054, rel=0.01)
    assert sum(finding.images for finding in CLASSES if finding.modality == "MR") == pytest.approx(
        604_775 / 0.9, rel=1e-4
    )
    counts = [finding.images for finding in CLASSES if finding.modality == "MR"]
    assert 1000 < max(counts) / min(counts) < 3000


def test_taxonomy_equals_the_table_beside_the_project() -> None:
    given = os.environ.get("FEDWARD_DATA")
    file = Path(given or "/nowhere") / "radimagenet" / "taxonomy_165.csv"
    if not file.is_file():
        pytest.skip("FEDWARD_DATA does not name a folder with radimagenet/taxonomy_165.csv")
    with file.open() as stream:
        rows = [(row["modality"], row["anatomy"], row["class"]) for row in csv.DictReader(stream)]
    assert {(finding.modality, finding.anatomy, finding.name) for finding in CLASSES} == set(rows)


def test_nearest() -> None:
    assert nearest("CT/abd/liver_leison") == "CT/abd/liver_lesion"
    assert nearest("mr/ankle/plantar_plate_tear") == "MR/af/Plantar_plate_tear"


def found(root: Path) -> dict[str, tuple[str, int]]:
    index = read_index(root)
    return {
        str(index.path(k).relative_to(index.home)): (CLASSES[int(index.labels[k])].folder, int(index.parts[k]))
        for k in range(len(index))
    }


EXPECTED = {
    line: (line.removeprefix("radiology_ai/").rpartition("/")[0], part)
    for part, lines in enumerate(ROWS)
    for line in lines
}


def test_rows(write: Writer, own_cache: Path) -> None:
    root = write()
    assert found(root) == EXPECTED
    assert found(root) == EXPECTED  # from the cache
    assert len(list(own_cache.iterdir())) == 1


@pytest.mark.parametrize("csvs", [".", "radiology_ai"])
@pytest.mark.parametrize("start", [".", "..", "radiology_ai"])
def test_roots_that_are_natural(write: Writer, own_cache: Path, csvs: str, start: str) -> None:
    assert found((write(csvs=csvs) / start).resolve()) == EXPECTED


def test_other_spellings_of_a_path(write: Writer, own_cache: Path) -> None:
    root = write()
    text = (root / CSVS[0]).read_text()
    text = text.replace("radiology_ai/CT", "./radiology_ai\\CT").replace("radiology_ai/MR", "MR")
    (root / CSVS[0]).write_text("\ufeff" + text.replace("\n", "\r\n"))
    assert found(root) == EXPECTED


def test_a_damaged_index_is_built_again(write: Writer, own_cache: Path) -> None:
    root = write()
    read_index(root)
    (file,) = own_cache.iterdir()
    file.write_bytes(file.read_bytes()[:300])
    assert found(root) == EXPECTED


def test_changed_csvs_have_their_own_index(write: Writer, own_cache: Path) -> None:
    root = write()
    before = read_index(root)
    with (root / CSVS[1]).open("a") as file:
        file.write("radiology_ai/US/spleen/usn9.png,x\n")
    after = read_index(root)
    assert len(after) == len(before) + 1
    assert after.digest != before.digest


def test_label_text_is_only_compared(write: Writer, own_cache: Path) -> None:
    root = write((*ROWS[:2], ("radiology_ai/US/liver/usn2.png",)))
    file = root / CSVS[2]
    file.write_text(file.read_text().replace(",text", ",liver-other"))
    (remark,) = read_index(root).remarks
    assert "US/liver: 'liver-other', 'text'" in remark
    assert remark in load_splits(root, size=8).notes


def bad_csv(root: Path, text: str) -> None:
    (root / CSVS[0]).write_text(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,label\na,b\n", r"RadiologyAI_train\.csv: column 'filename' is missing"),
        ("filename\nradiology_ai/US/liver/a.png\n", r"RadiologyAI_train\.csv: column 'label' is missing"),
        ("filename,label\n", r"RadiologyAI_train\.csv: has a header but no rows"),
        ("", r"RadiologyAI_train\.csv: is no CSV table"),
        ("filename,label\nradiology_ai/US/livr/a.png,x\n", r"line 2 .*livr/a\.png.*nearest is radiology_ai/US/liver"),
        ("filename,label\nradiology_ai/US/liver/../spleen/a.png,x\n", r"none of RadImageNet's 165"),
        ("filename,label\n/etc/passwd,x\n", r"line 2 .*/etc/passwd"),
        ("filename,label\nradiology_ai/US/liver/a.jpg,x\n", r"line 2 .*a\.jpg.*no PNG"),
        ("filename,label\nradiology_ai/US/liver/,x\n", r"line 2 .*no PNG"),
        ("filename,label\n,x\n", r"line 2 names ''"),
    ],
)
def test_bad_csvs(write: Writer, own_cache: Path, text: str, says: str) -> None:
    root = write()
    bad_csv(root, text)
    with pytest.raises(InputError, match=says):
        read_index(root)
    assert list(own_cache.iterdir()) == []


def test_an_image_in_two_csvs_is_a_leak(write: Writer, own_cache: Path) -> None:
    root = write((ROWS[0], (ROWS[1][0], ROWS[1][0]), (ROWS[2][0], ROWS[0][1])))
    with pytest.raises(
        InputError, match=r"acl1\.png' is listed in RadiologyAI_train\.csv and in RadiologyAI_test\.csv"
    ):
        read_index(root)


def test_an_image_twice_in_a_csv(write: Writer, own_cache: Path) -> None:
    root = write((ROWS[0], (ROWS[1][0], ROWS[1][0]), ROWS[2]))
    with pytest.raises(InputError, match=r"usn053022\.png' is listed twice in RadiologyAI_val\.csv"):
        read_index(root)


def test_folders_that_are_not_there(write: Writer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"task\.root: the folder .*nowhere does not exist"):
        read_index(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no folder radiology_ai"):
        read_index(tmp_path / "empty")
    root = write()
    (root / CSVS[2]).unlink()
    with pytest.raises(InputError, match=r"holds no RadiologyAI_test\.csv"):
        read_index(root)


def test_present_by_listing(write: Writer, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write()
    (root / ROWS[1][0]).unlink()
    (root / "radiology_ai/US/liver/extra.PNG").touch()
    (root / "radiology_ai/US/liver/._usn053022.png").touch()
    (root / "radiology_ai/CT/lung/normal/notes.txt").touch()
    index = read_index(root)
    monkeypatch.setattr(metadata.os, "stat", None)
    there, unnamed = present(index)
    assert unnamed == 1
    assert index.names[np.flatnonzero(~there)].tolist() == [b"usn053022.png"]
