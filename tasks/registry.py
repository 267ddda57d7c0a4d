"""Find a task by its settings."""

from collections.abc import Callable

from configs.sections import PHANTOM, TaskSettings
from tasks.base import Task
from tasks.ham10000.task import ham10000_task

_TASKS: dict[str, Callable[[TaskSettings, int], Task]] = {"ham10000": ham10000_task}


def get(settings: TaskSettings) -> Task:
    """Return the task that the settings name; its data are read when `load` is called.

    Raises:
        InputError: `task.root` is not set.
    """
    return _TASKS[settings.name](settings, 0)


def phantom(settings: TaskSettings, seed: int) -> Task:
    """Return the task over a phantom of its own, written at the first `load`: other lesions, alike.

    Args:
        settings: of the task; its root is ignored.
        seed: 0 is the phantom that ``root: phantom`` stands for.
    """
    return _TASKS[settings.name](settings.model_copy(update={"root": PHANTOM}), seed)
