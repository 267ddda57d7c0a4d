"""Hospitals on a cluster, by class: each class has its own workers in places of its own."""

from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import final

import ray
from flwr.app import Context, Message

import tasks
from configs import Experiment
from simulation.engines.answering import HOSPITALS_APP
from simulation.engines.nodes import offered
from simulation.engines.ray import WAIT, RayDispatcher, connect, end_resting
from simulation.engines.ray_cluster import ClusterCrew, Places, check_roots
from simulation.engines.ray_node import ClusterWorker
from tasks.dealing import deal_experiment


@final
class ClusterDispatcher:
    """Hands each message to the workers of its hospital's class; every node was shown to be fit before the first.

    Args:
        experiment: whose hospitals they are.
        hospitals: how many.
        site_settings: the hospitals' settings file, in the run's folder.
        app: what the workers run.

    Raises:
        InputError: a class or a root names what does not exist.
        RunStoppedError: no room, or a node is not fit.
    """

    def __init__(self, experiment: Experiment, hospitals: int, site_settings: Path, app: str = HOSPITALS_APP) -> None:
        runtime = experiment.runtime
        self._class = classes_of(experiment, hospitals)
        counts = Counter(self._class)
        self._stack = ExitStack()
        try:
            terms = self._stack.enter_context(offered(site_settings.parent, experiment.task, runtime.ray.roots))
            connect(runtime)
            end_resting()
            check_roots(runtime)
            places = Places(runtime, counts)
            self._stack.callback(places.close)
            self.crews = {
                name: ClusterCrew(places, name, terms, runtime, ClusterWorker, site_settings) for name in counts
            }
            self._dispatchers = {
                name: RayDispatcher(runtime, counts[name], app, crew) for name, crew in self.crews.items()
            }
            for crew in self.crews.values():
                crew.wait()
        except BaseException:
            self._stack.close()
            raise

    def submit(self, messages: Iterable[tuple[Message, Context]]) -> None:
        """Take messages, sorted by class."""
        sorted_: dict[str, list[tuple[Message, Context]]] = {}
        for message, context in messages:
            name = self._class[int(context.node_config["partition-id"])]
            sorted_.setdefault(name, []).append((message, context))
        for name, own in sorted_.items():
            self._dispatchers[name].submit(own)

    def collect(self) -> list[Message]:
        """Return the replies that have come, waiting a little for the first of any class."""
        due = [batch for dispatcher in self._dispatchers.values() for batch in dispatcher.due()]
        if due:
            ray.wait(due, num_returns=1, timeout=WAIT)
        return [reply for dispatcher in self._dispatchers.values() for reply in dispatcher.collect(0.0)]

    def close(self) -> None:
        """End the workers and give their places back."""
        for dispatcher in self._dispatchers.values():
            dispatcher.close()
        self._stack.close()


def classes_of(experiment: Experiment, hospitals: int) -> tuple[str, ...]:
    """Return the class of every hospital, in the order of the deal.

    Raises:
        InputError: a class names a hospital that does not exist.
    """
    settings = experiment.runtime.ray
    if not settings.classes:
        return settings.sort([""] * hospitals)
    training, _ = tasks.get(experiment.task).load().parts(experiment.task.holdout)
    dealt = deal_experiment(experiment, training)
    return settings.sort([h.name for h in dealt.hospitals], [h.name for h in dealt.federation])
