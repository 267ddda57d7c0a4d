"""Recorded views come back bit for bit, whatever the hospital is called."""

from typing import get_args

import numpy as np
import pytest

from configs.adversary import AdversarySettings, Placement
from server.adversary.base import Observation, PublicTerms
from server.adversary.placements import PLACEMENTS, placement
from server.adversary.recording import recorded, save_observation
from server.adversary.views import load_view
from tasks.models import ModelSpec, WideBlock

SPEC = ModelSpec("resnet9", (3, 16, 16), 1, 4, WideBlock(8, 1e-12, 0.1, 0.3))


def observation(hospital: str, round_number: int = 1, value: float = 1 / 3) -> Observation:
    release = {
        "a": np.array([value, np.nan, -0.0, 1e-300]),
        "scalar": np.array(value),
        "b": np.ones((2, 3)).T,
    }
    weights = {"w": np.array([0.1, 2**-149], dtype=np.float32), "count": np.array(7, dtype=np.int64)}
    terms = PublicTerms(None, 0.1 + 0.2, 0.25, 1, 64.0, 0.0)
    return Observation(round_number, hospital, SPEC, weights, release, terms)


def test_everything_comes_back(tmp_path):
    sent = observation("rosendahl")
    path = save_observation(tmp_path / "views", sent)
    assert [p.name for p in (tmp_path / "views").iterdir()] == [path.name]
    view = load_view(tmp_path / "views", AdversarySettings(placement="malicious_server"))
    assert view.placement == "malicious_server"
    assert view.capabilities == placement("malicious_server").capabilities
    seen = view.traces[0].last
    assert (seen.round, seen.hospital, seen.spec, seen.terms) == (1, "rosendahl", SPEC, sent.terms)
    for name, value in {**sent.release, **sent.weights}.items():
        back = seen.release.get(name, seen.weights.get(name))
        assert back is not None
        assert back.dtype == value.dtype
        assert back.shape == value.shape
        assert back.tobytes() == value.tobytes()


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "a/b", "Sankt Pölten", "x" * 500, "CON", "a\nb", "\ud800"])
def test_any_hospital_name_is_a_safe_file(tmp_path, name):
    folder = tmp_path / "views"
    path = save_observation(folder, observation(name))
    assert path.parent == folder
    assert len(path.name.encode()) < 120
    assert [p.name for p in tmp_path.iterdir()] == ["views"]
    assert recorded(folder, "single")[0][0].hospital == name


def test_names_do_not_collide_and_the_order_is_round_then_hospital(tmp_path):
    for hospital, round_number in (("a-b", 2), ("A b", 1), ("a b", 1), ("a_b", 10)):
        save_observation(tmp_path, observation(hospital, round_number))
    save_observation(tmp_path, observation("a b", 1, value=9.0))
    seen = [o for o, _ in recorded(tmp_path, "single")]
    assert [(o.round, o.hospital) for o in seen] == [(1, "A b"), (1, "a b"), (2, "a-b"), (10, "a_b")]
    assert seen[1].release["a"][0] == 9.0


def test_what_is_not_an_observation_is_named(tmp_path):
    save_observation(tmp_path, observation("a"))
    (tmp_path / "single-000002.safetensors").write_bytes(b"half a file")
    with pytest.raises(ValueError, match="single-000002"):
        recorded(tmp_path, "single")
    (tmp_path / "single-000002.safetensors").rename(tmp_path / "old.partial")
    assert len(recorded(tmp_path, "single")) == 1
    assert recorded(tmp_path / "none", "single") == []


def test_placements_say_who_they_are():
    assert set(PLACEMENTS) == set(get_args(Placement)) - {"none"}
    for seat in PLACEMENTS.values():
        assert seat.description.endswith(".")
    with pytest.raises(ValueError, match="malicious_server"):
        placement("none")
