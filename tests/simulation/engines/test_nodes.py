"""A node that is not fit is refused, in a sentence that names it; each check is shown to be needed."""

import fcntl
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clients.site import SiteSettings
from configs import Experiment, RunStoppedError
from configs.sections import TaskSettings
from simulation.engines.nodes import TOKEN, VARIABLE, Node, Terms, admit, data_digest, offered
from simulation.engines.ray_node import settings_here
from tasks.ham10000 import images
from tasks.registry import write_phantom

NODE = Node("n1", "turing", "10.0.0.7", ("CPU", "memory", "vienna", "node:10.0.0.7"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "driver"
    write_phantom("ham10000", folder, images=80, seed=0)
    return folder


@pytest.fixture
def task(data: Path) -> TaskSettings:
    return TaskSettings(root=str(data), image_size=16, width=4)


def copy(data: Path, target: Path) -> Path:
    shutil.copytree(data, target)
    return target


def refused(terms: Terms, node: Node = NODE) -> str:
    with pytest.raises(RunStoppedError) as caught:
        admit(node, terms)
    assert str(caught.value).startswith("node turing (10.0.0.7, vienna): ")
    return str(caught.value)


def test_a_node_finds_its_data_as_the_run_says_then_as_it_says_itself_then_as_everybody(
    data: Path, task: TaskSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, own = copy(data, tmp_path / "named"), copy(data, tmp_path / "own")
    with offered(tmp_path / "run", task, {}) as terms:
        assert admit(NODE, terms) == str(data)
        monkeypatch.setenv(VARIABLE, str(own))
        assert admit(NODE, terms) == str(own)
        for key in ("turing", "10.0.0.7", "vienna"):
            assert admit(NODE, replace(terms, roots={key: str(named)})) == str(named)
        assert admit(NODE, replace(terms, roots={"berlin": "/nowhere"})) == str(own)
    assert not (tmp_path / "run" / TOKEN).exists()


def test_a_node_without_the_data_says_which_path_it_lacks_and_who_named_it(
    data: Path, task: TaskSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with offered(tmp_path / "run", task, {}) as terms:
        lacking = replace(terms, task=task.model_copy(update={"root": "/nowhere"}))
        assert "no dataset at /nowhere (task.root)" in refused(lacking)
        assert "no dataset at /far (runtime.ray.roots.vienna)" in refused(replace(terms, roots={"vienna": "/far"}))
        monkeypatch.setenv(VARIABLE, "/mine")
        assert f"no dataset at /mine ({VARIABLE} on that node)" in refused(terms)
        monkeypatch.setenv(VARIABLE, str(tmp_path))  # a folder, and no dataset in it
        assert "holds no metadata file" in refused(terms)


def test_other_data_are_refused(task: TaskSettings, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_phantom("ham10000", other, images=80, seed=1)
    with offered(tmp_path / "run", task, {"vienna": str(other)}) as terms:
        assert f"its data at {other} are not those of the driver" in refused(terms)


def test_pixels_are_compared_beside_names_and_sizes(
    data: Path, task: TaskSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before, decode = data_digest(task), images.decode
    assert before == data_digest(task.model_copy(update={"root": str(copy(data, tmp_path / "copy"))}))
    # Another decoder: the same files, and other last bits. Decoded images are kept, hence another cache.
    monkeypatch.setenv("FEDWARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(images, "decode", lambda path, size: decode(path, size) ^ 1)
    assert data_digest(task) != before


def test_a_folder_that_is_not_shared_is_refused(task: TaskSettings, tmp_path: Path) -> None:
    with offered(tmp_path / "run", task, {}) as terms:
        assert "cannot use the run's folder" in refused(replace(terms, folder=tmp_path / "elsewhere"))
        mine = tmp_path / "mine"  # the same path on another disk, with the token of an earlier run
        mine.mkdir()
        (mine / TOKEN).write_text("an earlier run's")
        assert "has another folder" in refused(replace(terms, folder=mine))


def test_a_folder_whose_locks_end_at_the_node_is_refused(task: TaskSettings, tmp_path: Path) -> None:
    with offered(tmp_path / "run", task, {}) as terms:
        assert admit(NODE, terms)
        # What a node sees whose file system keeps locks to itself: the very content, and no lock.
        unlocked = tmp_path / "unlocked"
        unlocked.mkdir()
        (unlocked / TOKEN).write_text(terms.token)
        assert "could charge one ledger at once" in refused(replace(terms, folder=unlocked))
        with (terms.folder / TOKEN).open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # and looking did not take the driver's


def test_other_software_is_refused(task: TaskSettings, tmp_path: Path) -> None:
    with offered(tmp_path / "run", task, {}) as terms:
        other = replace(terms, versions={**terms.versions, "torch": "1.0"})
        assert "has torch" in refused(other)
        assert "the driver has 1.0" in refused(other)


def test_a_phantom_needs_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/nowhere")
    task = TaskSettings(root="phantom", image_size=16, width=4, phantom_images=80)
    with offered(tmp_path / "run", task, {"vienna": "/nowhere"}) as terms:
        assert admit(NODE, terms) == "phantom"


def test_settings_of_a_node_differ_in_its_root_and_device_and_nothing_else(
    small: Callable[..., Experiment], tmp_path: Path
) -> None:
    agreed = tmp_path / ".hospitals.json"
    SiteSettings(small(task={"root": "/data"}), "the root", tmp_path / "ledger").save(agreed)
    assert settings_here(agreed, "/data", "cpu") == agreed
    files = {settings_here(agreed, root, device) for root in ("/data", "/own") for device in ("cpu", "cuda")}
    assert len(files) == 4
    mine = settings_here(agreed, "/own", "cuda")
    assert mine in files
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in files}  # no draft stays behind
    found, before = SiteSettings.read(mine), SiteSettings.read(agreed)
    assert (found.experiment.task.root, found.device) == ("/own", "cuda")
    assert found.experiment.digest() == before.experiment.digest()
    kept = replace(found, experiment=before.experiment, device=before.device)
    assert kept == before
    assert mine.stat().st_mode & 0o777 == 0o600
