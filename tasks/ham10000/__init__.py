"""HAM10000: dermatoscopic images of pigmented skin lesions (Tschandl et al. 2018), and its phantom."""

from tasks.ham10000.phantom import phantom_root, write_phantom
from tasks.ham10000.task import ham10000_task

__all__ = ["ham10000_task", "phantom_root", "write_phantom"]
