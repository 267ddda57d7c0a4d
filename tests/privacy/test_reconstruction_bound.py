"""The bound against simulated adversaries, which may come close and never pass."""

import numpy as np
import pytest

import privacy


def bound(s: float, t: int, prior: float, threat: str = "worst_case", q: float = 1.0) -> float:
    return privacy.reconstruction_bound(
        noise_multiplier=s,
        sample_rate=q,
        steps=t,
        prior=prior,
        threat=threat,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("s", [0.6, 1.0, 3.0])
@pytest.mark.parametrize("candidates", [2, 10, 100])
def test_matching_orthogonal_candidates_stays_below_and_comes_close(s: float, candidates: int) -> None:
    rng = np.random.default_rng(0)
    trials = 20_000
    scores = s * rng.standard_normal((trials, candidates))
    scores[:, 0] += 1.0  # the truth's direction, clipped to norm 1
    rate = np.mean(scores.argmax(axis=1) == 0)
    limit = bound(s, 1, 1 / candidates)
    assert rate <= limit + 3 * np.sqrt(limit * (1 - limit) / trials)
    assert rate >= 0.6 * limit


def test_two_antipodal_candidates_meet_the_bound_of_their_distance() -> None:
    """Candidates at +C and -C differ by 2C; against the record left out (0) each is at distance C."""
    rng = np.random.default_rng(1)
    s, trials = 1.0, 200_000
    rate = np.mean(1.0 + s * rng.standard_normal(trials) > 0)
    assert rate == pytest.approx(bound(s, 1, 0.5), abs=4e-3)


def test_the_relaxed_attacker_is_the_two_sided_test() -> None:
    rng = np.random.default_rng(2)
    s, prior, trials = 1.0, 0.05, 400_000
    null = np.sort(np.abs(s * rng.standard_normal(trials)))
    threshold = null[int((1 - prior) * trials)]
    power = np.mean(np.abs(1.0 + s * rng.standard_normal(trials)) > threshold)
    assert bound(s, 1, prior, "relaxed") == pytest.approx(power, abs=3e-3)
    assert bound(s, 1, prior, "relaxed") < bound(s, 1, prior)


def test_limits() -> None:
    assert bound(0.0, 1, 0.1, q=0.3) == pytest.approx(1 - 0.7 * 0.9)
    assert bound(1e-3, 1, 0.001) == pytest.approx(1.0)
    assert bound(1e3, 1, 0.001) == pytest.approx(0.001, rel=1e-2)
    assert bound(2.0, 4, 0.01) == pytest.approx(bound(1.0, 1, 0.01))  # four looks at half the signal
    for bad in ({"prior": 1.0}, {"s": -1.0}):
        with pytest.raises(ValueError, match=r"prior|noise_multiplier"):
            bound(**{"s": 1.0, "t": 1, "prior": 0.1, **bad})
