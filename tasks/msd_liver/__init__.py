"""MSD Liver (Task03): CT scans with liver and tumour outlined (Antonelli et al. 2022), and its phantom."""

from tasks.msd_liver.phantom import phantom_root, write_phantom
from tasks.msd_liver.task import msd_liver_task

__all__ = ["msd_liver_task", "phantom_root", "write_phantom"]
