"""Find a task by its settings, and write its phantom."""

from pathlib import Path

from configs.errors import InputError
from configs.sections import PHANTOM, TaskName, TaskSettings
from tasks.base import Task


def get(settings: TaskSettings) -> Task:
    """Return the task that the settings name; its data are read when `load` is called.

    Raises:
        InputError: `task.root` is not set.
    """
    return _task(settings, 0)


def phantom(settings: TaskSettings, seed: int) -> Task:
    """Return the task over a phantom of its own, written at the first `load`: other lesions, alike.

    Args:
        settings: of the task; its root is ignored.
        seed: 0 is the phantom that ``root: phantom`` stands for.
    """
    return _task(settings.model_copy(update={"root": PHANTOM}), seed)


def write_phantom(name: TaskName, out: Path, *, images: int, seed: int) -> None:
    """Write a dataset's phantom to the new folder `out`, in the official layout.

    Raises:
        InputError: too few images, or `out` exists.
    """
    if out.exists():
        raise InputError(f"{out}: exists already; choose another folder.")
    # Each dataset is imported when it is asked for: what reads volumes takes seconds to import.
    if name == "radimagenet":
        from tasks.radimagenet import write_phantom as write
    elif name == "msd_liver":
        from tasks.msd_liver import write_phantom as write
    else:
        from tasks.ham10000 import write_phantom as write
    write(out, images=images, seed=seed)


def _task(settings: TaskSettings, phantom_seed: int) -> Task:
    if settings.name == "radimagenet":
        from tasks.radimagenet import radimagenet_task as build
    elif settings.name == "msd_liver":
        from tasks.msd_liver import msd_liver_task as build
    else:
        from tasks.ham10000 import ham10000_task as build
    return build(settings, phantom_seed)
