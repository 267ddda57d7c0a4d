"""Where truth and adversary are kept apart: public data, decoys, and the images that a round really used."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from clients.sampling import draws_of_round
from configs import HOSPITALS, Experiment, InputError, derive, root_of
from configs.sections import TrainingSettings
from server.adversary.base import PublicData
from simulation.setup import Setup
from tasks.base import Records
from tasks.registry import phantom
from tasks.views import Views, draw_views, view

PHANTOM_PUBLIC_SEED = 1_000_003  # never a hospital's phantom
MOST_BYTES = 2**29  # of images that nobody trained on
LEAST_PHANTOM = {"ham10000": 64, "radimagenet": 64, "msd_liver": 8}  # images or scans that a phantom has at least
LEAST_DECOYS = 19  # per target, so that a single hit has p = .05


@final
@dataclass(frozen=True)
class Pools:
    """The images that no hospital trained on, split between the adversary and the scorer.

    Attributes:
        public: what the adversary owns.
        public_units: str (p,), the unit (lesion, scan) of each public image; the scorer's, not the adversary's.
        decoys: what the scorer keeps; never shown to the adversary.
    """

    public: PublicData
    public_units: NDArray[np.str_]
    decoys: Records


@final
@dataclass(frozen=True)
class Targets:
    """The images that the releases of a trace were made from.

    Attributes:
        images: uint8 (n, channels, ...), as the network saw the first view of each.
        ids: their names.
        sites: their sites.
        hospitals: whose they are.
        labels: int64 (n,), their classes.
    """

    images: NDArray[np.uint8]
    ids: list[str]
    sites: NDArray[np.str_]
    hospitals: tuple[str, ...]
    labels: NDArray[np.int64]


def make_pools(setup: Setup) -> Pools:
    """Split the images that no attacked hospital trained on, by unit, between the adversary and the scorer.

    Real data: the records held out or cut away by `max_records`. Phantoms: other phantom images, as many as wanted;
    a phantom adversary of real data gets these, and the scorer keeps all unseen records. `other_hospitals`: the
    adversary owns what the hospitals trained on that :func:`attacked` does not name; the scorer keeps all unseen ones.
    """
    settings = setup.experiment.adversary
    unseen = _unseen(setup)
    match settings.public_data:
        case "none":
            public, rest, words = unseen.take([]), unseen, "no public data"
        case "other_hospitals":
            public, words = _of_other_hospitals(setup)
            rest = _phantom(setup.experiment, settings.public_images) if setup.experiment.phantom else unseen
        case _ if settings.public_data == "phantom" or setup.experiment.phantom:
            public, rest = _of_phantom(setup, unseen)
            words = f"{len(public)} synthetic images of the phantom, other than the hospitals'"
        case _:
            limit = min(settings.public_images, len(unseen) // 2)
            public, rest = _divide(unseen, limit, setup.experiment.seed)
            words = f"{len(public)} images of other {setup.task.unit}s of the same dataset, all sites mixed"
    images, targets = _as_trained(setup, public)
    return Pools(PublicData(images, words, targets), public.units, rest)


def attacked(setup: Setup) -> frozenset[str]:
    """Return the hospitals whose images count as targets: all, unless hospitals' own images are public.

    With `public_data: other_hospitals` it is the hospital at `adversary.seat` (the first by name), and the adversary
    owns what all others trained on. For placement `hospital` the seat is where the adversary is, so there it owns what
    the seat and its colluders trained on, and all others are attacked.
    """
    names = sorted(hospital.name for hospital in setup.deal.hospitals)
    settings = setup.experiment.adversary
    if settings.public_data != "other_hospitals":
        return frozenset(names)
    seat = settings.seat or names[0]
    if settings.placement != "hospital":
        return frozenset({seat})
    return frozenset([name for name in names if name != seat][settings.colluders :])


def attackable(setup: Setup, members: Sequence[str]) -> tuple[str, ...]:
    """Return those hospitals inside a source whose images count as targets; a source without any is not attacked.

    An image that the adversary owns is no secret: to get it back counts for nothing.
    """
    return tuple(name for name in members if name in attacked(setup))


def _unseen(setup: Setup) -> Records:
    """Return the records that no hospital trained on; of a million that `max_records` left over not all."""
    experiment = setup.experiment
    unseen = Records.joined([setup.heldout, setup.deal.leftover])
    most = max(1000, MOST_BYTES // math.prod(unseen.images.shape)) + experiment.adversary.public_images
    return _divide(unseen, most, experiment.seed)[0] if len(unseen) > most else unseen


def _of_phantom(setup: Setup, unseen: Records) -> tuple[Records, Records]:
    """Return (what is public, what the scorer keeps)."""
    experiment = setup.experiment
    wanted = experiment.adversary.public_images
    more = _phantom(experiment, wanted * (2 if experiment.phantom else 1))
    public, rest = _divide(more, wanted, experiment.seed)
    return public, rest if experiment.phantom else unseen


def _of_other_hospitals(setup: Setup) -> tuple[Records, str]:
    """Return what is public, and words for it."""
    targets = attacked(setup)
    others = [hospital for hospital in setup.deal.hospitals if hospital.name not in targets]
    if not others:
        raise InputError("adversary.public_data: there is no other hospital whose images could be public.")
    owned = Records.joined([hospital.records for hospital in others])
    public, _ = _divide(owned, setup.experiment.adversary.public_images, setup.experiment.seed)
    names = ", ".join(hospital.name for hospital in others)
    return public, f"{len(public)} images that other hospitals trained on ({names})"


def views_of(setup: Setup, records: Records, training: TrainingSettings, purpose: str) -> NDArray[np.uint8]:
    """Return one view of every record in the shape that the model is trained on, uint8 (n, *shape).

    Args:
        setup: the run.
        records: whose images.
        training: flips and shift.
        purpose: of the draws.
    """
    return view(torch.from_numpy(records.pixels()), _drawn(setup, records, training, purpose)).numpy()


def _drawn(setup: Setup, records: Records, training: TrainingSettings, purpose: str) -> Views:
    rng = np.random.default_rng(derive(setup.experiment.seed, purpose))
    return draw_views(rng, len(records), training, whole=records.images.shape[1:], size=setup.task.shape[1:])


def _as_trained(setup: Setup, records: Records) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
    """Return the images whole, or one crop of each, never flipped, and their classes or masks cut alike."""
    views = _drawn(setup, records, TrainingSettings(flips=0.0), "public crops")
    images = view(torch.from_numpy(records.pixels()), views).numpy()
    targets = torch.from_numpy(records.targets())
    return images, (targets if records.masks is None else view(targets, views)).numpy()


def _divide(records: Records, limit: int, seed: int) -> tuple[Records, Records]:
    """Return (at most `limit` records, the rest), whole units drawn at random."""
    units = records.unit_rows()
    order = np.random.default_rng(derive(seed, "public data")).permutation(len(units))
    taken: list[int] = []
    rest: list[int] = []
    for u in order:
        into = taken if len(taken) + len(units[u]) <= limit else rest
        into.extend(units[u].tolist())
    return records.take(sorted(taken)), records.take(sorted(rest))


def _phantom(experiment: Experiment, count: int) -> Records:
    most = max(LEAST_PHANTOM[experiment.task.name], count)
    settings = experiment.task.model_copy(update={"phantom_images": most})
    splits = phantom(settings, PHANTOM_PUBLIC_SEED).load()
    return Records.joined([splits.train, splits.validation, splits.test])


def targets_of(setup: Setup, released: Mapping[str, Sequence[int]]) -> Targets:
    """Return the images behind some releases, by asking the hospitals' own sampling again.

    Every image that was drawn in any step of any of the rounds, once, as it was first seen.

    Args:
        setup: the run.
        released: for each hospital the rounds in which it released; at least one hospital.
    """
    parts = [_targets_of(setup, hospital, rounds) for hospital, rounds in released.items()]
    return Targets(
        np.concatenate([part.images for part in parts]),
        [name for part in parts for name in part.ids],
        np.concatenate([part.sites for part in parts]),
        tuple(name for part in parts for name in part.hospitals),
        np.concatenate([part.labels for part in parts]),
    )


def _targets_of(setup: Setup, hospital: str, rounds: Sequence[int]) -> Targets:
    experiment = setup.experiment
    records = next(h.records for h in setup.deal.hospitals if h.name == hospital)
    units = records.unit_rows(experiment.unit)
    seen: dict[int, NDArray[np.uint8]] = {}
    root = root_of(experiment.seed, HOSPITALS)
    plan, training = setup.plans[hospital], experiment.training
    whole, size = records.images.shape[1:], setup.task.shape[1:]
    for round_number in rounds:
        for drawn in draws_of_round(root, plan, training, round_number, units, whole=whole, size=size):
            new = [i for i in range(0, len(drawn.rows), drawn.per_image) if int(drawn.rows[i]) not in seen]
            if new:  # only what was not seen yet is decoded
                index = np.array(new, dtype=np.int64)
                images = view(torch.from_numpy(records.pixels(drawn.rows[index])), drawn.views.take(index)).numpy()
                seen.update({int(drawn.rows[i]): image for i, image in zip(new, images, strict=True)})
    rows = np.array(list(seen), dtype=np.int64)
    stacked = np.stack(list(seen.values())) if seen else np.zeros((0, *setup.task.shape), dtype=np.uint8)
    names = (hospital,) * len(rows)
    return Targets(stacked, records.ids[rows].tolist(), records.sites[rows], names, records.labels[rows])


def deal_decoys(
    pool: Records, targets: Targets, *, ranked: int, most: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose which targets are ranked and which decoys each of them gets.

    Decoys come from the target's own site, disjoint per target, the same number for each; fewer targets are ranked
    where the pool would give each fewer than 19. An image of a common site is nearer to the public mean, and a hospital
    often is a site: decoys of all sites would be told from the truth without any release. They serve only where the
    pool has 19 images of none of the targets' sites.

    Args:
        pool: the scorer's images.
        targets: the attacked images.
        ranked: at most so many targets.
        most: at most so many decoys each.
        seed: of the choice.

    Returns:
        (positions of the ranked targets (t,), positions in the pool (t, m)); both empty where the pool has nothing.
    """
    rng = np.random.default_rng(seed)
    order, least = rng.permutation(len(targets.ids)), min(most, LEAST_DECOYS)
    chosen = np.sort(order[: max(1, ranked)])
    count = min(len(chosen), max(1, len(pool) // LEAST_DECOYS))
    chosen = chosen[np.sort(rng.permutation(len(chosen))[:count])] if len(chosen) else chosen
    own, sites, each = _own_sites(pool, targets, chosen, most, rng)
    if each < least and (fewer := _with_room(pool, targets, order, least)):
        chosen = np.sort(np.array(fewer[: max(1, ranked)], dtype=np.int64))
        own, sites, each = _own_sites(pool, targets, chosen, most, rng)
    elif each < least:
        everything = rng.permutation(len(pool)).tolist()
        each = min(most, len(pool) // max(1, len(chosen)))
        own, sites = {"": everything}, [""] * len(chosen)
    if each == 0 or len(chosen) == 0:
        return np.zeros(0, dtype=np.int64), np.zeros((0, 0), dtype=np.int64)
    dealt = [[own[site].pop() for _ in range(each)] for site in sites]
    return chosen.astype(np.int64), np.array(dealt, dtype=np.int64)


def _own_sites(
    pool: Records, targets: Targets, chosen: NDArray[np.int64], most: int, rng: np.random.Generator
) -> tuple[dict[str, list[int]], list[str], int]:
    """Return the pool's images of the chosen targets' sites in a drawn order, each target's site, and decoys each."""
    sites = [str(site) for site in targets.sites[chosen]]
    own = {site: rng.permutation(np.flatnonzero(pool.sites == site)).tolist() for site in sorted(set(sites))}
    return own, sites, min([most, *(len(own[site]) // sites.count(site) for site in own)], default=0)


def _with_room(pool: Records, targets: Targets, order: NDArray[np.int64], least: int) -> list[int]:
    """Return targets in this order, of every site no more than its images in the pool can serve with `least` each."""
    room = {str(site): int(np.sum(pool.sites == site)) // max(1, least) for site in np.unique(targets.sites)}
    kept: list[int] = []
    for target in order.tolist():
        site = str(targets.sites[target])
        if room[site] > 0:
            room[site] -= 1
            kept.append(target)
    return kept
