"""The imprint over many rounds: participations, noise beaten by adding up, single rounds brought together."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.adversary import ImprintSettings
from server.adversary.base import Candidates, Observation, PublicTerms, Trace
from server.adversary.evidence import crowd_evidence, evidence, features
from server.adversary.imprint import BIAS, WEIGHT, Imprint
from server.adversary.levels import Level, images_behind, level
from server.adversary.matching import Membership
from server.adversary.nulls import noise_only
from server.adversary.public_model import PublicModel, fit
from server.adversary.rounds import added_up, brought_together, same_block
from server.adversary.showing import rows_of
from simulation.scoring.assignment import pair
from tests.server.adversary import hospital

PUBLIC = hospital.public()
MODEL = fit(PUBLIC, hospital.SPEC.shape, 60)


def terms(noise: float, rate: float, batch: float) -> PublicTerms:
    return PublicTerms(1.0, noise, rate, 1, batch, 0.0)


class Run:
    """A hospital of `count` images that takes part with Poisson draws; gradients as the dominating block gives them."""

    def __init__(self, rows: int, count: int, *, seed: int) -> None:
        self.imprint = Imprint(ImprintSettings(rows=rows, components=60))
        self.spec, self.weights = self.imprint.plant(hospital.SPEC, hospital.agreed(), PUBLIC)
        self.images = hospital.images(seed, count)
        self.rng = np.random.default_rng(seed)
        z = MODEL.encode(self.images).astype(np.float64)
        inside = (z @ self.weights[WEIGHT].T.astype(np.float64) + self.weights[BIAS]) / 1e-12
        self.home = np.argmin(np.abs(inside - 0.5), axis=1)
        sign = self.rng.choice([-1.0, 1.0], count)
        size = sign / np.sqrt(1 + np.sum(z**2, axis=1))
        self.pieces = size[:, None] * np.concatenate([z, np.ones((count, 1))], axis=1)
        self.drawn: NDArray[np.bool_] = np.zeros(count, dtype=bool)

    def observe(self, rounds: int, rate: float, noise: float) -> Trace:
        seen: list[Observation] = []
        for number in range(1, rounds + 1):
            chosen = self.rng.random(len(self.images)) < rate
            self.drawn |= chosen
            total = np.zeros((self.imprint.settings.rows, self.pieces.shape[1]))
            np.add.at(total, self.home[chosen], self.pieces[chosen])
            total += noise * self.rng.standard_normal(total.shape)
            sent = {WEIGHT: total[:, :-1], BIAS: total[:, -1]}
            public = terms(noise, rate, rate * len(self.images))
            seen.append(Observation(number, "h", self.spec, self.weights, sent, public))
        return Trace.of(*seen)

    def alone(self) -> NDArray[np.bool_]:
        return np.bincount(self.home, minlength=self.imprint.settings.rows)[self.home] == 1


def amplitudes(model: PublicModel, rounds: int, rate: float, rng: np.random.Generator) -> NDArray[np.float64]:
    times = rng.binomial(rounds, rate, 200_000)
    factor = 1 / np.sqrt(1 + rng.choice(model.norms, 200_000))
    return (times * factor)[times > 0]


@pytest.mark.parametrize(("rounds", "rate"), [(1, 0.1), (10, 0.05), (50, 0.02), (50, 0.5), (300, 0.25), (7, 1.0)])
def test_the_level_is_that_of_simulated_participations(rounds: int, rate: float):
    found = amplitudes(MODEL, rounds, rate, np.random.default_rng(0))
    at = level(terms(0.1, rate, 8), MODEL, rounds)
    assert at.std == pytest.approx(0.1 * np.sqrt(rounds))
    assert at.amplitude == pytest.approx(found.mean(), rel=0.01)
    assert at.spread == pytest.approx(found.std(), rel=0.03, abs=2e-3)
    assert sum(part.chance for part in at.parts) == pytest.approx(1)
    # The mixture is like the truth everywhere, not in its first moments alone.
    grid = np.linspace(found.min(), found.max(), 40)
    cdf = np.zeros(40)
    rng = np.random.default_rng(1)
    for part in at.parts:
        cdf += part.chance * np.mean(rng.normal(part.amplitude, part.spread, 20_000)[:, None] <= grid, axis=0)
    assert np.abs(cdf - np.mean(found[:, None] <= grid, axis=0)).max() < 0.09


def test_thirteen_decibels_for_a_run_of_300_rounds_at_a_quarter():
    one, run = level(terms(0.3, 0.25, 16), MODEL), level(terms(0.3, 0.25, 16), MODEL, 300)
    assert one.amplitude is not None
    assert run.amplitude is not None
    gain = (run.amplitude / run.std) / (one.amplitude / one.std)
    assert gain == pytest.approx(0.25 * np.sqrt(300), rel=1e-3)
    assert 20 * np.log10(gain) == pytest.approx(12.7, abs=0.1)


def test_the_images_behind_a_run_are_the_whole_set_not_one_batch():
    assert images_behind(terms(1, 0.25, 16), 1) == 16
    assert images_behind(terms(1, 0.25, 16), 300) == pytest.approx(64)
    few = terms(1, 0.02, 2)
    drawn = np.random.default_rng(0).random((4_000, 10, 100)) < 0.02
    assert images_behind(few, 10) == pytest.approx(drawn.any(axis=1).sum(axis=1).mean(), rel=0.01)
    assert images_behind(terms(1, 0.0, 0), 10) == 0


def test_noise_that_hides_one_release_is_beaten_by_fifty():
    noise, rate = 0.5, 0.25
    run = Run(256, 24, seed=3)
    whole = run.observe(50, rate, noise)
    shift = 1 / (rate * np.sqrt(50))  # what fifty releases leave of the noise, by theory
    alone = run.alone()
    one = Trace.of(whole.observations[0])
    quiet = Run(256, 24, seed=3).observe(1, 1.0, noise * shift)
    candidates = Candidates(np.concatenate([run.images[alone], hospital.images(500, 400)]))
    hits = []
    for trace in (one, whole, quiet):
        scores = run.imprint.informed(trace, PUBLIC, candidates)
        assert scores is not None
        hits.append(np.mean(scores[: alone.sum()] > np.quantile(scores[alone.sum() :], 0.95)))
    assert hits[0] < 0.4
    assert hits[1] > 0.8
    assert abs(hits[1] - hits[2]) < 0.2
    guesses = run.imprint.reconstruct(whole, PUBLIC)
    assert 20 <= len(guesses.images) <= 26  # nearly all of 24 were drawn, where a release holds 6


def test_fifty_releases_show_more_of_an_image_than_one():
    run = Run(256, 24, seed=3)
    whole = run.observe(50, 0.25, 0.2)
    alone = run.images[run.alone()] / 255.0

    def error(trace: Trace) -> float:
        images = run.imprint.reconstruct(trace, PUBLIC).images
        return float(np.median([np.min(np.mean((images - truth) ** 2, axis=(1, 2, 3))) for truth in alone]))

    assert error(whole) < 0.7 * error(Trace.of(whole.observations[0]))


def test_noise_alone_passes_no_more_rows_of_a_run_than_stated():
    run = Run(128, 20, seed=1)
    for rate, noise in ((0.05, 0.05), (0.25, 0.02), (0.05, 0.005)):
        passed = 0
        for seed in range(10):
            trace = run.observe(6, rate, noise)
            trace = noise_only(Trace.of(*(replace(o, round=o.round + 10 * seed) for o in trace.observations)))
            passed += int(np.sum(run.imprint.reconstruct(trace, PUBLIC).confidence > np.log(6 * 128 / 0.01)))
        assert passed <= 1


@pytest.mark.parametrize("noise", [0.0, 1e-4])
def test_single_rounds_are_read_where_their_sum_lays_images_over_each_other(noise: float):
    run = Run(32, 60, seed=5)
    trace = run.observe(12, 0.1, noise)
    mean = (PUBLIC.images.mean(axis=0) / 255).astype(np.float32)
    drawn = run.images[run.drawn]
    guesses = run.imprint.reconstruct(trace, PUBLIC)
    apart = pair(drawn, guesses.images, mean).ssim > 0.9
    summed = run.imprint.reconstruct(Trace.of(added_up(same_block(trace))), PUBLIC)
    together = pair(drawn, summed.images, mean).ssim > 0.9
    assert apart.mean() > together.mean() + 0.3
    # An image that was drawn m times comes back once: there are no more guesses than different contents.
    assert len(guesses.images) < 1.6 * len(drawn)
    scores = run.imprint.informed(trace, PUBLIC, Candidates(drawn))
    assert scores is not None
    if noise == 0:
        assert np.mean(scores > 0.999) > 0.7


def test_rounds_that_agree_are_averaged_and_others_kept_apart():
    rng = np.random.default_rng(0)
    run = Run(8, 4, seed=0)
    first, second = 0.7 * rng.standard_normal((2, 768)) / 28
    noise = 1e-3
    contents = [first, first, -first, second, first + second]
    seen = []
    for number, content in enumerate(contents):
        weight = np.zeros((8, 768))
        weight[3] = content + noise * rng.standard_normal(768)
        bias = np.zeros(8)
        bias[3] = -0.7 if number == 2 else 1.4 if number == 4 else 0.7
        seen.append(
            Observation(number + 1, "h", run.spec, run.weights, {WEIGHT: weight, BIAS: bias}, terms(noise, 1, 1))
        )
    heard = [np.arange(8) == 3] * 5
    for clipped in (True, False):
        found = brought_together(seen, heard, noise, clipped=clipped)
        assert [one.rounds for one in found] == [1, 3]
        np.testing.assert_array_equal(found[1].row, [3])
        error = found[1].weight[0] / found[1].bias[0] - first / 0.7
        assert np.sqrt(np.mean(error**2)) == pytest.approx(noise / 0.7 / np.sqrt(3), rel=0.15)
        assert len(found[0].weight) == 2


def test_a_round_that_is_not_finite_costs_its_own_rows_only():
    run = Run(64, 10, seed=2)
    trace = run.observe(4, 1.0, 0.0)
    broken = trace.observations[1]
    weight = broken.release[WEIGHT].copy()
    weight[run.home[0]] = np.nan
    seen = list(trace.observations)
    seen[1] = replace(broken, release={WEIGHT: weight, BIAS: broken.release[BIAS]})
    guesses = run.imprint.reconstruct(Trace.of(*seen), PUBLIC)
    assert len(guesses.images) == len(run.imprint.reconstruct(trace, PUBLIC).images)
    assert np.isfinite(guesses.images).all()


def test_rounds_with_another_block_are_left_out():
    run, other = Run(64, 10, seed=2), Run(32, 10, seed=2)
    mixed = Trace.of(*run.observe(2, 1.0, 0.0).observations, replace(other.observe(1, 1.0, 0.0).last, round=9))
    assert len(same_block(mixed)) == 1
    gains = [replace(o, spec=replace(o.spec, block=replace(o.spec.block, gain=1.0 / o.round)))
             for o in run.observe(3, 1.0, 0.0).observations]  # fmt: skip
    assert len(same_block(Trace.of(*gains))) == 3


def test_a_crowd_of_one_is_one_image_and_two_are_told_from_one():
    run = Run(16, 64, seed=4)
    at = level(terms(0.05, 1.0, 64), MODEL)
    two = run.pieces[:32] + run.pieces[32:]
    base = rows_of(run.observe(1, 1.0, 0.0).last)

    def of(pieces: NDArray[np.float64]):
        noisy = pieces + 0.05 * np.random.default_rng(0).standard_normal(pieces.shape)
        return features(replace(base, weight=noisy[:, :-1], bias=noisy[:, -1]), MODEL)

    one, pairs = of(run.pieces), of(two)
    # One image: the same but for how the spread of the amplitude is told.
    np.testing.assert_allclose(crowd_evidence(one, MODEL, at, 1), evidence(one, MODEL, at), rtol=0.05, atol=1.0)
    assert np.mean(crowd_evidence(pairs, MODEL, at, 2) > evidence(pairs, MODEL, at)) > 0.9
    assert np.mean(crowd_evidence(one, MODEL, at, 2) < evidence(one, MODEL, at)) > 0.9


def test_rows_of_several_images_do_not_make_strangers_likely():
    run = Run(32, 24, seed=6)
    trace = run.observe(1, 1.0, 0.05)
    at = level(trace.last.terms, MODEL)
    knowing = Membership.of(rows_of(trace.last), MODEL, at, images=24)
    blind = replace(knowing, occupancy=(*knowing.occupancy[:2], -np.inf))
    blind = replace(blind, without=np.logaddexp(blind.occupancy[0], blind.occupancy[1] + _one(blind, at)))
    strangers = MODEL.encode(hospital.images(500, 600))
    truths = MODEL.encode(run.images[run.alone()])
    found = []
    for one in (knowing, blind):
        found.append(np.mean(one.scores(truths) > np.quantile(one.scores(strangers), 0.99)))
    assert found[0] > 0.6
    assert found[0] > found[1] + 0.2


def _one(seen: Membership, at: Level) -> NDArray[np.float64]:
    return evidence(seen.seen, MODEL, at)
