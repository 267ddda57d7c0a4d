"""What travels as JSON: it survives the journey, and nonsense from the other side is refused."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.models import ModelSpec, WideBlock

SPEC = ModelSpec("resnet9", (3, 16, 16), outputs=1, width=4)
BLOCK = WideBlock(rows=5, ceiling=0.5, gain=2.0, scale=0.1)
SPECS = [
    ModelSpec("resnet9", (3, 16, 16), 7, 4),
    ModelSpec("wide_resnet", (1, 32, 32), 165, 16),
    ModelSpec("scattering", (3, 32, 32), 1, 16),
    ModelSpec("unet", (1, 64, 64), 3, 8),
    ModelSpec("unet", (1, 50, 128, 128), 3, 16),
]


@pytest.mark.parametrize("block", [None, BLOCK, WideBlock(rows=2, ceiling=None, gain=1.0, scale=1.0)])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_a_specification_survives_json(spec: ModelSpec, block: WideBlock | None) -> None:
    spec = replace(spec, block=block)
    again = ModelSpec.from_json(spec.to_json())
    assert again == spec
    assert again.digest() == spec.digest() != SPEC.digest()
    assert again.dense == (spec.kind == "unet")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"kind": "resnet9"}', SPEC.to_json().replace("resnet9", "pickle")]
)
def test_what_is_no_specification_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a model specification"):
        ModelSpec.from_json(text)


NONSENSE: list[dict[str, Any]] = [
    {"kind": ["resnet9"]},
    {"kind": None},
    {"width": 0},
    {"width": -4},
    {"width": 16.5},
    {"width": "16"},
    {"width": True},
    {"width": 10**6},
    {"kind": "unet", "width": 512},
    {"kind": "wide_resnet", "width": 512},
    {"outputs": 0},
    {"outputs": 10**9},
    {"outputs": None},
    {"shape": [3, 16]},
    {"shape": [3, 16, 16, 16]},
    {"shape": [3, 16, 16, 16, 16], "kind": "unet"},
    {"shape": [3, 16.7, 16]},
    {"shape": "316"},
    {"shape": 3},
    {"shape": []},
    {"shape": [3, 0, 16]},
    {"shape": [3, 4, 16]},
    {"shape": [3, 15, 16], "kind": "scattering"},
    {"shape": [3, 10**6, 10**6]},
    {"shape": [1000, 16, 16]},
    {"block": {"rows": 2}},
    {"block": {"rows": 2, "ceiling": None, "gain": 1.0, "scale": 1.0, "code": "import os"}},
    {"block": {"rows": 0, "ceiling": None, "gain": 1.0, "scale": 1.0}},
    {"block": {"rows": 10**7, "ceiling": None, "gain": 1.0, "scale": 1.0}},
    {"block": {"rows": 65_536, "ceiling": None, "gain": 1.0, "scale": 1.0}, "shape": [3, 224, 224]},
    {"block": {"rows": 2, "ceiling": -1.0, "gain": 1.0, "scale": 1.0}},
    {"block": {"rows": 2, "ceiling": None, "gain": float("nan"), "scale": 1.0}},
    {"block": {"rows": 2, "ceiling": None, "gain": 1.0, "scale": float("inf")}},
    {"block": {"rows": 2, "ceiling": None, "gain": "1", "scale": 1.0}},
    {"extra": 1},
]


@pytest.mark.parametrize("changes", NONSENSE, ids=str)
def test_nonsense_is_refused(changes: dict[str, Any]) -> None:
    text = json.dumps({**json.loads(SPEC.to_json()), **changes})
    with pytest.raises(ValueError, match="not a model specification"):
        ModelSpec.from_json(text)


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers(), max_size=5)
)


@given(key=st.sampled_from(["kind", "shape", "outputs", "width", "block"]), value=ANYTHING)
def test_anything_at_all_is_refused_or_can_be_built(key: str, value: object) -> None:
    text = json.dumps({**json.loads(SPEC.to_json()), key: value})
    try:
        spec = ModelSpec.from_json(text)
    except ValueError:
        return
    assert spec.problem() is None
    assert ModelSpec.from_json(spec.to_json()) == spec
