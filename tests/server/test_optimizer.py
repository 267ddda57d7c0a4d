"""The server's optimiser against torch on named tensors, and its state through a checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import torch

from configs import InputError
from configs.sections import TrainingSettings
from server.checkpoints import Checkpoints, read_arrays
from server.optimizer import ServerOptimizer


def settings(**values: object) -> TrainingSettings:
    return TrainingSettings.model_validate(values)


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("nadam", torch.optim.NAdam)])
def test_steps_are_those_of_torch_on_separate_tensors(name: str, kind: type) -> None:
    rng = np.random.default_rng(1)
    start = rng.standard_normal(10)
    ours = ServerOptimizer(settings(server_optimizer=name, learning_rate=0.01), start)
    parts = [torch.nn.Parameter(torch.from_numpy(p.copy())) for p in (start[:4], start[4:])]
    theirs = kind(parts, lr=0.01)
    for _ in range(5):
        gradient = rng.standard_normal(10)
        ours.step(gradient)
        for part, own in zip(parts, (gradient[:4], gradient[4:]), strict=True):
            part.grad = torch.from_numpy(own.copy())
        theirs.step()
    expected = torch.cat([p.detach() for p in parts]).numpy()
    assert np.allclose(ours.weights, expected, rtol=1e-12, atol=0)


def test_average_at_one_adds_the_mean_difference() -> None:
    ours = ServerOptimizer(settings(local_steps=3, server_optimizer="average"), np.array([1.0, 2.0]))
    ours.step(np.array([0.5, -1.0]))
    assert ours.weights.tolist() == [1.5, 1.0]


@pytest.mark.parametrize("name", ["average", "adam", "nadam"])
def test_a_restored_optimiser_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    gradients = rng.standard_normal((6, 8))
    straight = ServerOptimizer(settings(server_optimizer=name), np.zeros(8))
    first = ServerOptimizer(settings(server_optimizer=name), np.zeros(8))
    for gradient in gradients[:3]:
        straight.step(gradient)
        first.step(gradient)
    Checkpoints(tmp_path, "abc").save(3, first.state())
    kept = Checkpoints(tmp_path, "abc").load()
    assert kept is not None
    assert kept[0] == 3
    second = ServerOptimizer(settings(server_optimizer=name), np.zeros(8))
    second.restore(kept[1])
    for gradient in gradients[3:]:
        straight.step(gradient)
        second.step(gradient)
    assert straight.weights.tobytes() == second.weights.tobytes()


def test_a_checkpoint_of_another_experiment_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    Checkpoints(tmp_path, "abc").save(1, {"weights": np.zeros(3)})
    with pytest.raises(InputError, match="another experiment"):
        Checkpoints(tmp_path, "other").load()
    path = Checkpoints(tmp_path, "abc").latest
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match="safetensors"):
        read_arrays(path)


def test_the_running_average_is_the_weighted_mean_of_the_iterates(tmp_path: Path) -> None:
    from server.averaging import RunningAverage

    iterates = np.random.default_rng(3).standard_normal((5, 4))
    average = RunningAverage(0.9, 4)
    for w in iterates:
        average.add(w)
    weights = 0.9 ** np.arange(4, -1, -1)
    assert np.allclose(average.value(), weights @ iterates / weights.sum(), rtol=1e-12)
    Checkpoints(tmp_path, "a").save(5, average.state())
    kept = Checkpoints(tmp_path, "a").load()
    assert kept is not None
    again = RunningAverage(0.9, 4)
    again.restore(kept[1])
    assert again.value().tobytes() == average.value().tobytes()
    latest = RunningAverage(0.0, 4)
    latest.add(iterates[0])
    latest.add(iterates[1])
    assert np.array_equal(latest.value(), iterates[1])
