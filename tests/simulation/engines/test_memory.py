"""A worker's part of a GPU, and what is said when memory runs out. No GPU is needed: torch's calls are replaced."""

import gc
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from rich.console import Console

import clients.site
from configs import Experiment, RunStoppedError
from simulation.engines import memory
from simulation.engines.answering import HospitalWorker, answer
from simulation.engines.grid import LocalGrid
from simulation.engines.inline import InlineDispatcher
from simulation.engines.memory import OUT_OF_GPU_MEMORY, OUT_OF_MEMORY, cap_gpu_memory, memory_words
from simulation.run import simulate

GIB = 2**30


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """A GPU of 40 GiB that notes what it is told."""
    told: list[tuple[str, float]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=40 * GIB))
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, device: told.append(("cap", share))
    )
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: told.append(("emptied", 0)))
    return told


@pytest.mark.parametrize("sharing", [2, 3, 4, 10])
def test_hospitals_that_share_a_gpu_and_their_contexts_fit_on_it(gpu: list[tuple[str, float]], sharing: int) -> None:
    cap = cap_gpu_memory(1 / sharing)
    assert gpu == [("cap", cap)]
    assert cap is not None
    assert sharing * (cap * 40 * GIB + memory.CONTEXT) <= 40 * GIB * (1 + 1e-12)
    assert cap > 0.8 / sharing  # and most of the share is left for the work


def test_a_small_share_is_never_capped_to_nothing(gpu: list[tuple[str, float]]) -> None:
    assert cap_gpu_memory(0.01) == pytest.approx(0.005)


@pytest.mark.parametrize("share", [0.0, 1.0, 2.0])
def test_whole_gpus_and_none_are_not_capped(gpu: list[tuple[str, float]], share: float) -> None:
    assert cap_gpu_memory(share) is None
    assert gpu == []


def test_a_worker_caps_itself_as_it_starts(gpu: list[tuple[str, float]]) -> None:
    HospitalWorker(0.5, "clients.app:app")
    assert [name for name, _ in gpu] == ["cap"]


def test_without_a_gpu_nothing_is_capped() -> None:
    assert torch.cuda.is_available() or cap_gpu_memory(0.5) is None


def test_words_are_constant_and_tell_a_gpu_from_the_machine() -> None:
    assert memory_words(torch.OutOfMemoryError("Tried to allocate 17.00 MiB for 23 images")) == OUT_OF_GPU_MEMORY
    assert memory_words(MemoryError("Unable to allocate 23 images")) == OUT_OF_MEMORY
    for size in (10**15, 3 * 10**15):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            torch.empty(size, dtype=torch.float64)  # no machine has 8 petabytes
        assert memory_words(caught.value) == OUT_OF_MEMORY
        with pytest.raises(MemoryError) as raised:
            np.empty(size)
        assert memory_words(raised.value) == OUT_OF_MEMORY
    assert memory_words(ValueError("out of memory")) is None


def test_memory_that_ran_out_below_another_error_is_found_unless_that_was_hidden() -> None:
    def fail(hidden: bool) -> None:
        try:
            raise torch.OutOfMemoryError("17 MiB")
        except torch.OutOfMemoryError as error:
            if hidden:
                raise ValueError("refused") from None
            raise ValueError("refused") from error

    with pytest.raises(ValueError, match="refused") as caught:
        fail(hidden=False)
    assert memory_words(caught.value) == OUT_OF_GPU_MEMORY
    with pytest.raises(ValueError, match="refused") as caught:
        fail(hidden=True)
    assert memory_words(caught.value) is None


def test_a_hospital_that_runs_out_of_gpu_memory_says_what_to_set_and_leaves_nothing_behind(
    gpu: list[tuple[str, float]], tmp_path: Path
) -> None:
    app = ClientApp()
    alive: list[int] = []

    class Held:
        def __init__(self) -> None:
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    @app.train()
    @app.query("introduce")
    def train(message: Message, context: Context) -> Message:
        held = [Held()]
        held.append(held)  # a circle: only the collector ends it
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 17.00 MiB")

    LocalGrid(InlineDispatcher(), 1, tmp_path)  # Flower's messages ask who the sender is
    gc.disable()
    try:
        message = Message(RecordDict(), dst_node_id=2, message_type="train")
        context = Context(run_id=1, node_id=2, node_config={"partition-id": 4}, state=RecordDict(), run_config={})
        reply = answer(app, message, context)
    finally:
        gc.enable()
    assert reply.error.reason == OUT_OF_GPU_MEMORY
    first = Message(RecordDict(), dst_node_id=2, message_type="query.introduce")
    assert answer(app, first, context).error.reason == f"hospital 5 of the deal is {OUT_OF_GPU_MEMORY}"
    assert "runtime.gpus_per_hospital" in OUT_OF_GPU_MEMORY
    assert "17" not in reply.error.reason
    assert gpu == [("emptied", 0), ("emptied", 0)]
    assert not alive


def test_the_run_names_the_hospital_that_ran_out_of_memory_and_what_to_set(
    small: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = clients.site.local_update

    def starved(**given: Any) -> Any:
        if given["plan"].hospital == "vidir_modern":
            raise torch.OutOfMemoryError(f"Tried to allocate {len(given['records'])} images")
        return train(**given)

    monkeypatch.setattr(clients.site, "local_update", starved)
    shown = StringIO()
    settings = {"training": {"rounds": 1, "quorum": 4}, "runtime": {"retries": 1}}
    with pytest.raises(RunStoppedError, match=r"vidir_modern: .*out of memory.*runtime\.gpus_per_hospital"):
        simulate(small(**settings), tmp_path / "run", console=Console(file=shown, width=400), report=False)
    lines = [line for line in shown.getvalue().splitlines() if "vidir_modern lost" in line]
    assert len(lines) == 2
    assert "runtime.gpus_per_hospital" in lines[0]
    assert lines[0].endswith("; asked again")
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    reasons = {event["reason"] for event in events if event["event"] == "lost"}
    assert len(reasons) == 1
    assert not any(character.isdigit() for character in reasons.pop())  # constant words, no sizes
