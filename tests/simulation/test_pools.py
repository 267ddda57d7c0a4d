"""Who owns which images: nobody owns a target, decoys are nobody's, and masks are cut like their images."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from configs import Experiment, InputError
from simulation.pools import Pools, Targets, attackable, attacked, deal_decoys, make_pools, targets_of
from simulation.setup import Setup, prepare
from tasks.base import Records

VOLUMES: dict[str, Any] = {
    "task": {
        "name": "msd_liver",
        "root": "phantom",
        "phantom_images": 8,
        "image_size": 16,
        "depth": 8,
        "width": 4,
        "loss": "dice_ce",
        "crop": [7, 8, 12],
    },
    "hospitals": {"partition": "iid", "count": 2},
    "training": {"rounds": 2, "batch_size": None, "views": 3},
}
ALL = ("none", "phantom", "other_hospitals", "same_distribution")

Small = Callable[..., Experiment]


def sat(small: Small, **adversary: Any) -> Setup:
    return prepare(small(adversary={"placement": "server", "attacks": ["mean_image"], **adversary}))


def images_of(records: Records) -> set[bytes]:
    return {image.tobytes() for image in records.pixels()}


def shown(pools: Pools) -> set[bytes]:
    return {image.tobytes() for image in pools.public.images}


@pytest.mark.parametrize("public_data", ALL)
def test_no_target_is_public_and_no_decoy_is_shown(small, public_data):
    setup = sat(small, public_data=public_data)
    pools = make_pools(setup)
    public, decoys = shown(pools), images_of(pools.decoys)
    assert not public & decoys
    count = len(pools.public.images)
    assert (count == 0) == (public_data == "none")
    assert len(pools.public_units) == count <= setup.experiment.adversary.public_images
    targets = set[bytes]().union(*(images_of(h.records) for h in setup.deal.hospitals if h.name in attacked(setup)))
    assert not targets & public
    assert not targets & decoys
    again = make_pools(setup)
    assert np.array_equal(again.public.images, pools.public.images)
    assert np.array_equal(again.decoys.ids, pools.decoys.ids)


@pytest.mark.parametrize("public_data", ALL)
def test_every_public_image_brings_its_class(small, public_data):
    setup = sat(small, public_data=public_data)
    pools = make_pools(setup)
    assert pools.public.targets is not None
    assert pools.public.targets.shape == (len(pools.public.images),)
    if public_data != "other_hospitals":
        return
    label = {
        image.tobytes(): int(value)
        for h in setup.deal.hospitals
        for image, value in zip(h.records.pixels(), h.records.labels, strict=True)
    }
    assert [label[image.tobytes()] for image in pools.public.images] == pools.public.targets.tolist()


def test_other_hospitals_own_what_all_but_the_seat_trained_on(small):
    names = [h.name for h in sat(small).deal.hospitals]
    for seat, target in ((None, names[0]), (names[1], names[1])):
        setup = sat(small, public_data="other_hospitals", seat=seat)
        assert attacked(setup) == {target}
        others = [h.records for h in setup.deal.hospitals if h.name != target]
        pools = make_pools(setup)
        owned = set[bytes]().union(*(images_of(records) for records in others))
        assert shown(pools) <= owned
        units = set[str]().union(*(set(records.units.tolist()) for records in others))
        assert set(pools.public_units.tolist()) <= units
        assert target not in pools.public.description
        assert attackable(setup, names) == (target,)
        assert attackable(setup, [name for name in names if name != target]) == ()
    everybody = sat(small)
    assert attackable(everybody, names[1:]) == tuple(names[1:])


def test_a_hospital_as_adversary_owns_its_colluders_images_and_attacks_the_others(small):
    settings = {"placement": "hospital", "public_data": "other_hospitals", "colluders": 1}
    hospitals = {"count": 4, "partition": "iid"}
    training = {"server_optimizer": "average"}
    adversary = {**settings, "attacks": ["mean_image"], "seat": "hospital-03"}
    setup = prepare(small(adversary=adversary, hospitals=hospitals, training=training))
    assert attacked(setup) == {"hospital-02", "hospital-04"}
    friends = {"hospital-01", "hospital-03"}
    owned = set[bytes]().union(*(images_of(h.records) for h in setup.deal.hospitals if h.name in friends))
    assert shown(make_pools(setup)) <= owned


def test_one_hospital_has_no_others(small):
    adversary = {"placement": "server", "attacks": ["mean_image"], "public_data": "other_hospitals"}
    alone = small(adversary=adversary, hospitals={"count": 1, "partition": "iid"})
    with pytest.raises(InputError, match="no other hospital"):
        make_pools(prepare(alone))


@pytest.mark.parametrize("public_data", ["none", "other_hospitals"])  # a phantom scan takes a second to make
def test_masks_are_cropped_like_their_images(public_data):
    adversary = {"placement": "server", "attacks": ["mean_image"], "public_data": public_data, "public_images": 8}
    setup = prepare(Experiment.model_validate({**VOLUMES, "adversary": adversary}))
    pools = make_pools(setup)
    images, masks = pools.public.images, pools.public.targets
    assert masks is not None
    assert images.shape[1:] == (1, 7, 8, 12)
    assert masks.shape == (len(images), 7, 8, 12)
    assert (len(images) == 0) == (public_data == "none")
    if public_data != "other_hospitals":
        return
    records = Records.joined([h.records for h in setup.deal.hospitals])
    whole, labelled, names = records.pixels(), records.targets(), records.units
    for image, mask, unit in zip(images, masks, pools.public_units, strict=True):
        (place,) = np.flatnonzero(names == unit)
        windows = np.lib.stride_tricks.sliding_window_view(whole[place, 0], (7, 8, 12))
        fits = np.argwhere(np.all(windows == image[0], axis=(-3, -2, -1)))
        cut = np.lib.stride_tricks.sliding_window_view(labelled[place], (7, 8, 12))
        assert any(np.array_equal(cut[tuple(at)], mask) for at in fits)


def test_an_empty_batch_has_no_targets_and_no_decoys(small):
    setup = sat(small)
    empty = targets_of(setup, {setup.deal.hospitals[0].name: []})
    assert empty.images.shape == (0, *setup.task.shape)
    assert empty.ids == []
    chosen, dealt = deal_decoys(make_pools(setup).decoys, empty, ranked=10, most=99, seed=0)
    assert chosen.shape == (0,)
    assert dealt.shape == (0, 0)


def pool_of(**counts: int) -> Records:
    """Records of which only the sites matter."""
    sites = np.repeat(np.array(list(counts)), list(counts.values()))
    names = np.array([f"image {i}" for i in range(len(sites))])
    rows = np.arange(len(sites), dtype=np.int64)
    blank: Any = np.zeros((len(sites), 3, 7, 7), dtype=np.uint8)
    return Records(images=blank, labels=rows * 0, units=names, sites=sites, ids=names, rows=rows)


def targets_at(**counts: int) -> Targets:
    held = pool_of(**counts)
    blank = np.zeros((len(held), 3, 7, 7), dtype=np.uint8)
    return Targets(blank, held.ids.tolist(), held.sites, ("h",) * len(held), held.labels)


@pytest.mark.parametrize("seed", range(5))
def test_decoys_are_of_the_targets_own_site_though_other_sites_have_more(seed):
    pool, targets = pool_of(a=40, b=160, c=18), targets_at(a=60, b=20, c=20)
    chosen, dealt = deal_decoys(pool, targets, ranked=100, most=999, seed=seed)
    assert np.array_equal(pool.sites[dealt], np.repeat(targets.sites[chosen][:, None], dealt.shape[1], axis=1))
    assert dealt.shape[1] >= 19
    assert len(np.unique(dealt)) == dealt.size
    assert np.sum(targets.sites[chosen] == "a") == 2  # 40 of site a serve two targets
    assert np.sum(targets.sites[chosen] == "b") == 8
    few, _ = deal_decoys(pool, targets, ranked=3, most=999, seed=seed)
    assert 1 <= len(few) <= 3


def test_all_sites_serve_where_no_site_can():
    chosen, dealt = deal_decoys(pool_of(a=18, b=18, c=60), targets_at(a=5, b=5), ranked=100, most=999, seed=0)
    assert len(chosen) == 5
    assert dealt.shape == (5, 19)
