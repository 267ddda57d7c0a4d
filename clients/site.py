"""One hospital as it stands: its records, its plan, its ledger, and what it refuses."""

import functools
import gc
import json
import os
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import final
from urllib.parse import quote

import torch

import tasks
from clients.alarm import Alarm, AlarmLog
from clients.alarm_probes import Probes, make_probes
from clients.calibration import Noise, tell
from clients.gradients import GradientEngine, discard_engines, engine
from clients.local import local_update
from clients.planning import Plan, plan_deal
from clients.sampling import draws_of_round, misses_round
from clients.selfcheck import check_clipped_sum, random_examples
from configs import Experiment
from configs.errors import InputError
from configs.sections import LossName
from configs.seeds import derive
from privacy import BudgetExhaustedError, Ledger, Release, RepeatedRoundError, Spend
from tasks.base import Records, Task
from tasks.dealing import deal_experiment
from tasks.models import ModelSpec, initial_weights
from tasks.partition import Deal
from tasks.views import view

CHECKED_IMAGES = 4
LOGGED_IMAGES = 16  # of a draw, read for the hospital's own alarm log
MOST_SITES = 4096  # hospitals that a process keeps open
LOCAL_FAILURE = "local training failed; the cause is in the hospital's own log, beside its ledger"
OUT_OF_MEMORY = (
    "out of memory in local training: raise runtime.gpus_per_hospital so that fewer hospitals share a GPU "
    "(without one, lower runtime.workers), or choose a smaller task.width or task.image_size"
)


class RefusalError(Exception):
    """A hospital declines a round; the text is the reason that it gives, and never depends on its records."""


class LocalTrainingError(Exception):
    """A charged round failed inside the hospital."""


