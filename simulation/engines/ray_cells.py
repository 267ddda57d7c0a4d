"""Cells of a study on Ray actors: each runs whole in one worker, its hospitals one after the other."""

from collections import Counter, deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Protocol, final

import ray
import ray.exceptions

from configs import RunStoppedError
from configs.runtime import REST, RuntimeSettings
from simulation.cell_jobs import Job, Watching
from simulation.engines.memory import cap_gpu_memory
from simulation.engines.nodes import Terms, offered
from simulation.engines.ray import WAIT, connect, disconnect
from simulation.engines.ray_cluster import ClusterCrew, Places, check_roots
from simulation.engines.ray_node import Joined, join_node


@final
class CellWorker:
    """What an actor is: it runs one cell after the other; torch is imported once, and a dataset is read once."""

    def __init__(self, gpu_fraction: float) -> None:
        import torch

        import simulation.run

        assert simulation.run
        torch.set_num_threads(1)
        cap_gpu_memory(gpu_fraction)

    def run(self, job: Job) -> str | None:
        """Run a cell; return why it failed, or None."""
        from simulation.cell_jobs import attempt

        return attempt(job)


@final
class ClusterCellWorker:
    """The same on a cluster: it runs no cell before it has joined, and reads the data where they lie on its node."""

    def __init__(self, gpu_fraction: float) -> None:
        self._worker = CellWorker(gpu_fraction)
        self._root: str | None = None

    def join(self, terms: Terms) -> Joined | str:
        """Show that the node is fit; returns as `join_node`."""
        joined = join_node(terms)
        self._root = joined.root if isinstance(joined, Joined) else None
        return joined

    def run(self, job: Job) -> str | None:
        """Run a cell; return why it failed, or None."""
        if self._root is None:  # what join answered stops the study
            return "its node has not shown that it is fit"
        own = job.experiment.updated(task={"root": self._root})
        return self._worker.run(replace(job, experiment=own))


class _Crew(Protocol):
    @property
    def size(self) -> int:
        """How many workers there are."""
        ...

    def start(self, number: int, /) -> Any:
        """Return a worker for this place."""
        ...

    def check(self) -> None:
        """Raise RunStoppedError where a worker cannot be used after all."""
        ...


@final
class _OwnCrew:
    """Workers on this machine."""

    def __init__(self, runtime: RuntimeSettings, jobs: int) -> None:
        self._runtime = runtime
        self.size = _places(runtime, jobs)

    def start(self, number: int, /) -> Any:
        cpus, gpus = self._runtime.cpus_per_hospital, self._runtime.gpus_per_hospital
        actor: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(CellWorker)
        return actor.remote(gpus)

    def check(self) -> None:
        pass


def run_cells(jobs: Sequence[Job], runtime: RuntimeSettings, watching: Watching) -> dict[str, str]:
    """Run cells side by side, each in a worker of its own.

    The cell of a worker that dies is taken up again where it stopped, up to `runtime.retries` times. Where the cells
    run on several machines (`runtime.ray.address`), the study's folder lies where all of them find it, and every node
    shows first that it does, and that it has the same data. Classes of hospitals do not matter: a cell trains all of
    its hospitals where it runs.

    Args:
        jobs: in the order in which they start.
        runtime: the CPUs and GPUs of each cell (`cpus_per_hospital`, `gpus_per_hospital`: a cell trains one hospital
            at a time), how many workers, and where Ray is.
        watching: is told.

    Returns:
        The failed cells, each with its reason.

    Raises:
        InputError: `runtime.ray.roots` names what is no node.
        RunStoppedError: if Ray does not start, or has less than one cell needs, or a node is not fit.
    """
    disconnect()  # the resting workers of an earlier run would hold the CPUs that ours wait for
    with ExitStack() as stack:
        stack.callback(disconnect)  # ends the workers too, whatever stopped us
        connect(runtime)
        crew = _on_nodes(jobs, runtime, stack) if runtime.ray.placed else _OwnCrew(runtime, len(jobs))
        return _run(deque(jobs), crew, runtime, watching)


def _on_nodes(jobs: Sequence[Job], runtime: RuntimeSettings, stack: ExitStack) -> ClusterCrew:
    """Take places on a cluster; workers join as they start."""
    everyone = runtime.model_copy(update={"ray": runtime.ray.model_copy(update={"classes": {}})})
    terms = stack.enter_context(offered(jobs[0].folder.parent, jobs[0].experiment.task, runtime.ray.roots))
    check_roots(runtime)
    places = Places(everyone, {REST: len(jobs)})
    stack.callback(places.close)
    return ClusterCrew(places, REST, terms, everyone, ClusterCellWorker)


def _run(waiting: deque[Job], crew: _Crew, runtime: RuntimeSettings, watching: Watching) -> dict[str, str]:
    failures: dict[str, str] = {}
    deaths: Counter[str] = Counter()
    idle = [(number, crew.start(number)) for number in range(crew.size)]
    running: dict[Any, tuple[int, Any, Job]] = {}
    while waiting or running:
        while waiting and idle:
            (number, worker), job = idle.pop(), waiting.popleft()
            running[worker.run.remote(job)] = (number, worker, job)
            watching.started(job)
        done, _ = ray.wait(list(running), num_returns=1, timeout=WAIT)
        crew.check()
        watching.look()
        for task in done:
            number, worker, job = running.pop(task)
            try:
                error = ray.get(task)
                idle.append((number, worker))
            except ray.exceptions.RayError as death:
                ray.kill(worker)
                idle.append((number, crew.start(number)))
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
