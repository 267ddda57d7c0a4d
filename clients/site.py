"""One hospital as it stands: its records, its plan, its ledger, and what it refuses."""

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final
from urllib.parse import quote

import numpy as np
import torch

import tasks
from clients.gradients import engine
from clients.local import local_update
from clients.planning import Plan, plan_deal
from clients.sampling import misses_round
from clients.selfcheck import check_clipped_sum
from configs import Experiment
from configs.errors import InputError
from configs.sections import LossName, TrainingSettings
from privacy import Ledger, Release, RepeatedRoundError, Spend
from tasks.base import Records, Task
from tasks.dealing import deal_experiment
from tasks.models import ModelSpec, initial_weights
from tasks.partition import Deal
from tasks.views import draw_views, view

CHECKED_IMAGES = 4


class RefusalError(Exception):
    """A hospital declines a round; the text is the reason that it gives."""


@final
@dataclass(frozen=True)
class SiteSettings:
    """What the node's own configuration says; none of it comes from the server.

    Attributes:
        experiment: the agreed experiment.
        root: the hospital stream's root; whoever knows it can subtract the noise.
        ledgers: folder of the ledger files.
        device: "cpu" or "cuda".
    """

    experiment: Experiment
    root: str
    ledgers: Path
    device: str = "cpu"

    def save(self, path: Path) -> None:
        """Write the settings, readable by the owner only."""
        content = {
            "experiment": self.experiment.model_dump(mode="json"),
            "root": self.root,
            "ledgers": str(self.ledgers),
            "device": self.device,
        }
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file)

    @staticmethod
    def read(path: str | Path) -> "SiteSettings":
        """Read the settings that `save` wrote."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            experiment = Experiment.model_validate(content["experiment"])
            return SiteSettings(experiment, content["root"], Path(content["ledgers"]), content["device"])
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path}: not a hospital's settings file; write it again.") from error


def ledger_file(folder: Path, hospital: str) -> Path:
    """Return the ledger file of a hospital, whatever characters its name has."""
    return folder / f"{quote(hospital, safe=' ')}.jsonl"


@final
class Site:
    """A hospital that answers the coordinator: it introduces itself, and it releases an update at most once a round."""

    def __init__(self, settings: SiteSettings, records: Records, plan: Plan, spec: ModelSpec, loss: LossName) -> None:
        self.settings = settings
        self.records = records
        self.plan = plan
        self.spec = spec
        self.loss: LossName = loss
        self.units = records.unit_rows(settings.experiment.unit)
        self.run = settings.experiment.digest()[:16]
        self._opened: Ledger | None = None

    def introduce(self) -> float:
        """Run the self-check on a few own images and return its relative error.

        Raises:
            RunStoppedError: if the engine's gradients are wrong.
        """
        checked = engine(self.spec, self.loss, self.settings.device)
        checked.load(initial_weights(self.spec, seed=0))
        few = np.linspace(0, len(self.records) - 1, num=min(CHECKED_IMAGES, len(self.records))).astype(np.int64)
        size = self.spec.shape[1:]
        centred = draw_views(
            np.random.default_rng(0),
            len(few),
            TrainingSettings(flips=0.0),
            whole=self.records.images.shape[1:],
            size=size,
        )
        images = view(torch.from_numpy(self.records.pixels(few)), centred)
        targets = torch.from_numpy(self.records.targets(few))
        if self.records.masks is not None:
            targets = view(targets, centred)
        return check_clipped_sum(checked, images, targets, self.plan.clipping_norm or 1.0)

    def release(
        self, round_number: int, spec: ModelSpec, weights: Mapping[str, torch.Tensor], broadcast: str
    ) -> Release:
        """Train locally and return the release of this round, charged to the ledger first.

        Guarantee: the ledger line is on disk before this returns; the same broadcast of a charged round gives the
        very same release at no charge; another broadcast is refused, since the difference of two releases would
        cancel the noise.

        Raises:
            RefusalError: vetting, straggling, a repeated round, or an exhausted budget.
        """
        experiment = self.settings.experiment
        if experiment.hospitals.vetting == "refuse" and spec != self.spec:
            raise RefusalError("the model that was sent is not the agreed one")
        if misses_round(self.settings.root, self.plan.hospital, round_number, experiment.training.stragglers):
            raise RefusalError("straggler: missed the round")
        spend = self._charge(round_number, broadcast)
        arrays = local_update(
            engine=engine(spec, self.loss, self.settings.device),
            weights=dict(weights),
            records=self.records,
            unit_rows=self.units,
            plan=self.plan,
            training=experiment.training,
            root=self.settings.root,
            round_number=round_number,
            broadcast=broadcast,
            size=self.spec.shape[1:],
        )
        return Release(arrays=arrays, records=self.plan.units, spend=spend)

    def _ledger(self) -> Ledger:
        if self._opened is None:
            self.settings.ledgers.mkdir(parents=True, exist_ok=True)
            self._opened = Ledger.open(ledger_file(self.settings.ledgers, self.plan.hospital))
        return self._opened

    def _charge(self, round_number: int, broadcast: str) -> Spend | None:
        steps = self.settings.experiment.training.local_steps
        claims = self.plan.claims
        spend = Spend(self.plan.noise_multiplier, self.plan.sample_rate, steps) if claims else None
        ledger = self._ledger()
        if ledger.find(self.run, round_number) is None:
            spent = ledger.steps()
            if claims and spent + steps > self.plan.steps:
                raise RefusalError(
                    f"budget exhausted: {spent} of {self.plan.steps} priced steps are spent and this round asks {steps}"
                )
            if not 1 <= round_number <= self.settings.experiment.training.rounds:
                raise RefusalError(f"round {round_number} is not one of the agreed rounds")
        try:
            ledger.charge(
                run=self.run,
                round=round_number,
                hospital=self.plan.hospital,
                broadcast=broadcast,
                spend=spend,
            )
        except RepeatedRoundError as error:
            raise RefusalError(
                f"round {round_number} was charged for another broadcast; "
                f"two releases of one round would cancel the noise"
            ) from error
        return spend


@functools.lru_cache(maxsize=4)
def _hospitals(settings_path: str) -> tuple[SiteSettings, Deal, dict[str, Plan], Task]:
    """Load and deal once per process; every hospital of this process shares the memory-mapped images."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    settings = SiteSettings.read(settings_path)
    task = tasks.get(settings.experiment.task)
    records, _ = task.load().parts(settings.experiment.task.holdout)
    parts = deal_experiment(settings.experiment, records)
    return settings, parts, plan_deal(settings.experiment, parts), task


@functools.lru_cache(maxsize=64)
def site(settings_path: str, partition: int) -> Site:
    """Return the hospital with this index, of the node's settings file."""
    settings, parts, planned, task = _hospitals(settings_path)
    hospital = parts.hospitals[partition]
    return Site(settings, hospital.records, planned[hospital.name], task.spec, task.loss)
