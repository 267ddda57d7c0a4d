"""Volumes against nibabel and scipy by hand, and every way in which a file may be wrong."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from configs.errors import InputError
from configs.sections import TaskSettings
from tasks.msd_liver import msd_liver_task
from tasks.msd_liver.files import Scan, list_scans
from tasks.msd_liver.nifti import MAX_VOXELS, read_volume
from tests.tasks.msd_liver.conftest import Put, claim, patch, save, truncate


def by_hand(path: Path) -> NDArray[Any]:
    """Return (z, y, x): upwards, to the back, to the patient's left, from the affine's signs alone."""
    picture = nib.load(path)
    values, affine = np.asanyarray(picture.dataobj), picture.affine
    order = [int(np.argmax(np.abs(affine[row, :3]))) for row in (2, 1, 0)]
    # World coordinates of NIfTI grow to the right, the front and the head.
    wanted = (1, -1, -1)
    values = values.transpose(order)
    for axis, (row, sign) in enumerate(zip((2, 1, 0), wanted, strict=True)):
        if np.sign(affine[row, order[axis]]) != sign:
            values = np.flip(values, axis)
    return values


def window(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.rint((np.clip(values.astype(np.float64), -150, 200) + 150) * 255 / 350).astype(np.uint8)


def scan(home: Path, name: str) -> Scan:
    return Scan(name, home / "imagesTr" / f"{name}.nii.gz", home / "labelsTr" / f"{name}.nii.gz")


def refused(home: Path, name: str, words: str, shape: tuple[int, int, int] = (8, 10, 12)) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_volume(scan(home, name), shape)
    assert f"{name}.nii.gz: " in str(caught.value)


@pytest.mark.parametrize("to", ["RAS", "LPS", "LAS", "RPI", "ASR", "SPL", "IAL"])
@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64, np.int16])
def test_any_direction_and_type_gives_the_same_volume(put: Put, to: str, kind: Any) -> None:
    rng = np.random.default_rng(5)
    image, label = rng.integers(-400, 400, (12, 10, 8), dtype=np.int16), rng.integers(0, 3, (12, 10, 8))
    home = put("liver_1", image=image, label=label, to=to, kind=kind, spacing=(0.7, 0.9, 5.0))
    got = read_volume(scan(home, "liver_1"), (8, 10, 12))
    turned = image[::-1, ::-1].transpose(2, 1, 0)
    np.testing.assert_array_equal(got.pixels[0], window(turned))
    np.testing.assert_array_equal(got.mask, label[::-1, ::-1].transpose(2, 1, 0))
    np.testing.assert_array_equal(by_hand(home / "imagesTr" / "liver_1.nii.gz"), turned)
    assert got.spacing == pytest.approx(5.0)
    assert got.tumour == (label == 2).sum()


def test_a_label_turned_another_way_than_its_image_is_refused(put: Put) -> None:
    # Each would be turned by its own header, and the two would be laid over each other mirrored.
    home = put("liver_1", to="LPS")
    file = home / "labelsTr" / "liver_1.nii.gz"
    label = nib.load(file)
    mirrored = label.affine @ np.diag([-1.0, 1.0, 1.0, 1.0])
    nib.save(nib.Nifti1Image(np.asanyarray(label.dataobj), mirrored), file)
    refused(home, "liver_1", "another way")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_label_stored_along_other_axes_fits_if_its_header_says_so(put: Put, axis: int) -> None:
    home = put("liver_1", to="LPS")
    expected = read_volume(scan(home, "liver_1"), (8, 10, 12))
    file = home / "labelsTr" / "liver_1.nii.gz"
    label = nib.load(file)
    turn = np.eye(4)
    turn[axis, axis], turn[axis, 3] = -1.0, label.shape[axis] - 1
    nib.save(nib.Nifti1Image(np.flip(np.asanyarray(label.dataobj), axis), label.affine @ turn), file)
    np.testing.assert_array_equal(read_volume(scan(home, "liver_1"), (8, 10, 12)).mask, expected.mask)


@pytest.mark.parametrize("shape", [(5, 7, 9), (16, 20, 24), (8, 5, 12)])
def test_resampling_against_scipy(put: Put, shape: tuple[int, int, int]) -> None:
    home = put("liver_1", to="LPS")
    got = read_volume(scan(home, "liver_1"), shape)
    image, label = (by_hand(home / part / "liver_1.nii.gz") for part in ("imagesTr", "labelsTr"))
    centres = [(np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(shape, image.shape, strict=True)]
    places = np.stack(np.meshgrid(*centres, indexing="ij"))
    windowed = (np.clip(image.astype(np.float64), -150, 200) + 150) * 255 / 350
    linear = ndimage.map_coordinates(windowed, places, order=1, mode="nearest")
    assert np.abs(got.pixels[0] - linear).max() <= 0.5 + 1e-3, "rounding, and no more"
    # A centre half-way between two voxels may go to either; half up is torch's.
    nearest = [np.clip(np.floor(c + 0.5).astype(int), 0, m - 1) for c, m in zip(centres, image.shape, strict=True)]
    np.testing.assert_array_equal(got.mask, label[np.ix_(*nearest)])


def test_real_scans_voxel_for_voxel(real_data: Path) -> None:
    listing = list_scans(real_data / "msd_liver", skip=False)
    assert len(listing.scans) == 8
    for item in listing.scans:
        image, label = by_hand(item.image), by_hand(item.label)
        got = read_volume(item, image.shape)
        np.testing.assert_array_equal(got.pixels[0], window(image))
        np.testing.assert_array_equal(got.mask, label)
        assert got.spacing == pytest.approx(nib.load(item.image).header.get_zooms()[2], rel=1e-6)


def test_full_range_hounsfield_units(real_data: Path) -> None:
    folder = real_data / "msd_liver" / "real_hu_example"
    image = folder / "example_ct_sm.nii.gz"
    values = by_hand(image)
    assert values.min() < -1000
    assert values.max() > 1000
    with pytest.raises(InputError, match=r"example_seg\.nii\.gz: holds the class"):
        read_volume(Scan("example", image, folder / "example_seg.nii.gz"), values.shape)


def test_full_range_is_windowed(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "msd_liver" / "real_hu_example"
    organs = nib.load(folder / "example_seg.nii.gz")
    liver = (np.asanyarray(organs.dataobj) == 5).astype(np.uint8)
    nib.save(nib.Nifti1Image(liver, organs.affine), tmp_path / "liver.nii.gz")
    image = folder / "example_ct_sm.nii.gz"
    values = by_hand(image)
    got = read_volume(Scan("example", image, tmp_path / "liver.nii.gz"), values.shape)
    np.testing.assert_array_equal(got.pixels[0], window(values))
    assert got.tumour == 0
    assert got.mask.sum() == liver.sum() > 0


def test_damaged_files_are_named(put: Put) -> None:
    home = put("liver_1")
    truncate(home / "imagesTr" / "liver_1.nii.gz", 0.5)
    refused(home, "liver_1", "cannot be read as NIfTI")
    home = put("liver_2")
    truncate(home / "labelsTr" / "liver_2.nii.gz", 0.0)
    refused(home, "liver_2", "cannot be read as NIfTI")
    home = put("liver_3")
    (home / "imagesTr" / "liver_3.nii.gz").write_bytes(b"no gzip at all")
    refused(home, "liver_3", "cannot be read as NIfTI")


@pytest.mark.parametrize("sides", [(32_000, 32_000, 32_000), (2_000, 1_000, 1_000)])
def test_an_enormous_claim_is_refused_before_anything_is_read(put: Put, sides: tuple[int, int, int]) -> None:
    assert np.prod([float(s) for s in sides]) > MAX_VOXELS
    home = put("liver_1")
    claim(home / "imagesTr" / "liver_1.nii.gz", sides)
    refused(home, "liver_1", "claims .* voxels")


def test_a_claim_beyond_the_content_is_refused(put: Put) -> None:
    home = put("liver_1")
    claim(home / "labelsTr" / "liver_1.nii.gz", (12, 10, 9))
    refused(home, "liver_1", "cannot be read as NIfTI")


def test_labels_are_checked(put: Put, root: Path) -> None:
    strange = np.zeros((12, 10, 8))
    strange[3, 3, 3] = 3
    refused(put("liver_1", label=strange), "liver_1", "holds the class 3;")
    strange[3, 3, 3] = 1.5
    refused(put("liver_2", label=strange, kind=np.float32), "liver_2", r"holds the class 1\.5;")
    strange[3, 3, 3] = np.nan
    refused(put("liver_3", label=strange, kind=np.float32), "liver_3", "holds the class nan;")
    home = put("liver_4")
    save(home / "labelsTr" / "liver_4.nii.gz", np.zeros((12, 10, 7), np.uint8), (2.0, 2.0, 3.0), "RAS")
    refused(home, "liver_4", "has 12 x 10 x 7 voxels, but its image 12 x 10 x 8")


def test_images_are_checked(put: Put) -> None:
    values = np.zeros((12, 10, 8), dtype=np.float32)
    values[1, 1, 1] = np.inf
    refused(put("liver_1", image=values), "liver_1", "not finite")
    home = put("liver_2")
    flat = nib.Nifti1Image(np.zeros((12, 10), np.int16), np.eye(4))
    nib.save(flat, home / "imagesTr" / "liver_2.nii.gz")
    refused(home, "liver_2", "no scan of three dimensions")
    home = put("liver_3")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 2), np.int16), np.eye(4)), home / "imagesTr" / "liver_3.nii.gz")
    refused(home, "liver_3", "no scan of three dimensions")


@pytest.mark.parametrize("row", [(0.0, 0.0, 0.0, 0.0), (np.nan, 0.0, 0.0, 0.0), (0.0, 2.0, 0.0, 0.0)])
def test_the_affine_is_checked(put: Put, row: tuple[float, ...]) -> None:
    home = put("liver_1")
    patch(home / "imagesTr" / "liver_1.nii.gz", 280, np.array(row, dtype="<f4"))  # srow_x
    refused(home, "liver_1", "no usable voxel size")


def test_a_trailing_axis_of_one_is_a_scan(put: Put) -> None:
    home = put("liver_1")
    image = nib.load(home / "imagesTr" / "liver_1.nii.gz")
    before = read_volume(scan(home, "liver_1"), (8, 10, 12))
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj)[..., None], image.affine), image.get_filename())
    np.testing.assert_array_equal(read_volume(scan(home, "liver_1"), (8, 10, 12)).pixels, before.pixels)


def test_skip_leaves_out_and_says_so(put: Put, root: Path) -> None:
    for k in range(6):
        home = put(f"liver_{k}")
    truncate(home / "imagesTr" / "liver_5.nii.gz", 0.5)
    (home / "labelsTr" / "liver_3.nii.gz").unlink()
    (home / "imagesTr" / "liver_2.nii.gz").unlink()
    (home / "imagesTr" / "._liver_0.nii.gz").write_bytes(b"junk")
    (home / "labelsTr" / "._liver_9.nii.gz").write_bytes(b"junk")
    settings = TaskSettings(name="msd_liver", root=str(root), image_size=8, depth=4)
    with pytest.raises(InputError, match=r"imagesTr/liver_3\.nii\.gz: has no label"):
        msd_liver_task(settings).load()
    splits = msd_liver_task(settings.model_copy(update={"damaged": "skip"})).load()
    kept = sorted(i for part in (splits.train, splits.validation, splits.test) for i in part.ids.tolist())
    assert kept == ["liver_0", "liver_1", "liver_4"]
    for name in ("liver_2", "liver_3", "liver_5"):
        assert sum(f"{name}.nii.gz" in note and "left out" in note for note in splits.notes) == 1
    (home / "labelsTr" / "liver_2.nii.gz").unlink()
    (home / "imagesTr" / "liver_3.nii.gz").unlink()
    with pytest.raises(InputError, match=r"imagesTr/liver_5\.nii\.gz: cannot be read"):
        msd_liver_task(settings).load()
