"""Views against slices and flips of numpy, one by one."""

import numpy as np
import pytest
import torch

from configs.sections import TrainingSettings
from tasks.views import Views, draw_views, view


def by_hand(picture: np.ndarray, flips: np.ndarray, start: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Pad with the border, cut, flip: the plain way, for one picture (channels, *spatial)."""
    margin = 70
    padded = np.pad(picture, [(0, 0), *[(margin, margin)] * len(size)], mode="edge")
    cut = padded[(slice(None), *(slice(margin + s, margin + s + n) for s, n in zip(start, size, strict=True)))]
    cut = np.flip(cut, axis=-1) if flips[0] else cut
    return np.flip(cut, axis=-2) if flips[1] else cut


@pytest.mark.parametrize(
    ("whole", "size", "shift"), [((9, 7), (9, 7), 0), ((9, 7), (9, 7), 4), ((6, 9, 8), (3, 5, 8), 2)]
)
def test_views_are_cuts_and_flips(whole: tuple[int, ...], size: tuple[int, ...], shift: int) -> None:
    rng = np.random.default_rng(3)
    pictures = rng.integers(0, 256, (40, 2, *whole), dtype=np.uint8)
    views = draw_views(rng, 40, TrainingSettings(flips=0.5, shift=shift), whole=whole, size=size)
    out = view(torch.from_numpy(pictures), views).numpy()
    assert out.shape == (40, 2, *size)
    for k in range(40):
        np.testing.assert_array_equal(out[k], by_hand(pictures[k], views.flips[k], views.starts[k], size))
    # A mask, which has no channels, is read from the same places.
    np.testing.assert_array_equal(view(torch.from_numpy(pictures[:, 0]), views).numpy(), out[:, 0])
    assert len(np.unique(views.flips, axis=0)) == 4
    if shift:
        assert views.starts[:, -1].min() < 0


def test_crops_are_uniform_and_within() -> None:
    views = draw_views(np.random.default_rng(0), 6000, TrainingSettings(flips=0.0), whole=(5, 8), size=(3, 8))
    assert set(views.starts[:, 0].tolist()) == {0, 1, 2}
    assert np.all(views.starts[:, 1] == 0)
    counts = np.bincount(views.starts[:, 0])
    assert np.all(np.abs(counts - 2000) < 4 * np.sqrt(6000 * 2 / 9))


def test_nothing_to_do_and_nothing_at_all() -> None:
    pictures = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
    still = Views(np.zeros((2, 2), dtype=bool), np.zeros((2, 2), dtype=np.int64), (4, 4))
    assert torch.equal(view(pictures, still), pictures)
    empty = draw_views(np.random.default_rng(0), 0, TrainingSettings(), whole=(9, 9), size=(5, 5))
    assert view(torch.zeros((0, 1, 9, 9), dtype=torch.uint8), empty).shape == (0, 1, 5, 5)
