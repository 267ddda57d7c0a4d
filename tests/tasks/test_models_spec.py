"""What travels as JSON: it survives the journey, and nonsense from the other side is refused."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.models import ModelSpec, WideBlock, build

SPEC = ModelSpec("resnet9", (3, 16, 16), outputs=1, width=4)
BLOCK = WideBlock(rows=5, ceiling=0.5, gain=2.0, scale=0.1)
SPECS = [
    ModelSpec("resnet9", (3, 16, 16), 7, 4),
    ModelSpec("wide_resnet", (1, 32, 32), 165, 16),
    ModelSpec("scattering", (3, 32, 32), 1, 16),
    ModelSpec("unet", (1, 64, 64), 3, 8),
    ModelSpec("unet", (1, 50, 128, 128), 3, 16),
    ModelSpec("histograms", (3, 32, 32), 1, 16),
]


IN_FRONT = WideBlock(rows=2, ceiling=None, gain=1.0, scale=1.0, wiring="image")


@pytest.mark.parametrize("block", [None, BLOCK, WideBlock(rows=2, ceiling=None, gain=1.0, scale=1.0), IN_FRONT])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_a_specification_survives_json(spec: ModelSpec, block: WideBlock | None) -> None:
    spec = replace(spec, block=block)
    again = ModelSpec.from_json(spec.to_json())
    assert again == spec
    assert again.digest() == spec.digest() != SPEC.digest()
    assert again.dense == (spec.kind == "unet")


def test_a_block_without_a_wiring_is_wired_to_the_logits() -> None:
    content = json.loads(replace(SPEC, block=BLOCK).to_json())
    del content["block"]["wiring"]  # as written before there was a choice
    assert ModelSpec.from_json(json.dumps(content)) == replace(SPEC, block=BLOCK)


IN_FRONT_OF = [SPEC, SPECS[1], replace(SPECS[3], shape=(1, 16, 16)), SPECS[-1]]


@pytest.mark.parametrize("spec", IN_FRONT_OF, ids=lambda spec: spec.kind)
def test_a_block_in_front_shifts_the_image_by_one_amount(spec: ModelSpec) -> None:
    wired = build(replace(spec, block=replace(IN_FRONT, gain=0.3)))
    core = build(spec)
    weights = {name: value for name, value in wired.state_dict().items() if name.startswith("core.")}
    core.load_state_dict({name.removeprefix("core."): value for name, value in weights.items()})
    images = torch.randn(2, *spec.shape, generator=torch.Generator().manual_seed(0))
    named = wired.state_dict()
    units, offsets = named["wide.units.weight"], named["wide.units.bias"]
    with torch.no_grad():
        sums = torch.relu(images.flatten(1) @ units.T + offsets).sum(dim=1)  # scale 1, centre 0
        assert float(sums.max()) > 0
        shifted = images + 0.3 * sums.reshape(-1, *[1] * (images.dim() - 1))
        torch.testing.assert_close(wired(images), core(shifted))
        assert not torch.equal(wired(images), core(images))


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
    {"shape": [1, 16, 16], "kind": "histograms"},
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
    {"block": {"rows": 2, "ceiling": None, "gain": 1.0, "scale": 1.0, "wiring": "loss"}},
    {"block": {"rows": 2, "ceiling": None, "gain": 1.0, "scale": 1.0, "wiring": ["image"]}},
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
