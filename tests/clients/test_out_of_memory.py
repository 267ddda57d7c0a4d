"""A hospital that ran out of memory says so in words that never change, stays charged, and goes on."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clients.site import OUT_OF_MEMORY, LocalTrainingError, ledger_file
from configs import Experiment
from privacy import Ledger
from tests.clients.test_site import LOCAL, ask, make_site

GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB for 17 drawn images of patient X")
CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: 17 images"
)


@pytest.mark.parametrize("error", [GPU, CPU, MemoryError("17 images")])
def test_out_of_memory_says_what_to_set_and_nothing_of_the_records(
    error: Exception,
    small: Callable[..., Experiment],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = make_site(small(privacy=LOCAL), tmp_path)
    emptied: list[bool] = []

    def crash(**_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("clients.site.local_update", crash)
        patch.setattr("clients.site._empty_caches", lambda: emptied.append(True))
        with pytest.raises(LocalTrainingError) as told:
            ask(site, 1)
    assert str(told.value) == OUT_OF_MEMORY
    assert "runtime.gpus_per_hospital" in OUT_OF_MEMORY
    assert told.value.__cause__ is None
    assert told.value.__context__ is None, "the error's frames would hold on to the tensors"
    assert emptied == [True]
    file = ledger_file(tmp_path, site.plan.hospital)
    assert "17" in file.with_suffix(".errors.log").read_text()
    assert [entry.round for entry in Ledger.open(file).entries] == [1]
    again = ask(site, 1)  # the same release, at no charge
    assert len(Ledger.open(file).entries) == 1
    assert again