@final
@dataclass(frozen=True)
class SiteSettings:
    """What the node's own configuration says; none of it comes from the server.

    Attributes:
        experiment: the agreed experiment.
        root: the hospital stream's root; whoever knows it can subtract the noise.
        ledgers: folder of the ledger files.
        device: "cpu" or "cuda".
        noise: what is calibrated already; it spares the search, and is priced again before it is believed.
    """

    experiment: Experiment
    root: str
    ledgers: Path
    device: str = "cpu"
    noise: tuple[Noise, ...] = ()

    def save(self, path: Path) -> None:
        """Write the settings, readable by the owner only."""
        content = {
            "experiment": self.experiment.model_dump(mode="json"),
            "root": self.root,
            "ledgers": str(self.ledgers),
            "device": self.device,
            "noise": [asdict(one) for one in self.noise],
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
            noise = tuple(Noise(**one) for one in content.get("noise", []))
            return SiteSettings(experiment, content["root"], Path(content["ledgers"]), content["device"], noise)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not a hospital's settings file; write it again.") from error


def ledger_file(folder: Path, hospital: str) -> Path:
    """Return the ledger file of a hospital, whatever characters its name has."""
    return folder / f"{quote(hospital, safe=' ')}.jsonl"


@final
class Site:
    """A hospital that answers the coordinator: it introduces itself, and it releases an update at most once a round."""

    def __init__(
        self,
        settings: SiteSettings,
        records: Records,
        plan: Plan,
        spec: ModelSpec,
        loss: LossName,
        fingerprint: str,
    ) -> None:
        self.settings = settings
        self.records = records
        self.plan = plan
        self.spec = spec
        self.loss: LossName = loss
        self.units = records.unit_rows(settings.experiment.unit)
        self.run = settings.experiment.digest()[:16]
        # The same settings over other data are another run as far as noise goes: with equal noise the difference of the
        # two releases would be what changed in the data, bare.
        self.noise_run = f"{self.run}/{fingerprint}"
        self._opened: Ledger | None = None
        self._watching: Alarm | None = None

    def introduce(self) -> float:
        """Run the self-check on random images and return its relative error.

        On random images and not on the hospital's own: the figure leaves the hospital, and nothing was charged for it.
        The images are the same for all, so that one check serves all hospitals of a process.

        Raises:
            RunStoppedError: if the engine's gradients are wrong.
        """
        return _checked(self.spec, self.loss, self.settings.device, self.plan.clipping_norm or 1.0)

    def release(
        self, round_number: int, spec: ModelSpec, weights: Mapping[str, torch.Tensor], broadcast: str
    ) -> Release:
        """Train locally and return the release of this round, charged to the ledger first.

        Guarantee: the ledger line is on disk before this returns; the same broadcast of a charged round gives the
        very same release at no charge; another broadcast is refused, since the difference of two releases would
        cancel the noise.

        Raises:
            RefusalError: vetting, straggling, a repeated round, or an exhausted budget.
            LocalTrainingError: after the charge; its text is one of two that never change, and the cause stays in the
                own log.
        """
        experiment = self.settings.experiment
        self._vet(round_number, spec, weights, broadcast)
        if misses_round(self.settings.root, self.plan.hospital, round_number, experiment.training.stragglers):
            raise RefusalError("straggler: missed the round")
        spend = self._charge(round_number, broadcast)
        try:
            if experiment.hospitals.alarm != "off":
                self._log_own(round_number, spec, weights)
            arrays = local_update(
                engine=self._engine(spec),
                weights=dict(weights),
                records=self.records,
                unit_rows=self.units,
                plan=self.plan,
                training=experiment.training,
                root=self.settings.root,
                run=self.noise_run,
                round_number=round_number,
                broadcast=broadcast,
                size=self.spec.shape[1:],
            )
        except Exception as error:  # whatever it is, its words may tell which records were drawn
            self._log(round_number, error)
            failure = OUT_OF_MEMORY if _is_out_of_memory(error) else LOCAL_FAILURE
        else:
            return Release(arrays=arrays, records=self.plan.units, spend=spend)
        # Out here the error is gone, and with it the frames that hold on to tensors.
        discard_engines()
        if failure == OUT_OF_MEMORY:
            _empty_caches()
        raise LocalTrainingError(failure) from None

    def _engine(self, spec: ModelSpec) -> GradientEngine:
        return engine(spec, self.loss, self.settings.device)

    def _vet(self, round_number: int, spec: ModelSpec, weights: Mapping[str, torch.Tensor], broadcast: str) -> None:
        """Refuse another architecture: with fewer outputs, a round would fail when certain classes were drawn.

        A block beside the agreed model, the adversary's usual tool, is let through unless `vetting` refuses it. Then
        the alarm looks at the broadcast on images that are nobody's records.
        """
        allowed = spec if self.settings.experiment.hospitals.vetting == "refuse" else replace(spec, block=None)
        if allowed != self.spec:
            raise RefusalError("the model that was sent is not the agreed one")
        if not self._engine(spec).fits(weights):
            raise RefusalError("the weights that were sent do not fit the model")
        mode = self.settings.experiment.hospitals.alarm
        if mode == "off" or not 1 <= round_number <= self.settings.experiment.training.rounds:
            return
        unusual = self._alarm().check(round_number, broadcast, spec, weights)
        if unusual and mode == "refuse":
            raise RefusalError(f"the alarm went off at the model that was sent: {' and '.join(unusual)}")

    def _alarm(self) -> Alarm:
        if self._watching is None:
            settings = self.settings
            probes = make_probes(
                self.spec, settings.experiment.task, derive(settings.root, "alarm", self.plan.hospital) % 2**31
            )
            file = ledger_file(settings.ledgers, self.plan.hospital).with_suffix(".alarm.log")
            self._watching = Alarm(self.spec, self._engine, probes, AlarmLog(file))
        return self._watching

    def _log_own(self, round_number: int, spec: ModelSpec, weights: Mapping[str, torch.Tensor]) -> None:
        """Write the alarm's statistics of some of the drawn images into the own log."""
        draws = draws_of_round(
            self.settings.root,
            self.plan,
            self.settings.experiment.training,
            round_number,
            self.units,
            whole=self.records.images.shape[1:],
            size=self.spec.shape[1:],
        )
        first = next(draws)
        rows, views = first.rows[:LOGGED_IMAGES], first.views.take(slice(LOGGED_IMAGES))
        targets = torch.from_numpy(self.records.targets(rows))
        if self.records.masks is not None:
            targets = view(targets, views)
        drawn = Probes(view(torch.from_numpy(self.records.pixels(rows)), views), targets)
        self._alarm().log_own(round_number, spec, weights, drawn)

    def _log(self, round_number: int, error: Exception) -> None:
        file = ledger_file(self.settings.ledgers, self.plan.hospital).with_suffix(".errors.log")
        text = "".join(traceback.format_exception(error))
        with file.open("a", encoding="utf-8") as log:
            log.write(f"round {round_number}\n{text}\n")

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
        if not 1 <= round_number <= self.settings.experiment.training.rounds:
            raise RefusalError(f"round {round_number} is not one of the agreed rounds")
        try:
            ledger.charge(
                run=self.run,
                round=round_number,
                hospital=self.plan.hospital,
                broadcast=broadcast,
                spend=spend,
                most_steps=self.plan.steps if claims else None,
            )
        except BudgetExhaustedError as error:
            raise RefusalError(f"budget exhausted: {error}") from error
        except RepeatedRoundError as error:
            raise RefusalError(
                f"round {round_number} was charged for another broadcast; "
                f"two releases of one round would cancel the noise"
            ) from error
        return spend


@functools.lru_cache(maxsize=16)
def _checked(spec: ModelSpec, loss: LossName, device: str, clipping_norm: float) -> float:
    """Run the self-check of this process' engine once for all its hospitals; a failure is never remembered."""
    checked = engine(spec, loss, device)
    checked.load(initial_weights(spec, seed=0))
    images, targets = random_examples(spec, CHECKED_IMAGES)
    return check_clipped_sum(checked, images, targets, clipping_norm)


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed: torch has a type for it on a GPU, and only words on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def _empty_caches() -> None:
    """Give back what torch keeps for later: the next hospital of this process starts with all there is."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@functools.lru_cache(maxsize=4)
def _hospitals(settings_path: str) -> tuple[SiteSettings, Deal, dict[str, Plan], Task, str]:
    """Load and deal once per process; every hospital of this process shares the memory-mapped images."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    settings = SiteSettings.read(settings_path)
    tell(settings.noise)
    task = tasks.get(settings.experiment.task)
    splits = task.load()
    records, _ = splits.parts(settings.experiment.task.holdout)
    parts = deal_experiment(settings.experiment, records)
    return settings, parts, plan_deal(settings.experiment, parts), task, splits.fingerprint


@functools.lru_cache(maxsize=MOST_SITES)
def site(settings_path: str, partition: int) -> Site:
    """Return the hospital with this index, of the node's settings file."""
    settings, parts, planned, task, fingerprint = _hospitals(settings_path)
    hospital = parts.hospitals[partition]
    return Site(settings, hospital.records, planned[hospital.name], task.spec, task.loss, fingerprint)
