"""What all tests share: a small federation, and caches that live for one session."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from configs import Experiment

SMALL: dict[str, dict[str, Any]] = {
    "task": {"root": "phantom", "image_size": 16, "width": 4, "phantom_images": 240},
    "training": {"rounds": 3, "batch_size": 48, "learning_rate": 5e-3, "evaluate_every": 1},
    "adversary": {"public_images": 100, "imprint": {"rows": 32, "components": 20}},
}


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("FEDWARD_CACHE")
    os.environ["FEDWARD_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["FEDWARD_CACHE"]
    else:
        os.environ["FEDWARD_CACHE"] = before


@pytest.fixture(scope="session")
def small() -> Callable[..., Experiment]:
    """Make a small phantom experiment: sections as keywords."""

    def make(**sections: dict[str, Any]) -> Experiment:
        content = {name: {**SMALL.get(name, {}), **sections.get(name, {})} for name in {*SMALL, *sections}}
        return Experiment.model_validate(content)

    return make


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data, or a skip that says how to get one."""
    folder = os.environ.get("FEDWARD_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("FEDWARD_DATA does not name a folder of real data")
    return Path(folder)
