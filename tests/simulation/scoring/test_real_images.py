"""Scoring on real HAM10000 images: what knowing nothing reaches there."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from simulation.scoring.all_pairs import all_pairs_ssim
from simulation.scoring.identification import Decoys
from simulation.scoring.public_distance import public_distance
from simulation.scoring.score import score_reconstruction
from tests.server.adversary.test_real_images import pytestmark as needs_data
from tests.server.adversary.test_real_images import read

pytestmark = needs_data

PUBLIC, TARGETS, DECOYS = 500, 100, 500
Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def split() -> Split:
    """Public images with their lesions, targets, decoys; whole lesions in a drawn order, so no lesion is in two."""
    images, lesions = read(PUBLIC + TARGETS + DECOYS + 20)
    parts = np.split(np.arange(len(images)), [PUBLIC, PUBLIC + TARGETS])
    first, second = lesions[parts[0]], lesions[parts[1]]
    targets = parts[1][~np.isin(second, first)]
    decoys = parts[2][~np.isin(lesions[parts[2]], np.concatenate([first, second]))]
    return images[parts[0]], first, images[targets], images[decoys[:DECOYS]]


def test_all_pairs_of_real_images_are_scikit_images(split):
    public, _, targets, _ = split
    found = all_pairs_ssim(targets[:6], public[:6])
    exact = [
        [structural_similarity(a / 255, b / 255, data_range=1, channel_axis=0) for b in public[:6]] for a in targets[:6]
    ]
    assert np.abs(found - exact).max() < 1e-4


def test_the_mean_image_is_a_likeness_to_others_and_nothing_here(split):
    public, _, targets, decoys = split
    mean = (public / 255).mean(axis=0).astype(np.float32)
    each = len(decoys) // len(targets)
    result = score_reconstruction(
        truths=targets,
        guesses=mean[None],
        noise_guesses=np.zeros((0, 3, 64, 64), dtype=np.float32),
        mean_image=mean,
        ranked=np.arange(len(targets)),
        decoys=Decoys(decoys, np.arange(len(targets) * each).reshape(len(targets), each)),
    )
    assert result.null_ssim_mean is not None
    assert result.visible.null_rate is not None
    assert result.visible.threshold is not None
    assert 0.5 < result.null_ssim_mean < 0.66
    assert 0.7 < result.visible.threshold < 0.85
    assert result.visible.null_rate <= 0.15  # .05 by design, of some 100 images
    assert (result.visible.rate, result.visible.p) == (result.visible.null_rate, 1)
    assert not result.above_null
    assert result.rank1_p > 0.001
    assert (result.paper.recovered or 0) > 0.3
    assert result.paper.recovered == result.paper.null_recovered


def test_other_lesions_are_at_one_and_negatives_are_far(split):
    public, lesions, targets, _ = split
    near = public_distance(targets, public, lesions)
    far = public_distance(255 - targets, public, lesions)
    assert near is not None
    assert far is not None
    assert 0.85 < near < 1.15
    assert far > 1.5
