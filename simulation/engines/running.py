"""Run the coordinator over the engine that the experiment names."""

import os
from pathlib import Path

from configs import Experiment
from server.settings import ServerSettings


def prepare_environment(folder: Path) -> None:
    """Keep Flower and Ray quiet and at home: no telemetry, no update check, their files in the run's folder."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("FLWR_HOME", str(folder / ".flwr"))


def run_engine(experiment: Experiment, settings: ServerSettings, hospitals: int, site_settings: Path) -> None:
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
