"""What every attack costs on a recorded view: seconds and memory per view, per target, per image shown.

    python benchmarks/attacks.py [--json] [--cases imprint-64-512 ...] [--repeats 5]

How strong attacks are is told elsewhere (imprint.py, inversion.py, candidates.py, ...). A view here is one release of
64 smooth random images (16 for candidate matching, 1 for inversion) of a small ResNet-9, differentiated one by one by
plain autograd, clipped to norm 1 and noised as at epsilon 8 in one step (noise multiplier .6) where the case says so.
One BLAS and torch thread. Every case runs in a process of its own; `peak_mib` is its highest resident memory, with the
libraries (about 380 MiB) and the making of the view in it.

Rows: case, part, arm, seconds (median), least, most, repeats, and by what the part is counted: `per` and `each_ms`.
Parts: `plant` makes the broadcast from public images that were never fitted; `open` is a new attack that reads a view
(arm `fitted`: the process has kept the fit of the public images since planting; `afresh`: it has not); `reconstruct`
reads it again; `informed` scores one target's 100 candidates (together, or one by one as a twin). Where a part has two
arms they take turns: `ratio` is the median ratio of the second arm to the first, `differ` how far apart their scores
are, over 1 + their size.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from threadpoolctl import threadpool_limits

from configs.adversary import AdversarySettings
from server.adversary.base import Attack, Candidates, Observation, PublicData, PublicTerms, Trace, Update, Weights
from server.adversary.fitting import LAST
from server.adversary.registry import attack
from tasks.losses import loss
from tasks.models import ModelSpec, build, initial_weights, load_weights, normalise

Rows = list[dict[str, Any]]
PUBLIC, BATCH, CANDIDATES, NOISE = 1500, 64, 100, 0.6
INVERTED = 50  # iterations of one inversion; its cost is proportional to them


@final
@dataclass(frozen=True)
class Scene:
    """An attack before its view, and the images behind it."""

    attack: Attack
    trace: Trace
    public: PublicData
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def pictures(seed: int, count: int, side: int) -> NDArray[np.uint8]:
    """Return smooth random images around a common disc, uint8 (count, 3, side, side)."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.standard_normal((count, 3, side, side), np.float32), (0, 0, side / 16, side / 16))
    disc = np.exp(-4 * np.sum(np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j] ** 2, axis=0))
    return np.rint(255 * np.clip(0.7 - 0.4 * disc + smooth, 0, 1)).astype(np.uint8)


