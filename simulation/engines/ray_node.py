"""A worker on a node of a cluster: it shows that its node is fit, and finds the data where they lie there."""

import hashlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import ray
from flwr.app import Context
from flwr.app.user_config import UserConfig

from clients.site import SiteSettings
from configs import FedwardError, RunStoppedError
from simulation.engines.answering import HospitalWorker, Request
from simulation.engines.envelope import Envelope, Parcel
from simulation.engines.nodes import Node, Terms, admit


@final
@dataclass(frozen=True)
class Joined:
    """A node that is fit.

    Attributes:
        node: which.
        root: where its data lie.
    """

    node: Node
    root: str


def this_node() -> Node:
    """Return the node on which this worker runs."""
    own = ray.get_runtime_context().get_node_id()
    found = next(node for node in ray.nodes() if node["NodeID"] == own)
    return Node(own, found["NodeManagerHostname"], found["NodeManagerAddress"], tuple(found["Resources"]))


def join_node(terms: Terms) -> Joined | str:
    """Return where the data lie on this node, or the sentence that says why it is not fit."""
    try:
        node = this_node()
        return Joined(node, admit(node, terms))
    except FedwardError as error:
        return str(error)


@final
class ClusterWorker:
    """What an actor on a cluster is: a worker for hospitals that answers no message before it has joined."""

    def __init__(self, gpu_fraction: float, app: str) -> None:
        self._worker = HospitalWorker(gpu_fraction, app)
        self._device = "cuda" if gpu_fraction > 0 else "cpu"
        self._settings: str | None = None

    def process(self) -> int:
        """Return the worker's process id."""
        return self._worker.process()

    def join(self, terms: Terms, settings: Path) -> Joined | str:
        """Show that the node is fit and write the hospitals' settings as they are here; returns as `join_node`."""
        joined = join_node(terms)
        if isinstance(joined, Joined):
            try:
                self._settings = str(settings_here(settings, joined.root, self._device))
            except (FedwardError, OSError) as error:
                return f"{joined.node.label}: {error}"
        return joined

    def handle(self, app: str, requests: Sequence[Request], *parcels: Parcel) -> list[tuple[Envelope, float]]:
        """Answer as `HospitalWorker.handle`."""
        if self._settings is None:  # its join is told by another message, and stops the run
            raise RunStoppedError("this worker's node has not shown that it is fit.")
        here = [replace(request, context=_placed(request.context, self._settings)) for request in requests]
        return self._worker.handle(app, here, *parcels)


def settings_here(settings: Path, root: str, device: str) -> Path:
    """Return the hospitals' settings file for this root and device; written beside the run's own where they differ.

    Readable by the owner only, as the run's own, and written whole or not at all: several workers write the same.
    """
    own = SiteSettings.read(settings)
    if own.experiment.task.root == root and own.device == device:
        return settings
    experiment = own.experiment.updated(task={"root": root})
    name = hashlib.sha256(f"{root}\n{device}".encode()).hexdigest()[:12]
    file = settings.with_name(f"{settings.stem}-{name}{settings.suffix}")
    draft = file.with_name(f"{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        replace(own, experiment=experiment, device=device).save(draft)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    return file


def _placed(context: Context, settings: str) -> Context:
    config = UserConfig({**context.node_config, "site-settings": settings})
    return Context(
        run_id=context.run_id,
        node_id=context.node_id,
        node_config=config,
        state=context.state,
        run_config=context.run_config,
    )
