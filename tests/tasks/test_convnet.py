import pytest
import torch
from torch import nn

from clients.gradients import GradientEngine
from clients.selfcheck import check_clipped_sum, random_examples
from configs import Experiment
from configs.errors import InputError
from tasks.models import ModelSpec, build, check_per_image, initial_weights, load_weights

SPEC = ModelSpec("convnet", (3, 32, 32), 1, 16)
ODD = ModelSpec("convnet", (1, 17, 10), 5, 3)


def test_parameter_count_by_hand() -> None:
    convolutions = (3 * 16 + 16 * 32 + 32 * 64) * 9 + 16 + 32 + 64
    normalisations = 2 * (16 + 32 + 64)
    assert sum(p.numel() for p in build(SPEC).parameters()) == convolutions + normalisations + 64 * 8 * 8 + 1


def test_nothing_pools_and_every_layer_is_safe_for_per_image_gradients() -> None:
    model = build(SPEC)
    check_per_image(model)
    assert not [layer for layer in model.modules() if "Pool" in type(layer).__name__]
    strides = [layer.stride for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert strides == [(1, 1), (2, 2), (2, 2)]


@pytest.mark.parametrize("spec", [SPEC, ODD], ids=["square", "odd"])
def test_per_image_gradients_equal_one_by_one_autograd(spec: ModelSpec) -> None:
    engine = GradientEngine(build(spec), "binary" if spec.outputs == 1 else "categorical")
    engine.load(initial_weights(spec, 1))
    images, targets = random_examples(spec, 5)
    assert check_clipped_sum(engine, images, targets, clipping_norm=1.0) < 1e-5


def test_an_image_does_not_feel_its_neighbours() -> None:
    model = build(ODD).double()
    x = torch.randn(3, *ODD.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together = model(x)
    assert together.shape == (3, 5)
    torch.testing.assert_close(together, torch.cat([model(x[k : k + 1]) for k in range(3)]))


def test_the_gradient_knows_where_things_are() -> None:
    """Moved by four pixels (one place of the last layer), a spot gives another gradient of the head, not the same."""
    model = build(SPEC)
    load_weights(model, initial_weights(SPEC, 0))
    spots = torch.zeros(2, 3, 32, 32)
    spots[0, :, 8:12, 8:12] = 1.0
    spots[1, :, 8:12, 16:20] = 1.0
    features = model.get_submodule("features")(spots).reshape(2, 64, 8, 8)
    torch.testing.assert_close(features[0, :, 1:4, 1:4], features[1, :, 1:4, 3:6], atol=1e-4, rtol=1e-4)
    assert (features[0] - features[1]).norm() > 0.1 * features[0].norm()


def test_an_experiment_may_ask_for_it_and_small_images_are_refused() -> None:
    experiment = Experiment.model_validate({"task": {"model": "convnet", "root": "phantom"}})
    assert experiment.task.model == "convnet"
    with pytest.raises(InputError, match="needs sides of 4 pixels"):
        build(ModelSpec("convnet", (3, 3, 32), 1, 16))
    with pytest.raises(InputError, match="does not read images of shape"):
        build(ModelSpec("convnet", (1, 8, 16, 16), 1, 16))
