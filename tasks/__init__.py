"""What a hospital learns: datasets, phantoms, how they are dealt to hospitals, models, losses, metrics."""

from tasks.base import Records, Splits, Task
from tasks.registry import get

__all__ = ["Records", "Splits", "Task", "get"]
