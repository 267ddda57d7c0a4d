"""Read one CT scan and its label from NIfTI: oriented, windowed and resampled, or refused by name."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from nibabel.filebasedimages import ImageFileError
from nibabel.loadsave import load
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray
from torch import Tensor

from configs.errors import InputError
from tasks.msd_liver.files import Scan

# Hounsfield units that the paper keeps: fat to contrast-filled vessels, with the liver in the middle.
LOW, HIGH = -150.0, 200.0
CLASSES = ("background", "liver", "tumour")
LIVER, TUMOUR = 1, 2
# The largest scan of LiTS has 512 x 512 x 1026 voxels; a header that claims far more is an accident or an attack.
MAX_VOXELS = 400_000_000
SAME_DIRECTION = 1e-2  # most that a direction may differ between image and label, each of length 1
# Slices from below upwards; in a slice rows run from front to back and columns from the patient's right to left,
# as radiologists look at it.
AXES = "LPS"

_UNREADABLE = (ImageFileError, HeaderDataError, WrapStructError, OSError, EOFError, ValueError, zlib.error)


@final
@dataclass(frozen=True)
class Volume:
    """One scan, ready to learn from.

    Attributes:
        pixels: uint8 (1, depth, height, width), LOW to HIGH Hounsfield units as 0 to 255.
        mask: uint8 (depth, height, width), index in CLASSES.
        spacing: mm between the original slices.
        tumour: number of tumour voxels of the original label.
    """

    pixels: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    spacing: float
    tumour: int


def read_volume(scan: Scan, shape: tuple[int, int, int]) -> Volume:
    """Read a scan and its label, turn both to AXES and resample the whole of them to `shape` (depth, height, width).

    The image is windowed, then interpolated linearly; labels take the nearest voxel. Voxel centres stay aligned:
    a grid's outer faces, not its outer centres, coincide with the original's. Image and label are each turned
    by their own header. Where the headers turn them alike their origins may differ (label tools often drop them);
    where they do not, the turned volumes have to start at one place, or they would be mirrored against each other.

    Raises:
        InputError: naming the file that is truncated, no NIfTI, not three-dimensional, larger than MAX_VOXELS,
            without a usable affine, of another shape than its image, not finite, or with a class beyond 2.
    """
    image, spacing, header, turned = _oriented(scan.image)
    label, _, own_header, own_turned = _oriented(scan.label)
    if not _alike(header, own_header) and not _together(turned, own_turned):
        raise InputError(
            f"{scan.label}: its header turns it another way than its image's, so the two would be laid over each other "
            "mirrored or rotated; download both again."
        )
    if image.shape != label.shape:
        sides = [" x ".join(str(s) for s in reversed(t.shape)) for t in (label, image)]
        raise InputError(f"{scan.label}: has {sides[0]} voxels, but its image {sides[1]}; download both again.")
    if not bool(torch.isfinite(image).all()):
        raise InputError(f"{scan.image}: holds values that are not finite; download it again.")
    strange = torch.unique(label[(label != 0) & (label != LIVER) & (label != TUMOUR)])
    if len(strange):
        raise InputError(
            f"{scan.label}: holds the class {float(strange[0]):g}; use 0 (background), 1 (liver) and 2 (tumour) only."
        )
    return Volume(
        pixels=_resampled(_windowed(image), shape, "trilinear")[None],
        mask=_resampled(label, shape, "nearest-exact"),
        spacing=spacing,
        tumour=int((label == TUMOUR).sum()),
    )


def _windowed(image: Tensor) -> Tensor:
    # Multiplied before divided: exact for whole Hounsfield units, so that ties round alike everywhere.
    return image.clamp(LOW, HIGH).sub(LOW).mul(255.0).div(HIGH - LOW)


def _resampled(volume: Tensor, shape: tuple[int, int, int], mode: str) -> NDArray[np.uint8]:
    # Imported here: monai takes seconds.
    from monai.transforms.spatial.array import Resize

    # 'nearest' would shift labels by up to half a voxel against the image; 'nearest-exact' does not.
    out: Any = Resize(shape, mode=mode)(volume[None])
    return torch.round(torch.as_tensor(out)[0]).to(torch.uint8).numpy()


def _alike(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    """Whether two affines have the same directions."""
    lengths = [np.linalg.norm(affine[:3, :3], axis=0) for affine in (first, second)]
    return bool(np.abs(first[:3, :3] / lengths[0] - second[:3, :3] / lengths[1]).max() <= SAME_DIRECTION)


def _together(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    """Whether two affines have the same directions and begin within a voxel of each other."""
    voxel = float(np.linalg.norm(first[:3, :3], axis=0).min())
    return _alike(first, second) and bool(np.linalg.norm(first[:3, 3] - second[:3, 3]) <= voxel)


def _oriented(path: Path) -> tuple[Tensor, float, NDArray[np.float64], NDArray[np.float64]]:
    """Return float32 (depth, height, width) along AXES reversed, spacing of slices in mm, affines before and after."""
    from monai.data.image_reader import NibabelReader
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms.spatial.array import Orientation

    affine = _checked(path)
    try:
        reader = NibabelReader()
        array, _ = reader.get_data(reader.read(path))
    except _UNREADABLE as error:
        raise _broken(path, error) from error
    values = torch.from_numpy(np.ascontiguousarray(array.reshape(array.shape[:3]), dtype=np.float32))
    turned: Any = Orientation(AXES, labels=(("L", "R"), ("P", "A"), ("I", "S")))(
        MetaTensor(values[None], affine=torch.from_numpy(affine))
    )
    after = np.asarray(turned.affine, dtype=np.float64)
    spacing = float(np.linalg.norm(after[:3, 2]))
    return turned.as_tensor()[0].permute(2, 1, 0).contiguous(), spacing, affine, after


def _checked(path: Path) -> NDArray[np.float64]:
    """Read the header only and return the affine, float64 (4, 4)."""
    try:
        picture: Any = load(path)
        shape, kind = tuple(int(side) for side in picture.shape), picture.get_data_dtype().kind
        affine = np.asarray(picture.affine, dtype=np.float64)
    except _UNREADABLE as error:
        raise _broken(path, error) from error
    if len(shape) < 3 or min(shape) < 1 or any(side != 1 for side in shape[3:]) or kind not in "iuf":
        raise InputError(f"{path}: is no scan of three dimensions (shape {shape}, type '{kind}'); replace it.")
    if (claimed := int(np.prod([float(side) for side in shape]))) > MAX_VOXELS:
        raise InputError(f"{path}: claims {claimed} voxels, more than {MAX_VOXELS}; it is no CT scan, so replace it.")
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"{path}: its header gives no usable voxel size and direction; replace it.")
    return affine


def _broken(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read as NIfTI ({str(error) or type(error).__name__}); download it again.")