def release(
    spec: ModelSpec, weights: Weights, images: NDArray[np.uint8], labels: NDArray[np.int64], *, noisy: bool
) -> Update:
    """Return the sum of one-by-one gradients, clipped to norm 1 and noised where asked, float64."""
    model = build(spec)
    load_weights(model, {name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    agreed, names = loss("binary" if spec.outputs == 1 else "categorical"), [n for n, _ in model.named_parameters()]
    total = [torch.zeros_like(p, dtype=torch.float64) for p in model.parameters()]
    for image, label in zip(torch.from_numpy(images), torch.from_numpy(labels), strict=True):
        found = torch.autograd.grad(agreed(model(normalise(image[None])), label[None]).sum(), list(model.parameters()))
        norm = float(torch.sqrt(sum((one.double() ** 2).sum() for one in found)))  # pyright: ignore
        for sum_so_far, one in zip(total, found, strict=True):
            sum_so_far.add_(one.double() * (min(1.0, 1.0 / max(norm, 1e-300)) if noisy else 1.0))
    rng = np.random.default_rng(7)
    return {
        name: value.numpy() + (NOISE * rng.standard_normal(value.shape) if noisy else 0.0)
        for name, value in zip(names, total, strict=True)
    }


def scene(name: str, side: int, *, noisy: bool, batch: int = BATCH, outputs: int = 1, **settings: object) -> Scene:
    """Return an attack with its view of one release."""
    tried = attack(name, AdversarySettings.model_validate(settings))
    agreed = ModelSpec("resnet9", (3, side, side), outputs, 8)
    rng = np.random.default_rng(1)
    labels = rng.integers(0, max(2, outputs), batch)
    public = PublicData(pictures(2, PUBLIC, side), "smooth fields", rng.integers(0, max(2, outputs), PUBLIC))
    images = pictures(3, batch, side)
    start = {key: value.numpy() for key, value in initial_weights(agreed, 4).items()}
    spec, weights = tried.plant(agreed, start, public)
    sent = release(spec, weights, images, labels, noisy=noisy)
    if name == "data_traps":  # what it reads is the final model minus the first
        sent = {key: -0.1 * value for key, value in sent.items()}
    terms = PublicTerms(1.0 if noisy else None, NOISE if noisy else 0.0, 1.0, 1, float(batch), 0.0)
    return Scene(tried, Trace.of(Observation(1, "hospital", spec, weights, sent, terms)), public, images, labels)


def again(seen: Scene, name: str, **settings: object) -> Attack:
    """Return the attack as new, so that nothing it computed is left."""
    del seen
    return attack(name, AdversarySettings.model_validate(settings))


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def middle_ratio(second: list[float], first: list[float]) -> float:
    """Return the median over turns of the second arm's time over the first's."""
    return statistics.median(b / a for a, b in zip(first, second, strict=True))


def row(part: str, times: list[float], per: str, count: int, **more: object) -> dict[str, Any]:
    """Return one row of measurements."""
    middle = statistics.median(times)
    spread = {"seconds": round(middle, 5), "least": round(min(times), 5), "most": round(max(times), 5)}
    each = {"per": per, "each_ms": round(1e3 * middle / max(1, count), 4)}
    return {"part": part, **spread, "repeats": len(times), **each, **more}


def candidates(seen: Scene, target: int, side: int) -> Candidates:
    """Return one target among 99 other images."""
    others = pictures(100 + target, CANDIDATES - 1, side)
    labels = np.random.default_rng(target).integers(0, 2, CANDIDATES)
    labels[0] = seen.labels[target]
    return Candidates(np.concatenate([seen.images[target][None], others]), labels)


def informed_one_by_one(tried: Attack, seen: Scene, asked: Candidates) -> NDArray[np.float64]:
    """Return what the attack says of candidates shown to it one at a time: the twin of showing them together."""
    found = []
    for k in range(len(asked.images)):
        labels = None if asked.targets is None else asked.targets[k : k + 1]
        answer = tried.informed(seen.trace, seen.public, Candidates(asked.images[k : k + 1], labels))
        found.append(np.zeros(1) if answer is None else answer)
    return np.concatenate(found)


def informed_rows(tried: Attack, seen: Scene, side: int, repeats: int, *, twin: bool = True) -> Rows:
    """Return the cost of a target's candidates, together and (the twin) one by one, in turns."""
    sets = [candidates(seen, k % len(seen.images), side) for k in range(repeats)]
    answers = [tried.informed(seen.trace, seen.public, one) for one in sets]
    together, apart, ratios, differ = [], [], [], 0.0
    for asked, answer in zip(sets, answers, strict=True):
        together.append(seconds(lambda asked=asked: tried.informed(seen.trace, seen.public, asked)))
        if twin and answer is not None:
            start = time.perf_counter()
            alone = informed_one_by_one(tried, seen, asked)
            apart.append(time.perf_counter() - start)
            ratios.append(apart[-1] / together[-1])
            differ = max(differ, float(np.max(np.abs(alone - answer) / (1 + np.abs(answer)))))
    out = [row("informed", together, "candidate", CANDIDATES, arm="together")]
    if apart:
        more = {"arm": "one by one", "ratio": round(statistics.median(ratios), 2), "differ": differ}
        out.append(row("informed", apart, "candidate", CANDIDATES, **more))
    return out


def imprint(side: int, rows: int, noisy: bool, repeats: int) -> Rows:
    """The imprint: plant and open as if new, read again, and the matched filter."""
    settings: dict[str, object] = {"imprint": {"rows": rows}}
    seen = scene("imprint", side, noisy=noisy, **settings)
    core = {k.removeprefix("core."): v for k, v in seen.trace.last.weights.items() if k.startswith("core.")}
    spec = ModelSpec("resnet9", (3, side, side), 1, 8)
    plants, afresh, opens, reads, shown = [], [], [], [], 0
    for turn in range(repeats):
        fresh = again(seen, "imprint", **settings)
        # Other public images each time: what was fitted before cannot serve.
        other = PublicData(pictures(1000 + turn, PUBLIC, side), "smooth fields")
        plants.append(seconds(lambda fresh=fresh, other=other: fresh.plant(spec, core, other)))
        LAST.clear()
        fresh = again(seen, "imprint", **settings)
        afresh.append(seconds(lambda fresh=fresh: fresh.reconstruct(seen.trace, seen.public)))
        fresh = again(seen, "imprint", **settings)
        opens.append(seconds(lambda fresh=fresh: fresh.reconstruct(seen.trace, seen.public)))
        reads.append(seconds(lambda fresh=fresh: fresh.reconstruct(seen.trace, seen.public)))
        shown = len(fresh.reconstruct(seen.trace, seen.public).images)
    out = [
        row("plant", plants, "public image", PUBLIC),
        row("open", afresh, "row", rows, arm="afresh"),
        row("open", opens, "row", rows, arm="fitted", ratio=round(middle_ratio(opens, afresh), 3)),
        row("reconstruct", reads, "row", rows, shown=shown),
    ]
    return out + informed_rows(seen.attack, seen, side, repeats)


def images_of(name: str, side: int, noisy: bool, repeats: int, **settings: object) -> Rows:
    """An attack that plants and reads: trap weights, data traps, the mean image."""
    seen = scene(name, side, noisy=noisy, **settings)
    times, shown = [], 0
    for _ in range(repeats):
        fresh = again(seen, name, **settings)
        times.append(seconds(lambda fresh=fresh: fresh.reconstruct(seen.trace, seen.public)))
        shown = len(fresh.reconstruct(seen.trace, seen.public).images)
    return [row("reconstruct", times, "image shown" if shown else "view", shown, shown=shown)]


def inversion(side: int, repeats: int) -> Rows:
    """Gradient inversion of one image, 50 iterations."""
    seen = scene("inversion", side, noisy=False, batch=1, inversion={"iterations": INVERTED})
    times = [seconds(lambda: seen.attack.reconstruct(seen.trace, seen.public)) for _ in range(repeats)]
    return [row("reconstruct", times, "iteration", INVERTED)]


def label_counts(side: int, noisy: bool, repeats: int) -> Rows:
    """How many images of each of seven classes."""
    seen = scene("label_counts", side, noisy=noisy, outputs=7)
    times = []
    for _ in range(repeats):
        fresh = again(seen, "label_counts")
        times.append(seconds(lambda fresh=fresh: fresh.label_counts(seen.trace, seen.public)))
    return [row("label_counts", times, "image in the batch", BATCH)]


def matching(side: int, repeats: int) -> Rows:
    """Which candidate was in a noised batch, labels known."""
    seen = scene("candidate_matching", side, noisy=True, batch=16)
    opened = seconds(lambda: seen.attack.informed(seen.trace, seen.public, candidates(seen, 0, side)))
    first = [row("open", [opened], "view", 1)]
    return first + informed_rows(seen.attack, seen, side, repeats)


def membership(side: int, repeats: int) -> Rows:
    """Offline LiRA on a final model with four reference models of 20 steps: their training is `open`."""
    seen = scene("membership", side, noisy=False, membership={"shadows": 4, "steps": 20})
    trace = Trace.of(
        *(
            Observation(k, "hospital", o.spec, o.weights, o.release, o.terms)
            for k in range(1, 21)
            for o in seen.trace.observations
        )
    )
    last = Scene(seen.attack, trace, seen.public, seen.images, seen.labels)
    opened = seconds(lambda: last.attack.informed(last.trace, last.public, candidates(last, 0, side)))
    first = [row("open", [opened], "step of a reference model", 4 * 20)]
    # No twin: the variance over all candidates is in every score.
    return first + informed_rows(last.attack, last, side, repeats, twin=False)


def cases() -> Mapping[str, Callable[[int], Rows]]:
    """Return every case by name."""
    found: dict[str, Callable[[int], Rows]] = {}
    for side in (32, 64):
        for rows in (64, 512):
            for noisy in (False, True):
                name = f"imprint-{side}-{rows}{'-noise' if noisy else ''}"
                found[name] = lambda n, side=side, rows=rows, noisy=noisy: imprint(side, rows, noisy, n)
        for noisy in (False, True):
            more = f"{side}{'-noise' if noisy else ''}"
            found[f"trap_weights-{more}"] = lambda n, s=side, x=noisy: images_of("trap_weights", s, x, n)
            found[f"data_traps-{more}"] = lambda n, s=side, x=noisy: images_of("data_traps", s, x, n)
            found[f"label_counts-{more}"] = lambda n, s=side, x=noisy: label_counts(s, x, n)
        found[f"mean_image-{side}"] = lambda n, s=side: images_of("mean_image", s, False, n)
        found[f"inversion-{side}"] = lambda n, s=side: inversion(s, n)
        found[f"candidate_matching-{side}"] = lambda n, s=side: matching(s, n)
        found[f"membership-{side}"] = lambda n, s=side: membership(s, n)
    return found


def peak_mib() -> float:
    """Return the process's highest resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _serve(pipe: Connection, name: str, repeats: int) -> None:
    torch.set_num_threads(1)
    with threadpool_limits(limits=1):
        pipe.send((cases()[name](repeats), peak_mib()))


def apart(name: str, repeats: int) -> Rows:
    """Run a case in a fresh process and return its rows with that process's peak."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    worker = context.Process(target=_serve, args=(there, name, repeats))
    worker.start()
    there.close()
    try:
        rows, peak = here.recv()
    except EOFError:
        raise SystemExit(f"case {name} died; its own message stands above") from None
    worker.join()
    return [{"case": name, "arm": "", **one, "peak_mib": round(peak)} for one in rows]


def main() -> None:
    """Print one row per part of every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON rows only")
    parser.add_argument("--cases", nargs="+", choices=list(cases()), default=list(cases()), metavar="CASE")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    found: Rows = []
    for name in options.cases:
        rows = apart(name, options.repeats)
        found += rows
        for one in [] if options.json else rows:
            more = "".join(f"  {key} {one[key]:.3g}" for key in ("ratio", "differ", "shown") if key in one)
            print(
                f"{one['case']:<22} {one['part']:<13} {one['arm']:<11} {one['seconds']:9.4f} s "
                f"[{one['least']:.4f}, {one['most']:.4f}]  {one['each_ms']:9.3f} ms per {one['per']}  "
                f"peak {one['peak_mib']} MiB{more}",
                flush=True,
            )
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
