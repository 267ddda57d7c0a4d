"""The HAM10000 task: which skin lesions need attention, or which of seven diagnoses they are."""

from pathlib import Path

from configs.errors import InputError
from configs.sections import PHANTOM, TaskSettings
from tasks.base import Splits, Task
from tasks.ham10000.loading import load_splits
from tasks.ham10000.metadata import DIAGNOSES, LAYOUT
from tasks.ham10000.phantom import phantom_root
from tasks.models.spec import ModelSpec


def ham10000_task(settings: TaskSettings, phantom_seed: int = 0) -> Task:
    """Return the task; nothing is read (and no phantom written) before its `load` is called.

    Args:
        settings: root, image size, width, classes, split seed.
        phantom_seed: which phantom, if the root is 'phantom'.

    Raises:
        InputError: `task.root` is not set.
    """
    if settings.root is None:
        raise InputError(f"task.root: not set; set it to the folder of HAM10000 ({LAYOUT}) or to 'phantom'.")
    given = settings.root
    classes = settings.classes or 2
    binary = classes == 2
    shape = (3, settings.image_size, settings.image_size)

    def load() -> Splits:
        root = phantom_root(settings, phantom_seed) if given == PHANTOM else Path(given)
        return load_splits(
            root,
            size=settings.image_size,
            classes=classes,
            split_seed=settings.split_seed,
            skip=settings.damaged == "skip",
        )

    return Task(
        name="ham10000",
        unit="lesion",
        class_names=("no attention", "attention") if binary else DIAGNOSES,
        shape=shape,
        spec=ModelSpec(
            settings.model or "resnet9", shape, outputs=1 if binary else len(DIAGNOSES), width=settings.width
        ),
        loss="binary" if binary else "categorical",
        load=load,
    )
