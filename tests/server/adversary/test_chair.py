"""The chair: what it sends, what it keeps, and that a restart changes neither."""

from pathlib import Path

import numpy as np
import pytest

from configs.adversary import AdversarySettings
from server.adversary.base import Addressee, PublicTerms, Trace, Weights
from server.adversary.chair import EVERY_HOSPITAL, Chair
from server.adversary.imprint import WEIGHT
from server.adversary.nulls import noise_std
from server.adversary.recording import recorded
from server.adversary.terms import terms_of_sum
from tests.server.adversary import hospital

TO = Addressee("rosendahl", 0, 2)
TERMS = PublicTerms(1.0, 0.5, 0.25, 1, 12.0, 0.0)
IMPRINT = {"placement": "malicious_server", "imprint": {"rows": 16, "components": 8}}


def chair(folder: Path, rounds: tuple[int, ...] = (1, 2, 3), **settings: object) -> Chair:
    chosen = AdversarySettings.model_validate({**IMPRINT, **settings})
    return Chair(chosen, rounds, hospital.public(count=60), folder)


def moved(by: float) -> Weights:
    return {name: np.asarray(value + np.float32(by)) for name, value in hospital.agreed().items()}


def core(weights: Weights) -> Weights:
    return {name.removeprefix("core."): value for name, value in weights.items() if name.startswith("core.")}


def test_only_attacked_rounds_are_changed_and_kept(tmp_path: Path) -> None:
    seat = chair(tmp_path, rounds=(2,))
    honest = moved(0)
    assert seat.broadcast(1, hospital.SPEC, honest, TO)[1] is honest
    seat.observe(1, "rosendahl", TERMS, {"a": np.ones(2)})
    assert recorded(tmp_path, "single") == []
    spec, weights = seat.broadcast(2, hospital.SPEC, honest, TO)
    assert spec.block is not None
    assert WEIGHT in weights
    seat.observe(2, "rosendahl", TERMS, {"a": np.ones(2)})
    assert [o.round for o, _ in recorded(tmp_path, "single")] == [2]


def test_frozen_weights_stay_those_of_the_first_attacked_round_also_after_a_restart(tmp_path: Path) -> None:
    seat = chair(tmp_path, frozen=True)
    for number in (1, 2):
        _, weights = seat.broadcast(number, hospital.SPEC, moved(number), TO)
        seat.observe(number, "rosendahl", TERMS, {"a": np.ones(2)})
        for name, value in moved(1).items():
            np.testing.assert_array_equal(core(weights)[name], value)
    again = chair(tmp_path, frozen=True)
    _, weights = again.broadcast(3, hospital.SPEC, moved(3), TO)
    for name, value in moved(1).items():
        np.testing.assert_array_equal(core(weights)[name], value)
    _, thawed = chair(tmp_path).broadcast(3, hospital.SPEC, moved(3), TO)
    assert not np.array_equal(next(iter(core(thawed).values())), next(iter(moved(1).values())))


@pytest.mark.parametrize("restart_before", [None, 2, 3])
def test_a_running_sum_counts_every_round_once(tmp_path: Path, restart_before: int | None) -> None:
    rng = np.random.default_rng(0)
    releases = {n: {"a": rng.standard_normal((2, 3))} for n in (1, 2, 3)}
    seat = chair(tmp_path, keep="sum")
    for number, release in releases.items():
        if number == restart_before:
            seat = chair(tmp_path, keep="sum")
        seat.broadcast(number, hospital.SPEC, moved(0), TO)
        seat.observe(number, "rosendahl", TERMS, release)
        seat.observe(number, "rosendahl", TERMS, release)  # the same round again, as after a kill
    ((seen, _),) = recorded(tmp_path, "single")
    assert seen.added == (1, 2, 3)
    assert Trace.of(seen).rounds == (1, 2, 3)
    np.testing.assert_allclose(seen.release["a"], sum(r["a"] for r in releases.values()), rtol=1e-15)


def test_a_sum_over_hospitals_has_the_terms_of_the_sum(tmp_path: Path) -> None:
    seat = chair(tmp_path, placement="malicious_aggregate")
    seat.broadcast(1, hospital.SPEC, moved(0), TO)
    other = PublicTerms(1.0, 1.2, 0.25, 1, 4.0, 0.0)
    seat.observe_sum(1, {"b": other, "a": TERMS}, {"a": np.ones(2)})
    ((seen, _),) = recorded(tmp_path, "sum")
    assert seen.hospital == EVERY_HOSPITAL
    assert seen.members == ("a", "b")
    assert seen.terms.noise_multiplier == pytest.approx(1.3)  # 5-12-13
    assert seen.terms.expected_batch == 16
    assert recorded(tmp_path, "single") == []


def test_sums_of_hospitals_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="no hospital"):
        terms_of_sum([])
    with pytest.raises(ValueError, match="clip or step differently"):
        terms_of_sum([TERMS, PublicTerms(2.0, 0.5, 0.25, 1, 12.0, 0.0)])


def test_the_noise_of_a_mean_weighted_by_units_is_that_of_unequal_hospitals() -> None:
    units, batch, noise, rate = np.array([2000.0, 400.0]), 40.0, np.array([0.8, 1.1]), 0.1
    terms = [PublicTerms(1.0, float(s), batch / n, 3, batch, rate) for n, s in zip(units, noise, strict=True)]
    rng = np.random.default_rng(0)
    steps = rng.standard_normal((20_000, 2, 3)) * (noise * rate / batch)[:, None]
    mean = (steps.sum(axis=2) * units).sum(axis=1) / units.sum()
    assert noise_std(terms_of_sum(terms)) == pytest.approx(float(mean.std()), rel=0.02)
    whole = terms_of_sum([PublicTerms(1.0, float(s), 0.1, 3, 0.1 * n, rate) for n, s in zip(units, noise, strict=True)])
    assert whole.noise_multiplier == pytest.approx(float(np.sqrt(np.sum(noise**2))))


def test_a_running_sum_of_changing_cohorts_has_everybody_inside_and_all_their_noise(tmp_path: Path) -> None:
    seat = chair(tmp_path, placement="malicious_aggregate", keep="sum")
    noise = {"a": 0.5, "b": 1.2, "c": 0.9}
    cohorts = (("a", "b"), ("b", "c"), ("a", "b", "c"))
    for number, cohort in enumerate(cohorts, 1):
        seat.broadcast(number, hospital.SPEC, moved(0), TO)
        terms = {name: PublicTerms(1.0, noise[name], 0.25, 1, 4.0, 0.0) for name in cohort}
        seat.observe_sum(number, terms, {"a": np.ones(2)})
    ((seen, _),) = recorded(tmp_path, "sum")
    assert seen.members == ("a", "b", "c")
    whole = np.sqrt(sum(noise[name] ** 2 for cohort in cohorts for name in cohort))
    assert noise_std(seen.terms) * np.sqrt(len(seen.added)) == pytest.approx(whole)
    assert seen.terms.expected_batch == pytest.approx(28 / 3)
