"""Workers on an existing Ray cluster: a placement group per class of hospitals, on nodes that are fit."""

import difflib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import ray
import ray.exceptions
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from configs import InputError, RunStoppedError
from configs.runtime import REST, RuntimeSettings, Strategy
from simulation.engines.nodes import Terms
from simulation.engines.ray_node import Joined

LOOK = 0.25  # seconds between two looks for room


@final
@dataclass(frozen=True)
class Asked:
    """What one class asks of the cluster.

    Attributes:
        field: the setting that a person changes.
        workers: how many; None: as many as fit.
        most: more are never needed: its hospitals.
        bundle: what each takes, by Ray's names.
        strategy: how they are put on nodes.
    """

    field: str
    workers: int | None
    most: int
    bundle: Mapping[str, float]
    strategy: Strategy


def asked_by(runtime: RuntimeSettings, name: str, hospitals: int) -> Asked:
    """Return what a class of so many hospitals asks."""
    if name == REST:
        bundle = _bundle(runtime.cpus_per_hospital, runtime.gpus_per_hospital, {})
        return Asked("runtime", runtime.workers, hospitals, bundle, "PACK")
    own = runtime.ray.classes[name]
    cpus = runtime.cpus_per_hospital if own.cpus is None else own.cpus
    gpus = runtime.gpus_per_hospital if own.gpus is None else own.gpus
    bundle = _bundle(cpus, gpus, own.resources)
    return Asked(f"runtime.ray.classes.{name}", own.workers, hospitals, bundle, own.strategy)


def _bundle(cpus: float, gpus: float, resources: Mapping[str, float]) -> dict[str, float]:
    return {"CPU": cpus, **({"GPU": gpus} if gpus > 0 else {}), **resources}


