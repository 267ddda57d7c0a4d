"""The RadImageNet task: which of 165 classes of modality, body part and finding an image belongs to."""

from pathlib import Path

from configs.errors import InputError
from configs.sections import PHANTOM, TaskSettings
from tasks.base import Splits, Task
from tasks.models.spec import ModelSpec
from tasks.radimagenet.loading import load_splits
from tasks.radimagenet.metadata import LAYOUT
from tasks.radimagenet.phantom import phantom_root
from tasks.radimagenet.taxonomy import CLASSES


def radimagenet_task(settings: TaskSettings, phantom_seed: int = 0) -> Task:
    """Return the task; nothing is read (and no phantom written) before its `load` is called.

    The unit is the image: RadImageNet's CSVs carry no patient id. `holdout` and `split_seed` change nothing in the
    split, which is the CSVs'.

    Args:
        settings: root, image size, model, width, damaged.
        phantom_seed: which phantom, if the root is 'phantom'.

    Raises:
        InputError: `task.root` is not set.
    """
    if settings.root is None:
        raise InputError(
            f"task.root: not set; set it to the folder of RadImageNet ({LAYOUT}), which radimagenet.com gives out on "
            "request, or to 'phantom'."
        )
    given = settings.root
    shape = (1, settings.image_size, settings.image_size)

    def load() -> Splits:
        root = phantom_root(settings, phantom_seed) if given == PHANTOM else Path(given)
        return load_splits(root, size=settings.image_size, damaged=settings.damaged)

    return Task(
        name="radimagenet",
        unit="image",
        class_names=tuple(finding.folder for finding in CLASSES),
        shape=shape,
        spec=ModelSpec(settings.model or "resnet9", shape, outputs=len(CLASSES), width=settings.width),
        loss=settings.loss or "categorical",
        load=load,
    )
