"""The MSD Liver task: say for every voxel of a CT scan whether it is liver, tumour or neither."""

from pathlib import Path

from configs.errors import InputError
from configs.sections import PHANTOM, TaskSettings
from tasks.base import Splits, Task
from tasks.models.spec import ModelSpec
from tasks.msd_liver.files import LAYOUT
from tasks.msd_liver.loading import load_splits
from tasks.msd_liver.nifti import CLASSES
from tasks.msd_liver.phantom import phantom_root


def msd_liver_task(settings: TaskSettings, phantom_seed: int = 0) -> Task:
    """Return the task; nothing is read (and no phantom written) before its `load` is called.

    Args:
        settings: root, depth, image size, crop, slices, width, loss, split seed, fold, damaged.
        phantom_seed: which phantom, if the root is 'phantom'.

    Raises:
        InputError: `task.root` is not set, or `task.crop` does not fit the volume.
    """
    if settings.root is None:
        raise InputError(f"task.root: not set; set it to the folder of MSD Liver ({LAYOUT}) or to 'phantom'.")
    given = settings.root
    volume = (settings.depth, settings.image_size, settings.image_size)
    shape = _shape(settings, volume)

    def load() -> Splits:
        return load_splits(
            phantom_root(settings, phantom_seed) if given == PHANTOM else Path(given),
            shape=volume,
            slices=settings.slices,
            split_seed=settings.split_seed,
            fold=settings.fold,
            skip=settings.damaged == "skip",
        )

    return Task(
        name="msd_liver",
        unit="scan",
        class_names=CLASSES,
        shape=shape,
        spec=ModelSpec("unet", shape, outputs=len(CLASSES), width=settings.width),
        loss=settings.loss or "dice",
        load=load,
    )


def _shape(settings: TaskSettings, volume: tuple[int, int, int]) -> tuple[int, ...]:
    crop = settings.crop
    if settings.slices:
        if crop is not None:
            raise InputError("task.crop: cuts pieces out of volumes; leave it empty with task.slices.")
        return (1, *volume[1:])
    if crop is None:
        return (1, *volume)
    if any(not 1 <= side <= whole for side, whole in zip(crop, volume, strict=True)):
        raise InputError(
            f"task.crop: {_words(crop)} does not fit into the volume of {_words(volume)} "
            "(task.depth, task.image_size twice); make it smaller."
        )
    return (1, *crop)


def _words(sides: tuple[int, int, int]) -> str:
    return " x ".join(str(side) for side in sides)
