"""What an experiment is: the typed schema, the loader, seed derivation, and the YAML files themselves."""

from configs.errors import FedwardError, InputError, RunStoppedError
from configs.experiment import Experiment, Study, StudyAxes
from configs.loading import load, preset_names
from configs.seeds import HOSPITALS, SERVER, derive, root_of

__all__ = [
    "HOSPITALS",
    "SERVER",
    "Experiment",
    "FedwardError",
    "InputError",
    "RunStoppedError",
    "Study",
    "StudyAxes",
    "derive",
    "load",
    "preset_names",
    "root_of",
]
