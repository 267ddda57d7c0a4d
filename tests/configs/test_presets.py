"""Every preset loads, and the paper's settings are the paper's."""

import pytest
from pydantic import ValidationError

from configs import Experiment, Study, load, preset_names
from configs.sections import TaskSettings

# Effective batch, clipping norm, views, training records, epochs' worth of whole batches: from the paper's table.
PAPER = {
    "paper/radimagenet": (3328, 5.66, 4, 12200, 64),
    "paper/ham10000": (2048, 9.0, 4, 300, 64),
    "paper/msd_liver": (1, 0.046, 1, 53000, 16),
}


def experiment_of(name: str) -> Experiment:
    loaded = load(name)
    return loaded.experiment if isinstance(loaded, Study) else loaded


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads(name: str) -> None:
    experiment = experiment_of(name)
    assert experiment.task.root in (None, "phantom")
    dataset = name.removeprefix("paper/").removeprefix("paper_").split("_")[0]
    assert dataset in ("demo", "placements", "budgets", "thousand") or experiment.task.name.startswith(dataset)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_settings(name: str) -> None:
    experiment = experiment_of(name)
    batch, clip, views, steps, width = PAPER[name]
    training = experiment.training
    assert (training.batch_size, experiment.privacy.clipping_norm, training.views) == (batch, clip, views)
    assert (training.rounds * training.local_steps, experiment.task.width) == (steps, width)
    assert (training.server_optimizer, training.learning_rate) == ("nadam", 2e-3)
    assert experiment.privacy.delta == 8e-7
    assert experiment.hospitals.count == 1
    study = load(f"{name}_dp")
    assert isinstance(study, Study)
    assert study.axes.seeds == (10, 11, 100, 101, 110)
    assert {1.0, 8.0, 20.0, 1e9, 1e12, "none"} <= set(study.axes.budgets)
    assert study.experiment.task == experiment.task


DATASETS = ("ham10000", "radimagenet", "msd_liver")
PAPERS_BUDGETS = {"none", 1.0, 8.0, 20.0, 1e3, 1e6, 1e9, 1e12}
SEVEN = {"alone", "pooled", "local", "distributed", "central", "clip_only", "noise_only"}


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("name", ["paper_{}_laptop", "paper/{}_hospitals_dp"])
def test_the_papers_figure_has_utility_and_risk_over_epsilon(dataset: str, name: str) -> None:
    study = load(name.format(dataset))
    assert isinstance(study, Study)
    experiment = study.experiment
    assert set(study.axes.budgets) == PAPERS_BUDGETS
    assert len(set(study.axes.mechanisms)) == len(study.axes.mechanisms)
    assert {"pooled", "local", "distributed"} <= set(study.axes.mechanisms) <= SEVEN
    assert len(study.axes.seeds) >= 3
    assert experiment.adversary.placement == "malicious_server"
    assert experiment.training.local_steps == 1  # or `distributed` could not be
    assert experiment.hospitals.partition == "natural" or (experiment.hospitals.count or 0) >= 3
    assert experiment.task.name == dataset
    if name.startswith("paper/"):
        assert set(study.axes.mechanisms) == SEVEN
        paper = experiment_of(f"paper/{dataset}")
        assert (experiment.task, experiment.training) == (paper.task, paper.training)
        assert experiment.privacy == paper.privacy


def test_the_phantom_grid_is_seven_mechanisms_at_eight_budgets() -> None:
    study = load("budgets_phantom")
    assert isinstance(study, Study)
    assert set(study.axes.mechanisms) == SEVEN
    assert set(study.axes.budgets) == PAPERS_BUDGETS
    assert study.experiment.phantom
    assert study.experiment.adversary.placement == "malicious_server"


def test_units_are_the_datasets_own() -> None:
    assert Experiment().unit == "image"
    assert Experiment.model_validate({"task": {"name": "msd_liver"}}).unit == "scan"
    with pytest.raises(ValidationError, match=r"privacy\.unit: 'lesion'"):
        Experiment.model_validate({"task": {"name": "radimagenet"}, "privacy": {"unit": "lesion"}})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "radimagenet", "classes": 7}, "radimagenet has 165 classes"),
        ({"name": "ham10000", "classes": 3}, "2 or 7"),
        ({"name": "msd_liver", "model": "resnet9"}, "does not fit"),
        ({"name": "ham10000", "model": "unet"}, "does not fit"),
        ({"name": "ham10000", "loss": "dice"}, r"task\.loss"),
        ({"name": "ham10000", "loss": "categorical"}, r"task\.loss.*binary"),
        ({"name": "ham10000", "classes": 7, "loss": "binary"}, r"task\.loss.*categorical"),
        ({"name": "radimagenet", "loss": "binary"}, r"task\.loss"),
        ({"name": "radimagenet", "fold": 1}, r"task\.fold"),
        ({"name": "ham10000", "depth": 20}, r"task\.depth"),
        ({"name": "ham10000", "crop": (8, 8, 8)}, r"task\.crop"),
        ({"name": "radimagenet", "slices": True}, r"task\.slices"),
    ],
)
def test_what_does_not_fit_is_named(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TaskSettings.model_validate(settings)
