"""A hospital's alarm: does the model that was broadcast put an image's gradient where honest models do not?

An attack that copies images out of an update needs a layer that takes most of an image's gradient (under clipping),
or one whose gradient dwarfs the rest (without). Both show on any image that fires the layer, also on images that are
nobody's. So the hospital looks at the broadcast before it charges anything, on probes of its own.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from torch import Tensor

from clients.alarm_probes import Probes
from clients.gradients import GradientEngine
from tasks.models import ModelSpec, initial_weights

FRESH_MODELS = 4
MARGIN = 0.4  # of an image's gradient energy: how far a layer's share may rise over the usual
FACTOR = 10.0  # how far the median norm may rise over the usual
CREEP_FACTOR = 100.0  # the same over freshly initialised models


@final
@dataclass(frozen=True)
class Reading:
    """What a broadcast does to some images.

    Attributes:
        shares: by layer, the largest share of one image's gradient energy (squared norm) that it takes, in [0, 1].
        means: by layer, the mean share over the images.
        norm: median over the images of the gradient's norm; infinite where a gradient is not finite.
    """

    shares: Mapping[str, float]
    means: Mapping[str, float]
    norm: float

    def to_json(self) -> dict[str, Any]:
        """Return what the log holds; JSON has no infinity."""
        return {
            "shares": dict(self.shares),
            "means": dict(self.means),
            "norm": self.norm if math.isfinite(self.norm) else None,
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Reading":
        """Read what `to_json` made."""
        norm = math.inf if content["norm"] is None else float(content["norm"])
        return Reading(content["shares"], content["means"], norm)


def read(engine: GradientEngine, weights: Mapping[str, Tensor], probes: Probes) -> Reading:
    """Return a broadcast's reading on some images, one by one, without clipping.

    Layers carry the names of the agreed model, whether a block beside it wraps them (`core.`) or not. An image without
    any gradient has no shares. Without images the reading is empty, with norm 0.
    """
    engine.load(dict(weights))
    shares: list[dict[str, float]] = []
    norms: list[float] = []
    for i in range(len(probes)):
        gradient = engine.plain_sum(probes.images[i : i + 1], probes.targets[i : i + 1])
        energy: dict[str, float] = {}
        for name, part in engine.by_name(gradient).items():
            layer = name.removeprefix("core.").rpartition(".")[0]
            energy[layer] = energy.get(layer, 0.0) + float(part.square().sum())
        total = sum(energy.values())
        norms.append(math.sqrt(total) if math.isfinite(total) else math.inf)
        if 0 < total < math.inf:
            shares.append({layer: value / total for layer, value in energy.items()})
    layers = list(shares[0]) if shares else []
    return Reading(
        {layer: max(one[layer] for one in shares) for layer in layers},
        {layer: sum(one[layer] for one in shares) / len(shares) for layer in layers},
        sorted(norms)[len(norms) // 2] if norms else 0.0,
    )


def fresh_readings(agreed: ModelSpec, engine: GradientEngine, probes: Probes) -> list[Reading]:
    """Return what freshly initialised models of the agreed architecture read: honest by construction."""
    return [read(engine, initial_weights(agreed, seed), probes) for seed in range(FRESH_MODELS)]


def alarms(now: Reading, fresh: Sequence[Reading], earlier: Sequence[Reading]) -> tuple[str, ...]:
    """Return what is unusual about a reading, in words; empty where nothing is.

    Usual is the highest of the freshly initialised models and of the earlier rounds that raised no alarm, layer by
    layer. A layer that the agreed model lacks has a usual share of 0 whatever earlier rounds had, so it cannot creep
    up; layers of the agreed model may, since training moves their shares as well. The norm is bounded by the fresh
    models alone, too.

    Args:
        now: of the broadcast.
        fresh: of freshly initialised models; at least one.
        earlier: of earlier rounds without an alarm.
    """
    usual = [*fresh, *earlier]
    found: list[str] = []
    if not math.isfinite(now.norm):
        found.append("its gradient is not finite")
    elif now.norm > FACTOR * max(r.norm for r in usual) or now.norm > CREEP_FACTOR * max(r.norm for r in fresh):
        found.append("its gradient is unusually large")
    known = fresh[0].shares
    before = {layer: max(r.shares.get(layer, 0.0) for r in usual) if layer in known else 0.0 for layer in now.shares}
    if any(share > MARGIN + before[layer] for layer, share in now.shares.items()):
        found.append("one layer takes an unusual share of the gradient")
    return tuple(found)


@final
class AlarmLog:
    """A hospital's own file of readings, one JSON line each; it never leaves the hospital.

    Kinds of lines: `fresh` (once), `broadcast` (on probes, with its alarms), `own` (on the drawn batch).
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def lines(self, kind: str) -> Iterator[dict[str, Any]]:
        """Yield the lines of one kind; a last line that was cut off is not there yet."""
        if not self.file.is_file():
            return
        for text in self.file.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if line["kind"] == kind:
                yield line

    def add(self, kind: str, **content: Any) -> None:
        """Append one line."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as log:
            log.write(json.dumps({"kind": kind, **content}, allow_nan=False) + "\n")


@final
class Alarm:
    """Looks at every broadcast before anything is charged, and remembers what it saw.

    Guarantee: what it decides is a function of the broadcasts so far and of the probes, never of the hospital's
    records: a refusal tells the server nothing about patients, and costs no budget. What it reads on the drawn batch
    (`log_own`) is written into the hospital's own log and decides nothing.
    Assumes: probes whose seed the server does not know. A block that fires on no probe is not seen, nor is one that
    keeps to a small share: measured on HAM10000 with clipping and no noise, an imprint at 1 % of the energy raised
    no alarm and copied as many images as a dominant one (`benchmarks/alarm.py`). Noise protects; the alarm makes the
    loudest attacks visible, and `hospitals.vetting` refuses every block.
    Edge cases: the same broadcast of a round is read once; a broadcast whose gradients are not finite is an alarm.
    """

    def __init__(self, agreed: ModelSpec, engine: Callable[[ModelSpec], GradientEngine], probes: Probes, log: AlarmLog):
        self._agreed = agreed
        self._engine = engine
        self._probes = probes
        self._log = log

    def check(
        self, round_number: int, broadcast: str, spec: ModelSpec, weights: Mapping[str, Tensor]
    ) -> tuple[str, ...]:
        """Return what is unusual about a broadcast, in words without numbers; empty where nothing is.

        Args:
            round_number: from 1.
            broadcast: its sha256.
            spec: the architecture that was sent.
            weights: that were sent; they fit it.
        """
        seen = list(self._log.lines("broadcast"))
        for line in seen:
            if line["round"] == round_number and line["sha256"] == broadcast:
                return tuple(line["alarms"])
        earlier = [
            Reading.from_json(line["reading"]) for line in seen if line["round"] < round_number and not line["alarms"]
        ]
        now = read(self._engine(spec), weights, self._probes)
        found = alarms(now, self._fresh(), earlier)
        self._log.add("broadcast", round=round_number, sha256=broadcast, alarms=found, reading=now.to_json())
        return found

    def log_own(self, round_number: int, spec: ModelSpec, weights: Mapping[str, Tensor], drawn: Probes) -> None:
        """Write the same statistics of some of the drawn images into the log; nothing depends on them."""
        own = read(self._engine(spec), weights, drawn)
        self._log.add("own", round=round_number, reading=own.to_json())

    def _fresh(self) -> list[Reading]:
        kept = next(self._log.lines("fresh"), None)
        if kept is not None:
            return [Reading.from_json(one) for one in kept["readings"]]
        found = fresh_readings(self._agreed, self._engine(self._agreed), self._probes)
        self._log.add("fresh", readings=[one.to_json() for one in found])
        return found
