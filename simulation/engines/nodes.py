"""Whether a node of a cluster may do hospitals' work: the run's folder, its locks, the software and the data.

A hospital is a pure function of the data, so a node with other data would silently play other hospitals; and a ledger
that another node does not see is charged twice. So every worker shows first that its node is fit, and one that is not
stops the run with a sentence that names it.
"""

import fcntl
import hashlib
import os
import secrets
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

import tasks
from configs import FedwardError, RunStoppedError
from configs.sections import PHANTOM, TaskSettings
from simulation.folder import versions

VARIABLE = "FEDWARD_ROOT"
TOKEN = ".cluster"
COMPARED = 8  # images of each part whose pixels are compared


@final
@dataclass(frozen=True)
class Node:
    """A machine of the cluster, as Ray knows it.

    Attributes:
        id: Ray's.
        host: its host name.
        address: its IP address.
        resources: the names of what it has.
    """

    id: str
    host: str
    address: str
    resources: tuple[str, ...]

    @property
    def label(self) -> str:
        """What a person finds it by."""
        own = [r for r in self.resources if not r.startswith(("node:", "accelerator_type:")) and r not in _COMMON]
        return f"node {self.host} ({', '.join([self.address, *sorted(own)])})"


_COMMON = ("CPU", "GPU", "memory", "object_store_memory")


@final
@dataclass(frozen=True)
class Terms:
    """What a node has to agree with.

    Attributes:
        folder: that every node has to share.
        token: what the driver wrote there.
        task: the data to be found, with the driver's root.
        data: what the driver found there, from `data_digest`.
        roots: by a node's host name, address or resource.
        versions: of the driver's libraries.
    """

    folder: Path
    token: str
    task: TaskSettings
    data: str
    roots: Mapping[str, str]
    versions: Mapping[str, str]


@contextmanager
def offered(folder: Path, task: TaskSettings, roots: Mapping[str, str]) -> Generator[Terms]:
    """Give the terms of a run; while the context lasts, its token is locked, as nodes find out.

    Raises:
        InputError: the driver's own data are not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data, token, file = data_digest(task), secrets.token_hex(16), folder / TOKEN
    with file.open("w", encoding="utf-8") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write(token)
        held.flush()
        os.fsync(held.fileno())
        try:
            yield Terms(folder, token, task, data, dict(roots), versions())
        finally:
            file.unlink(missing_ok=True)


def data_digest(task: TaskSettings) -> str:
    """Return the sha256 of a dataset as this machine reads it: its fingerprint, its parts, and some of its pixels.

    The fingerprint holds the metadata and the files' names and sizes. Pixels are compared too, of a few images from
    each part: another library of decoders may read the same file differently.

    Raises:
        InputError: naming the file that is missing or wrong.
    """
    splits = tasks.get(task).load()
    digest = hashlib.sha256(splits.fingerprint.encode())
    for part in (splits.train, splits.validation, splits.test):
        rows = np.unique(np.linspace(0, max(len(part) - 1, 0), min(COMPARED, len(part))).astype(np.int64))
        digest.update(f"/{len(part)}/{','.join(part.ids[rows])}/".encode())
        digest.update(part.pixels(rows).tobytes())
        digest.update(np.ascontiguousarray(part.targets(rows)).tobytes())
    return digest.hexdigest()


def admit(node: Node, terms: Terms) -> str:
    """Check this node, on which we are, and return the folder of its dataset (or 'phantom').

    Raises:
        RunStoppedError: the node is not fit; the sentence names it, and says what to do.
    """
    _check_folder(node, terms)
    _check_versions(node, terms)
    root = _root(node, terms)
    try:
        found = data_digest(terms.task.model_copy(update={"root": root}))
    except FedwardError as error:
        raise RunStoppedError(f"{node.label}: {error}") from error
    if found != terms.data:
        raise RunStoppedError(
            f"{node.label}: its data at {root} are not those of the driver, so its hospitals would be others; copy "
            f"the same dataset there, or name its place in runtime.ray.roots."
        )
    return root


def _check_folder(node: Node, terms: Terms) -> None:
    """Refuse a node that does not see the run's folder, cannot write there, or whose locks end at its own door."""
    file = terms.folder / TOKEN
    try:
        with file.open("r+", encoding="utf-8") as seen:
            same = seen.read() == terms.token
            try:
                fcntl.flock(seen, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = False  # the driver holds it
            except BlockingIOError:
                locked = True
        with tempfile.TemporaryFile(dir=terms.folder):
            pass
    except OSError as error:
        raise RunStoppedError(
            f"{node.label}: cannot use the run's folder {terms.folder} ({error.strerror}); ledgers and settings lie "
            f"there, so set --out to a folder that every node shares, and run Ray as the same user on each."
        ) from error
    if not same:
        raise RunStoppedError(
            f"{node.label}: has another folder at {terms.folder} than the driver; ledgers and settings lie there, so "
            f"set --out to a folder that every node shares."
        )
    if not locked:
        raise RunStoppedError(
            f"{node.label}: a file that the driver has locked in {terms.folder} is not locked here, so two workers "
            f"could charge one ledger at once; mount the folder with locks (NFS: version 4, without 'nolock' or "
            f"'local_lock')."
        )


def _check_versions(node: Node, terms: Terms) -> None:
    """Refuse other software: the last bits of a result depend on it."""
    own = versions()
    for name, version in terms.versions.items():
        if own[name] != version:
            raise RunStoppedError(
                f"{node.label}: has {name} {own[name]}, and the driver has {version}; install the same on every node."
            )


def _root(node: Node, terms: Terms) -> str:
    """Return where the dataset lies on this node: as the run says of it, as the node says itself, or as everywhere."""
    if terms.task.root == PHANTOM:
        return PHANTOM
    for name in (node.host, node.address, *node.resources):
        if name in terms.roots:
            root, where = terms.roots[name], f"runtime.ray.roots.{name}"
            break
    else:
        own = os.environ.get(VARIABLE)
        root, where = (own, f"{VARIABLE} on that node") if own else (str(terms.task.root), "task.root")
    if not Path(root).is_dir():
        raise RunStoppedError(
            f"{node.label}: no dataset at {root} ({where}); copy it there, or name its place in runtime.ray.roots, or "
            f"in {VARIABLE} when Ray is started there."
        )
    return root
