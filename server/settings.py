"""What the coordinator is told: the experiment without its seed, its own seed root, and its folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from configs import SERVER, Experiment, root_of


@final
@dataclass(frozen=True)
class ServerSettings:
    """The coordinator's settings, carried as one flat record of Flower's run configuration.

    Attributes:
        experiment: with `seed` blanked: whoever knows it can compute the hospitals' stream and subtract the noise.
        digest: of the whole experiment, seed included.
        root: the server stream's root, for initial weights and cohorts.
        folder: the run's folder.
    """

    experiment: Experiment
    digest: str
    root: str
    folder: Path

    @staticmethod
    def of(experiment: Experiment, folder: Path) -> "ServerSettings":
        """Make the settings of a run."""
        root = root_of(experiment.seed, SERVER)
        return ServerSettings(experiment.with_seed(0), experiment.digest(), root, folder)

    def to_config(self) -> dict[str, str]:
        """Return Flower's flat run configuration."""
        content = {
            "experiment": self.experiment.model_dump(mode="json"),
            "digest": self.digest,
            "root": self.root,
            "folder": str(self.folder),
        }
        return {"experiment": json.dumps(content)}

    @staticmethod
    def from_config(config: Mapping[str, object]) -> "ServerSettings":
        """Read what :meth:`to_config` made."""
        content = json.loads(str(config["experiment"]))
        experiment = Experiment.model_validate(content["experiment"])
        return ServerSettings(experiment, content["digest"], content["root"], Path(content["folder"]))

    @property
    def public_data(self) -> Path:
        """The file with the adversary's public data."""
        return self.folder / "public.safetensors"

    @property
    def views(self) -> Path:
        """The folder with the recorded observations."""
        return self.folder / "views"
