"""A run's folder: who may write in it, what it was made from, and where things lie."""

import fcntl
import importlib.metadata
import json
import os
import platform
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import final

import yaml

from configs import Experiment, InputError

VERSIONED = ("fedward", "flwr", "ray", "torch", "opacus", "numpy", "scipy")


@final
class RunFolder:
    """Paths of one run, its lock, and its record of the experiment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.experiment = path / "experiment.yaml"
        self.events = path / "events.jsonl"
        self.ledgers = path / "ledger"
        self.site_settings = path / ".hospitals.json"
        self.summary = path / "summary.json"
        self.report = path / "report.html"
        self.model = path / "model.safetensors"
        self.reconstructions = path / "reconstructions"
        self.attacks = path / "attacks.csv"

    @contextmanager
    def locked(self) -> Generator[None, None, None]:
        """Hold the folder's lock; two runs never share a folder.

        Raises:
            InputError: if another process holds it, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror}); choose another --out.") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise InputError(
                    f"{self.path}: another run is at work in this folder; choose another --out."
                ) from error
            yield
        finally:
            os.close(descriptor)

    def open(self, experiment: Experiment, fingerprint: str, *, resume: bool) -> None:
        """Record the experiment, or check that the folder holds the very same one.

        Raises:
            InputError: if the folder holds another experiment or other data, or a run that was not to be resumed.
        """
        if self.experiment.is_file():
            kept = yaml.safe_load(self.experiment.read_text(encoding="utf-8"))
            if not resume:
                raise InputError(f"{self.path}: holds a run already; use --resume to go on, or choose another --out.")
            if kept.get("sha256") != experiment.digest():
                raise InputError(f"{self.path}: holds another experiment than this one; choose another --out.")
            if kept.get("data") != fingerprint:
                raise InputError(f"{self.path}: its data differ from those at task.root now; nothing was run.")
            return
        content = {
            "experiment": experiment.model_dump(mode="json"),
            "sha256": experiment.digest(),
            "data": fingerprint,
            "versions": versions(),
        }
        temporary = self.experiment.with_suffix(".tmp")
        temporary.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        temporary.replace(self.experiment)

    def read_experiment(self) -> Experiment:
        """Return the experiment that the folder holds.

        Raises:
            InputError: if there is none.
        """
        if not self.experiment.is_file():
            raise InputError(f"{self.path}: not a run's folder; it has no experiment.yaml.")
        content = yaml.safe_load(self.experiment.read_text(encoding="utf-8"))
        return Experiment.model_validate(content["experiment"])

    def write_json(self, path: Path, content: object) -> None:
        """Write JSON whole or not at all; NaN and infinity are refused."""
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        temporary.replace(path)


def versions() -> dict[str, str]:
    """Return the versions of everything that a result may depend on."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
