"""Hospitals on Ray actors: fractions of CPUs and GPUs, dead actors replaced, an existing cluster by its address."""

import logging
import os
from typing import Any, final

import ray
import ray.exceptions
from flwr.app import ArrayRecord, Context, Message, RecordDict

from configs import FedwardError, RunStoppedError
from configs.sections import RuntimeSettings
from simulation.engines.grid import failed

WAIT = 0.2  # seconds that one look waits for a reply
ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "OMP_NUM_THREADS": "1",
}


def connect(runtime: RuntimeSettings) -> None:
    """Start Ray on this machine, or join the cluster at `runtime.ray.address`; once per process."""
    if ray.is_initialized():
        return
    os.environ.update(ENVIRONMENT)
    quiet: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    try:
        if runtime.ray.address:
            # A cluster has its own idea of its CPUs: never pass num_cpus with an address.
            ray.init(address=runtime.ray.address, runtime_env={"env_vars": ENVIRONMENT}, **quiet)
        else:
            ray.init(include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = runtime.ray.address or "this machine"
        raise RunStoppedError(f"Ray did not start on {where}: {str(error).splitlines()[0]}") from error


# Workers outlive a run: a study's next cell need not import torch again.
_RESTING: dict[tuple[float, float], list[Any]] = {}


@ray.remote(max_restarts=0)
class HospitalWorker:
    """An actor that plays any hospital of the run, one message at a time."""

    def __init__(self, gpu_fraction: float) -> None:
        import torch

        torch.set_num_threads(1)
        if 0 < gpu_fraction < 1 and torch.cuda.is_available():
            # Ray's fractions are scheduling only; without a cap one hospital can starve its neighbours.
            torch.cuda.set_per_process_memory_fraction(gpu_fraction)

    def process(self) -> int:
        """Return the worker's process id."""
        return os.getpid()

    def handle(self, weights: ArrayRecord | None, message: Message, context: Context) -> Message:
        """Run the hospital's app on a message; its weights come through the object store."""
        from clients.app import app

        if weights is not None:
            message.content["weights"] = weights
        try:
            return app(message, context)
        except FedwardError as error:
            return failed(message, str(error))
        except Exception as error:
            return failed(message, f"{type(error).__name__}: {error}")


@final
class RayDispatcher:
    """Keeps every worker busy with one hospital; the broadcast is put into the object store once."""

    def __init__(self, runtime: RuntimeSettings, hospitals: int) -> None:
        connect(runtime)
        self._runtime = runtime
        self._kind = (runtime.cpus_per_hospital, runtime.gpus_per_hospital)
        self._waiting: list[tuple[Any, Message, Context]] = []
        self._running: dict[Any, tuple[Any, Message]] = {}
        self._stored: Any = None  # the latest broadcast, and where the object store has it
        self._reference: Any = None
        self._idle = [self._start() for _ in range(self._workers(hospitals))]

    def _workers(self, hospitals: int) -> int:
        resources = ray.cluster_resources()
        fit = int(resources.get("CPU", 1) / self._runtime.cpus_per_hospital + 1e-9)
        if self._runtime.gpus_per_hospital > 0:
            gpus = resources.get("GPU", 0)
            fit = min(fit, int(gpus / self._runtime.gpus_per_hospital + 1e-9))
            if fit < 1:
                raise RunStoppedError(
                    f"runtime.gpus_per_hospital: {self._runtime.gpus_per_hospital:g} GPUs asked, "
                    f"the cluster has {gpus:g}."
                )
        if fit < 1:
            raise RunStoppedError(
                f"runtime.cpus_per_hospital: {self._runtime.cpus_per_hospital:g} CPUs asked, "
                f"the cluster has {resources.get('CPU', 0):g}."
            )
        return min(hospitals, self._runtime.workers or fit, fit)

    def _start(self) -> Any:
        options = {"num_cpus": self._runtime.cpus_per_hospital, "num_gpus": self._runtime.gpus_per_hospital}
        resting = _RESTING.get(self._kind)
        if resting:
            return resting.pop()
        worker: Any = HospitalWorker
        return worker.options(**options).remote(self._runtime.gpus_per_hospital)

    def processes(self) -> list[int]:
        """Return the process ids of the idle workers (for tests and for `doctor`)."""
        return ray.get([worker.process.remote() for worker in self._idle])

    def submit(self, message: Message, context: Context) -> None:
        """Queue a message; a broadcast shared by several hospitals is stored once."""
        content = RecordDict(dict(message.content))
        weights = content.pop("weights", None)
        reference = None
        if weights is not None:
            if weights is not self._stored:
                self._stored, self._reference = weights, ray.put(weights)
            reference = self._reference
        metadata = message.metadata
        own = Message(content, metadata.dst_node_id, metadata.message_type, group_id=metadata.group_id)
        own.metadata.__dict__["_message_id"] = metadata.message_id
        self._waiting.append((reference, own, context))
        self._fill()

    def _fill(self) -> None:
        while self._waiting and self._idle:
            reference, message, context = self._waiting.pop(0)
            worker = self._idle.pop()
            self._running[worker.handle.remote(reference, message, context)] = (worker, message)

    def collect(self) -> list[Message]:
        """Return finished replies; a dead worker is replaced and its message answered with an error."""
        if not self._running:
            return []
        done, _ = ray.wait(list(self._running), num_returns=1, timeout=WAIT)
        replies: list[Message] = []
        for task in done:
            worker, message = self._running.pop(task)
            try:
                replies.append(ray.get(task))
                self._idle.append(worker)
            except (
                ray.exceptions.RayActorError,
                ray.exceptions.RayTaskError,
                ray.exceptions.ObjectLostError,
            ) as error:
                replies.append(failed(message, f"worker died: {type(error).__name__}"))
                ray.kill(worker)
                self._idle.append(self._start())
        self._fill()
        return replies

    def close(self) -> None:
        """Lay the idle workers to rest for the next run of this process; end those that are still at work."""
        for worker, _ in self._running.values():
            ray.kill(worker)
        _RESTING.setdefault(self._kind, []).extend(self._idle)
        self._idle, self._running, self._waiting = [], {}, []


def disconnect() -> None:
    """End the resting workers and leave Ray."""
    _RESTING.clear()
    if ray.is_initialized():
        ray.shutdown()
