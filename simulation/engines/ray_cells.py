"""Cells of a study on Ray actors: each runs whole in one worker, its hospitals one after the other."""

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import ray
import ray.exceptions

from configs import RunStoppedError
from configs.sections import RuntimeSettings
from simulation.cell_jobs import Job, Watching
from simulation.engines.ray import WAIT, connect, disconnect


@ray.remote(max_restarts=0)
class CellWorker:
    """An actor that runs one cell after the other: torch is imported once, and a hospital's data are read once."""

    def __init__(self, gpu_fraction: float) -> None:
        import torch

        import simulation.run

        assert simulation.run
        torch.set_num_threads(1)
        if 0 < gpu_fraction < 1 and torch.cuda.is_available():
            # Ray's fractions are scheduling only; without a cap one cell can starve its neighbours.
            torch.cuda.set_per_process_memory_fraction(gpu_fraction)

    def run(self, job: Job) -> str | None:
        """Run a cell; return why it failed, or None."""
        from simulation.cell_jobs import attempt

        return attempt(job)


def run_cells(jobs: Sequence[Job], runtime: RuntimeSettings, watching: Watching) -> dict[str, str]:
    """Run cells side by side, each in a worker of its own.

    The cell of a worker that dies is taken up again where it stopped, up to `runtime.retries` times. Where the cells
    run on several machines (`runtime.ray.address`), the study's folder lies where all of them find it.

    Args:
        jobs: in the order in which they start.
        runtime: the CPUs and GPUs of each cell (`cpus_per_hospital`, `gpus_per_hospital`: a cell trains one hospital
            at a time), how many workers, and where Ray is.
        watching: is told.

    Returns:
        The failed cells, each with its reason.

    Raises:
        RunStoppedError: if Ray does not start, or has less than one cell needs.
    """
    disconnect()  # the resting workers of an earlier run would hold the CPUs that ours wait for
    connect(runtime)
    try:
        return _run(deque(jobs), _places(runtime, len(jobs)), runtime, watching)
    finally:
        disconnect()  # ends the workers too, whatever stopped us


def _run(waiting: deque[Job], places: int, runtime: RuntimeSettings, watching: Watching) -> dict[str, str]:
    failures: dict[str, str] = {}
    deaths: Counter[str] = Counter()
    idle = [_start(runtime) for _ in range(places)]
    running: dict[Any, tuple[Any, Job]] = {}
    while waiting or running:
        while waiting and idle:
            worker, job = idle.pop(), waiting.popleft()
            running[worker.run.remote(job)] = (worker, job)
            watching.started(job)
        done, _ = ray.wait(list(running), num_returns=1, timeout=WAIT)
        watching.look()
        for task in done:
            worker, job = running.pop(task)
            try:
                error = ray.get(task)
                idle.append(worker)
            except ray.exceptions.RayError as death:
                ray.kill(worker)
                idle.append(_start(runtime))
                deaths[job.name] += 1
                why = f"its worker died ({type(death).__name__})"
                if deaths[job.name] <= runtime.retries:
                    watching.lost(job, why)
                    waiting.appendleft(job)
                    continue
                error = f"{why}, {deaths[job.name]} times"
            watching.ended(job, error)
            if error is not None:
                failures[job.name] = error
    return failures


def _start(runtime: RuntimeSettings) -> Any:
    options = {"num_cpus": runtime.cpus_per_hospital, "num_gpus": runtime.gpus_per_hospital}
    worker: Any = CellWorker
    return worker.options(**options).remote(runtime.gpus_per_hospital)


def _places(runtime: RuntimeSettings, jobs: int) -> int:
    """Return how many cells run at a time."""
    have = ray.cluster_resources()
    fit = jobs
    for name, need in (("CPU", runtime.cpus_per_hospital), ("GPU", runtime.gpus_per_hospital)):
        if need > 0:
            fit = min(fit, int(have.get(name, 0) / need + 1e-9))
        if fit < 1:
            raise RunStoppedError(
                f"runtime.{name.lower()}s_per_hospital: {need:g} {name}s asked, the cluster has {have.get(name, 0):g}."
            )
    return min(fit, runtime.workers or fit)
