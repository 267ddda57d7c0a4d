"""The dispatcher on Ray's workers: a death costs no other hospital its answer, and broadcasts are nobody's."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from configs.sections import RuntimeSettings
from server.exchange import exchange
from simulation.engines import ray as ray_engine
from simulation.engines.grid import FIRST_NODE, LocalGrid

APP = "tests.simulation.engines.answers:app"
HOSPITALS, DEADLY = 30, 11


@pytest.fixture(scope="module", autouse=True)
def _leave_ray():
    yield
    ray_engine.disconnect()


def _round(grid: LocalGrid, number: int, deadly: list[int]) -> tuple[dict[int, Message], dict[int, str]]:
    weights = ArrayRecord({"w": Array(np.full(1000, number, dtype=np.float32))})
    messages = [
        Message(
            RecordDict({"order": ConfigRecord({"round": number, "deadly": deadly}), "weights": weights}), node, "train"
        )
        for node in grid.get_node_ids()
    ]
    lost: dict[int, str] = {}
    replies = list(
        exchange(grid, messages, retries=0, timeout=120, lost=lambda node, why, again: lost.update({node: why}))
    )
    answered = {int(reply.content["reply"]["hospital"]): reply for reply in replies}
    assert len(answered) == len(replies)
    return answered, lost


def test_a_hospital_that_kills_its_worker_costs_no_other_its_answer(tmp_path: Path) -> None:
    dispatcher = ray_engine.RayDispatcher(RuntimeSettings(workers=2), HOSPITALS, APP)
    grid = LocalGrid(dispatcher, HOSPITALS, tmp_path)
    try:
        everyone = set(range(HOSPITALS))
        for number, deadly in enumerate([[], [DEADLY], []], start=1):
            answered, lost = _round(grid, number, deadly)
            assert set(answered) == everyone - set(deadly)
            assert set(lost) == {FIRST_NODE + hospital for hospital in deadly}
            assert all("worker died" in why for why in lost.values())
            for hospital, reply in answered.items():
                np.testing.assert_array_equal(
                    reply.content["release"]["w"].numpy(), np.full(1000, number + hospital, dtype=np.float64)
                )
        ran = {h: (tmp_path / f"{h}.log").read_text().split() for h in everyone}
        assert all(set(ran[h]) == {"1", "2", "3"} for h in everyone)
        assert max(ran[h].count("2") for h in everyone) <= 2  # once among others, any of which it could have been
        assert all(ran[h].count(n) == 1 for h in everyone for n in "13")
        assert len(dispatcher.processes()) == len(set(dispatcher.processes())) == 2
    finally:
        dispatcher.close()
