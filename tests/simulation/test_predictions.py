"""What a run's model said, kept and read again: every metric is the same, and the right model's."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from configs import Experiment, InputError
from server.checkpoints import read_arrays
from simulation.evaluation import Evaluator
from simulation.predictions import FILE, Predictions, read_predictions, write_predictions
from simulation.run import simulate
from simulation.setup import prepare
from tasks.metrics import Classified, Judged, Overlaps, Segmented

Make = Callable[..., Experiment]


def predictions(judged: Judged, labels: np.ndarray, units: np.ndarray) -> Predictions:
    share = np.arange(len(labels)) % 3 - 1
    ids = np.array([f"image-{k}" for k in range(len(labels))])
    return Predictions(judged, labels, units, ids, share, ("north", "Süd & co"), ("healthy", "ill", "rare"), 7)


def classified(outputs: int) -> Predictions:
    generator = np.random.default_rng(outputs)
    labels = np.arange(60) % max(2, outputs)
    units = np.repeat(np.arange(30), 2)
    return predictions(Classified(generator.normal(size=(60, outputs)), labels, units), labels, units)


def segmented() -> Predictions:
    generator = np.random.default_rng(5)
    true, said = generator.integers(0, 90, (24, 3)), generator.integers(0, 90, (24, 3))
    true[:8, 2] = said[:8, 2] = 0  # a class that is in no truth and no prediction of some scans
    both = np.minimum(true, said) // 2
    soft = generator.uniform(0, 50, (2, 24, 3))
    overlaps = Overlaps(
        both=both.astype(np.float64),
        said=said.astype(np.float64),
        true=true.astype(np.float64),
        soft_both=soft.min(axis=0),
        soft_said=soft.max(axis=0),
        loss=generator.random(24),
    )
    units = np.repeat(np.arange(12), 2)
    return predictions(Segmented(overlaps, ("healthy", "ill", "rare"), units), np.ones(24, dtype=np.int64), units)


@pytest.mark.parametrize("found", [classified(1), classified(3), segmented()], ids=["one logit", "three", "masks"])
def test_what_is_read_is_what_was_written(found: Predictions, tmp_path: Path) -> None:
    write_predictions(tmp_path, found)
    again = read_predictions(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [FILE]
    assert (again.hospitals, again.class_names, again.round) == (found.hospitals, found.class_names, 7)
    for name in ("labels", "units", "ids", "share"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    rows = found.rows_of("Süd & co")
    assert len(rows) == len(found.labels) // 3
    np.testing.assert_array_equal(again.rows_of("Süd & co"), rows)
    for chosen in (None, rows):
        assert again.judged.metrics(chosen) == found.judged.metrics(chosen)  # to the last bit


def test_a_file_holds_no_pickle(tmp_path: Path) -> None:
    write_predictions(tmp_path, classified(1))
    with np.load(tmp_path / FILE, allow_pickle=False) as file:
        assert {file[name].dtype.kind for name in file.files} <= set("ifU")


def test_what_is_missing_or_broken_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no predictions\.npz"):
        read_predictions(tmp_path)
    (tmp_path / FILE).write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(InputError, match="cannot be read"):
        read_predictions(tmp_path)
    write_predictions(tmp_path, classified(1))
    with np.load(tmp_path / FILE) as file:
        arrays = {name: file[name] for name in file.files if name != "share"}
    np.savez(tmp_path / FILE, **arrays)
    with pytest.raises(InputError, match="share"):
        read_predictions(tmp_path)


def test_a_judgement_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_predictions(tmp_path, replace(classified(1), judged=object()))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_an_attacked_run_keeps_what_its_last_undisturbed_model_says(small: Make, tmp_path: Path) -> None:
    experiment = small(adversary={"placement": "malicious_server"}, training={"rounds": 2})
    run = simulate(experiment, tmp_path / "run", report=False)
    found = read_predictions(run.folder)
    setup = prepare(experiment)
    assert found.round == 1
    weights = read_arrays(run.folder / "checkpoints" / "round-000001.safetensors")[0]
    last = read_arrays(run.folder / "model.safetensors")[0]
    assert found.judged.metrics() == Evaluator(setup).judge(weights).metrics()
    assert found.judged.metrics() != Evaluator(setup).judge(last).metrics()
    np.testing.assert_array_equal(found.ids, setup.heldout.ids)
    np.testing.assert_array_equal(np.asarray(found.hospitals)[found.share], setup.heldout.sites)


def test_one_that_trains_alone_is_judged_on_the_shares_of_all(small: Make, tmp_path: Path) -> None:
    federation = prepare(small()).shares
    name = min(federation)
    experiment = small(hospitals={"only": name}, privacy={"mechanism": "alone", "epsilon": "none"})
    run = simulate(experiment, tmp_path / "run", report=False)
    found = read_predictions(run.folder)
    assert found.round == 3  # nobody attacked it
    assert found.judged.metrics()["auroc"] == pytest.approx(run.summary["metrics"]["auroc"], abs=1e-12)
    assert {h: found.rows_of(h).tolist() for h in found.hospitals} == federation
    assert len(federation) == 4