def check_roots(runtime: RuntimeSettings) -> None:
    """Refuse the root of a node that the cluster does not have.

    Raises:
        InputError: it names the nearest one that the cluster has.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    known = {n for node in nodes for n in (node["NodeManagerHostname"], node["NodeManagerAddress"], *node["Resources"])}
    for name in runtime.ray.roots:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"did you mean '{near[0]}'?" if near else f"its nodes are {', '.join(sorted(_hosts(nodes)))}."
            raise InputError(f"runtime.ray.roots.{name}: no host name, address or resource of the cluster; {hint}")


def _hosts(nodes: Sequence[Mapping[str, Any]]) -> set[str]:
    return {node["NodeManagerHostname"] for node in nodes}


@final
class Places:
    """The placement groups of a run. Use as a context; leaving it gives everything back.

    Raises:
        RunStoppedError: if a class finds no room within `runtime.ray.patience` seconds.
    """

    def __init__(self, runtime: RuntimeSettings, hospitals: Mapping[str, int]) -> None:
        """Ask for places.

        Args:
            runtime: the settings.
            hospitals: how many each class has; the rest, which takes what is left, is asked for last.
        """
        self._patience = runtime.ray.patience
        self._groups: dict[str, PlacementGroup] = {}
        self.asked: dict[str, Asked] = {}
        try:
            for name in sorted(hospitals, key=lambda name: name == REST):
                self.asked[name] = asked_by(runtime, name, hospitals[name])
                self._groups[name] = self._place(self.asked[name])
        except BaseException:
            self.close()
            raise

    def group(self, name: str) -> PlacementGroup:
        """Return the group of a class."""
        return self._groups[name]

    def close(self) -> None:
        """Give all places back; whoever works there ends."""
        for group in self._groups.values():
            remove_placement_group(group)
        self._groups = {}

    def _place(self, asked: Asked) -> PlacementGroup:
        until = time.monotonic() + self._patience
        number = min(asked.workers, asked.most) if asked.workers is not None else self._fit(asked, until)
        group = placement_group([dict(asked.bundle)] * number, strategy=asked.strategy)
        # Ray takes whole seconds, and at least one look
        if not group.wait(max(1, round(until - time.monotonic()))):
            remove_placement_group(group)
            raise RunStoppedError(self._no_room(asked, number))
        return group

    def _fit(self, asked: Asked, until: float) -> int:
        """Return for how many workers there is room now; wait while there is none."""
        while True:
            fit = min(room_for(asked.bundle, self._left()), asked.most)
            if fit or time.monotonic() > until:
                return max(1, fit)  # of one that does not fit, Ray says so
            time.sleep(LOOK)

    def _left(self) -> list[Counter[str]]:
        """Return what every node has, less what our groups hold, and no more than is free in the whole cluster."""
        left = {node["NodeID"]: Counter(node["Resources"]) for node in ray.nodes() if node["Alive"]}
        for group in self._groups.values():
            table = placement_group_table(group)
            for number, node in table["bundles_to_node_id"].items():
                if node in left:
                    left[node].subtract(table["bundles"][number])
        free = Counter(ray.available_resources())
        return [Counter({name: min(n, free[name]) for name, n in node.items()}) for node in left.values()]

    def _no_room(self, asked: Asked, number: int) -> str:
        have, free = ray.cluster_resources(), ray.available_resources()
        names = list(asked.bundle)
        has = ", ".join(f"{have.get(name, 0):g} {name} ({free.get(name, 0):g} free)" for name in names)
        each = " and ".join(f"{asked.bundle[name]:g} {name}" for name in names)
        how = "" if asked.strategy == "PACK" else f" ({asked.strategy})"
        return (
            f"{asked.field}: {number} worker{'s' * (number > 1)} with {each} each{how} found no room within "
            f"{self._patience:g} s; the cluster has {has}, on {sum(n['Alive'] for n in ray.nodes())} nodes. Ask for "
            f"less, or wait longer (runtime.ray.patience)."
        )


def room_for(bundle: Mapping[str, float], nodes: list[Counter[str]]) -> int:
    """Return how many such bundles fit on nodes with this much; a bundle lies on one node."""
    return sum(max(0, min(int(node[name] / need + 1e-9) for name, need in bundle.items())) for node in nodes)


@final
class ClusterCrew:
    """The workers of one class, which join before they work."""

    def __init__(self, places: Places, name: str, terms: Terms, runtime: RuntimeSettings, role: type, *told: object):
        """Take the places of a class.

        Args:
            places: of the run.
            name: of the class.
            terms: what every node has to agree with.
            runtime: the settings.
            role: what the workers are: made with their share of a GPU and what `start` is given, joined with the
                terms and what follows.
            told: what else a worker is told as it joins.
        """
        self._places, self._name, self._terms = places, name, terms
        self._role, self._told = role, told
        self._patience, self._timeout = runtime.ray.patience, runtime.timeout
        self._joining: dict[Any, float] = {}  # answers that are still to come, and since when they are awaited
        self.joined: list[Joined] = []  # for tests, and for whoever asks where a class runs

    @property
    def size(self) -> int:
        """How many workers there are places for."""
        return self._places.group(self._name).bundle_count

    def start(self, number: int, /, *given: object) -> Any:
        """Start the worker of one place; it gets no message before its node has shown that it is fit."""
        asked = self._places.asked[self._name]
        where = PlacementGroupSchedulingStrategy(self._places.group(self._name), placement_group_bundle_index=number)
        options: dict[str, Any] = {
            "num_cpus": asked.bundle["CPU"],
            "num_gpus": asked.bundle.get("GPU", 0),
            "resources": {name: n for name, n in asked.bundle.items() if name not in ("CPU", "GPU")},
            "scheduling_strategy": where,
            "max_restarts": 0,
        }
        actor: Any = ray.remote(**options)(self._role)
        worker = actor.remote(asked.bundle.get("GPU", 0), *given)
        self._joining[worker.join.remote(self._terms, *self._told)] = time.monotonic()
        return worker

    def wait(self) -> None:
        """Return when all workers have joined.

        Raises:
            RunStoppedError: one is not fit, does not start, or takes longer than `runtime.timeout`.
        """
        until = time.monotonic() + self._timeout
        while self._joining:
            self._look(LOOK, deadly=True)
            if time.monotonic() > until:
                raise RunStoppedError(
                    f"{self._field}: a worker took longer than {self._timeout:g} s to read its node's data; raise "
                    f"runtime.timeout."
                )

    def check(self) -> None:
        """Look whether a successor has joined; raises as `wait`, and where a class has lost its place for good."""
        if self._joining:
            self._look(0.0, deadly=False)

    def _look(self, wait: float, *, deadly: bool) -> None:
        ray.wait(list(self._joining), num_returns=1, timeout=wait)
        done, pending = ray.wait(list(self._joining), num_returns=len(self._joining), timeout=0)
        for answer in done:
            del self._joining[answer]
            try:
                said = ray.get(answer)
            except ray.exceptions.RayError as error:
                if not deadly and isinstance(error, ray.exceptions.RayActorError):
                    continue  # whatever it was sent is answered with an error, and its own successor joins anew
                raise RunStoppedError(f"{self._field}: a worker did not start: {_first(error)}") from error
            if isinstance(said, str):
                raise RunStoppedError(said)
            self.joined.append(said)
        late = [answer for answer in pending if time.monotonic() - self._joining[answer] > self._patience]
        if late and placement_group_table(self._places.group(self._name))["state"] != "CREATED":
            raise RunStoppedError(
                f"{self._field}: a node is gone, and there was no room for its workers elsewhere within "
                f"{self._patience:g} s; start the node again and go on with --resume."
            )

    def rest(self, worker: Any) -> None:
        """End the worker: what is idle on a cluster belongs to others."""
        ray.kill(worker)

    @property
    def _field(self) -> str:
        return self._places.asked[self._name].field


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
