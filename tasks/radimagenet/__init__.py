"""RadImageNet: 1.35 million CT, MR and ultrasound images of 165 classes (Mei et al. 2022), and its phantom."""

from tasks.radimagenet.phantom import phantom_root, write_phantom
from tasks.radimagenet.task import radimagenet_task

__all__ = ["phantom_root", "radimagenet_task", "write_phantom"]
