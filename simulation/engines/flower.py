"""Flower's own simulation engine, running the same two apps."""

import logging
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from clients.app import SETTINGS_VARIABLE
from clients.app import app as client_app
from configs import RunStoppedError
from configs.sections import RuntimeSettings
from server.app import app as server_app
from simulation.engines.ray import ENVIRONMENT, connect, count_nodes, disconnect


def run_flower(config: dict[str, str], runtime: RuntimeSettings, hospitals: int, site_settings: Path) -> None:
    """Run the server app and the hospitals' app on Flower's engine.

    Flower gives a simulated node no configuration of its own, so the hospitals find their settings file through the
    environment, which Ray's workers on this machine inherit.

    Raises:
        RunStoppedError: with what stopped the run.
    """
    disconnect()  # our resting workers would hold the CPUs that Flower's actors wait for
    if runtime.ray.address:
        _check_single_node(runtime)
    os.environ.update({**ENVIRONMENT, SETTINGS_VARIABLE: str(site_settings)})
    logging.getLogger("flwr").setLevel(logging.ERROR)
    crashed = threading.Event()
    wrapped = ServerApp()

    @wrapped.main()
    def main(grid: Grid, context: Context) -> None:
        context.run_config = dict(config)
        while len(list(grid.get_node_ids())) < hospitals:  # nodes register while the server starts
            if crashed.is_set():
                return
            time.sleep(0.05)
        _stop_with_engine(grid, crashed)
        server_app(grid, context)

    init: dict[str, object] = {"include_dashboard": False, "log_to_driver": False}
    if runtime.ray.address:
        init["address"] = runtime.ray.address
    resources = {"num_cpus": runtime.cpus_per_hospital, "num_gpus": runtime.gpus_per_hospital}
    try:
        run_simulation(
            server_app=wrapped,
            client_app=client_app,
            num_supernodes=hospitals,
            backend_config={"init_args": init, "client_resources": resources},  # type: ignore[dict-item]
        )
    except RuntimeError as error:
        crashed.set()
        cause = error.__cause__ or error
        raise RunStoppedError(f"Flower's engine stopped: {str(cause.__cause__ or cause).splitlines()[0]}") from error
    finally:
        disconnect()


def _check_single_node(runtime: RuntimeSettings) -> None:
    """Refuse several nodes: Flower's actors do not show that theirs has the run's folder and the same data."""
    connect(runtime)
    nodes = count_nodes()
    disconnect()
    if nodes > 1:
        raise RunStoppedError(
            f"runtime.engine: on the {nodes} nodes at {runtime.ray.address} Flower's own engine would not look whether "
            f"each has the same data; set it to ray."
        )


def _stop_with_engine(grid: Grid, crashed: threading.Event) -> None:
    """Make the coordinator's next look fail once the engine has crashed, or its thread would wait for ever."""
    pull = grid.pull_messages

    def pull_or_stop(message_ids: Iterable[str]) -> Iterable[Message]:
        if crashed.is_set():
            raise RunStoppedError("Flower's engine crashed.")
        return pull(message_ids)

    grid.pull_messages = pull_or_stop  # type: ignore[method-assign]
