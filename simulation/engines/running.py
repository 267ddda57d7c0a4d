"""Run the coordinator over the engine that the experiment names."""

import contextlib
import importlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from configs import Experiment, RunStoppedError
from configs.sections import TWINS

if TYPE_CHECKING:
    from server.settings import ServerSettings


def prepare_environment(folder: Path) -> None:
    """Keep Flower and Ray quiet and at home: no telemetry, no update check, their files in the run's folder."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("FLWR_HOME", str(folder / ".flwr"))


def warm_up(experiment: Experiment, folder: Path, meanwhile: str) -> None:
    """Start Ray and its workers, which take longest to be ready, as soon as it is known that they will be needed.

    Whatever is wrong is said by the run itself, in its turn.

    Args:
        experiment: the run; with another engine nothing happens.
        folder: of the run; nothing is written.
        meanwhile: a module that the driver needs next: imported while Ray starts.
    """
    if experiment.runtime.engine != "ray":
        return
    prepare_environment(folder)
    from simulation.engines.ray import warm_workers

    # From here on Ray imports nothing of ours, and what we import nothing of Ray: no two threads load one module.
    threading.Thread(target=_load, args=(meanwhile,), daemon=True).start()
    single = experiment.privacy.mechanism in TWINS
    with contextlib.suppress(RunStoppedError):
        warm_workers(experiment.runtime, 1 if single else experiment.hospitals.count)


def _load(module: str) -> None:
    with contextlib.suppress(Exception):  # whoever imports it next sees why
        importlib.import_module(module)


def run_engine(experiment: Experiment, settings: "ServerSettings", hospitals: int, site_settings: Path) -> None:
    """Run the federation to its end, or raise what stopped it."""
    runtime = experiment.runtime
    if runtime.engine == "flower":
        from simulation.engines.flower import run_flower

        run_flower(settings.to_config(), runtime, hospitals, site_settings)
        return
    import torch
    from flwr.app import Context, RecordDict
    from flwr.app.user_config import UserConfig

    from server.app import app
    from simulation.engines.grid import RUN_ID, SERVER_NODE, LocalGrid

    torch.set_num_threads(1)
    context = Context(
        run_id=RUN_ID,
        node_id=SERVER_NODE,
        node_config=UserConfig(),
        state=RecordDict(),
        run_config=UserConfig(settings.to_config()),
    )
    if runtime.engine == "inline":
        from simulation.engines.inline import InlineDispatcher

        app(LocalGrid(InlineDispatcher(), hospitals, site_settings), context)
        return
    if runtime.ray.placed:
        from simulation.engines.ray_classes import ClusterDispatcher

        dispatcher = ClusterDispatcher(experiment, hospitals, site_settings)
    else:
        from simulation.engines.ray import RayDispatcher

        dispatcher = RayDispatcher(runtime, hospitals)
    try:
        app(LocalGrid(dispatcher, hospitals, site_settings), context)
    finally:
        dispatcher.close()
