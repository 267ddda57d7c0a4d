"""Intervals of metrics and of differences: coverage in worlds whose truth is known, other libraries, closed forms."""

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import beta, norm, t
from sklearn.metrics import roc_auc_score

from simulation import comparing_draws
from simulation.comparing_draws import BySeed, Measured, difference_row, estimate_row, measure, weighted_mean
from simulation.comparing_scores import Score, score
from simulation.predictions import Predictions
from tasks.metrics import Classified

Array = NDArray[np.float64]
UNITS = 150


def said(scores: Array, labels: NDArray[np.int64], units: NDArray[np.int64] | None = None) -> Predictions:
    own = np.arange(len(labels)) if units is None else units
    ids = np.array([str(k) for k in range(len(labels))])
    judged = Classified(scores[:, None], labels, own)
    return Predictions(judged, labels, own, ids, np.zeros(len(labels), dtype=np.int64), ("a",), ("no", "yes"), 1)


def auroc(scores: Array, labels: NDArray[np.int64], units: NDArray[np.int64] | None = None) -> Score:
    return score(said(scores, labels, units), "auroc", np.arange(len(labels)))


def world(rng: np.random.Generator, gaps: tuple[float, float], spread: float, seeds: int) -> tuple[BySeed, BySeed]:
    """Two settings over several seeds, of images with a common part; a setting's positives lie `gap` higher, give or
    take `spread` from seed to seed: its AUROC over all seeds is Phi(gap / sqrt(2 + spread^2))."""
    labels = (np.arange(UNITS) % 3 == 0).astype(np.int64)
    images = rng.normal(size=UNITS)
    scores: dict[str, Score] = {}
    for seed in range(seeds):
        for name, gap in zip("ab", gaps, strict=True):
            own = rng.normal(size=UNITS)
            blurred = np.sqrt(0.8) * images + np.sqrt(0.2) * own + (gap + spread * rng.normal()) * labels
            scores[f"{name}{seed}"] = auroc(blurred, labels)
    found = measure(scores, UNITS)
    return {s: found[f"a{s}"] for s in range(seeds)}, {s: found[f"b{s}"] for s in range(seeds)}


def truth(gap: float, spread: float) -> float:
    return float(norm.cdf(gap / np.sqrt(2 + spread**2)))


def holds(row: Mapping[str, float | None], value: float) -> bool:
    low, high = row["low"], row["high"]
    assert low is not None
    assert high is not None
    return low <= value <= high


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 0.0), (3, 0.2), (3, 0.6), (2, 0.4), (6, 0.6)])
def test_intervals_hold_the_truth(monkeypatch: pytest.MonkeyPatch, seeds: int, spread: float) -> None:
    monkeypatch.setattr(comparing_draws, "RESAMPLES", 300)
    rng = np.random.default_rng(100 * seeds + int(10 * spread))
    worlds = [world(rng, (1.3, 1.1), spread, seeds) for _ in range(120)]
    own = np.mean([holds(estimate_row(a), truth(1.3, spread)) for a, _ in worlds])
    apart = truth(1.3, spread) - truth(1.1, spread)
    paired = np.mean([holds(difference_row(a, b), apart) for a, b in worlds])
    # Nominally .95; of 120 worlds a share below .89 has a probability of 2 in 1,000.
    assert own > 0.885, own
    assert paired > 0.885, paired


def test_drawing_three_seeds_of_three_would_promise_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing_draws, "RESAMPLES", 300)
    rng = np.random.default_rng(4)
    held: list[bool] = []
    for _ in range(120):
        found, _ = world(rng, (1.3, 1.1), 0.6, 3)
        draws = np.stack([m.draws for m in found.values()])
        chosen = rng.integers(3, size=(3, draws.shape[1]))
        low, high = np.quantile(np.take_along_axis(draws, chosen, axis=0).mean(axis=0), [0.025, 0.975])
        held.append(bool(low <= truth(1.3, 0.6) <= high))
    assert np.mean(held) < 0.88


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    rng = np.random.default_rng(8)
    a, b = world(rng, (1.3, 1.1), 0.0, 1)
    _, other = world(rng, (1.3, 1.1), 0.0, 1)
    paired, unpaired = difference_row(a, b), difference_row(a, other)
    assert paired["high"] - paired["low"] < 0.7 * (unpaired["high"] - unpaired["low"])


def test_every_resample_is_what_scikit_learn_makes_of_the_same_images() -> None:
    rng = np.random.default_rng(2)
    units = np.repeat(np.arange(40), 3)[:110]
    labels = (units % 4 == 0).astype(np.int64)
    scores = np.round(rng.normal(size=110) + labels, 1)  # many ties
    drawn: list[Array] = []

    def watch(counts: Array) -> Array:
        drawn.append(counts.copy())
        return counts.sum(axis=1)

    spy = Score(np.arange(37), watch, 110, 37, "", "", None, "")
    found = measure({"auroc": auroc(scores, labels, units), "spy": spy}, 37)
    counts = np.concatenate(drawn[:-1])  # the last is the estimate's
    assert counts.shape == (comparing_draws.RESAMPLES, 37)
    assert (counts.sum(axis=1) == 37).all()
    for k in range(25):
        rows = np.repeat(np.arange(110), counts[k].astype(int)[units])
        assert found["auroc"].draws[k] == pytest.approx(roc_auc_score(labels[rows], scores[rows]), abs=1e-12)
    assert found["auroc"].estimate == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_the_interval_of_a_difference_is_as_wide_as_delong_says() -> None:
    rng = np.random.default_rng(3)
    labels = (np.arange(400) % 3 == 0).astype(np.int64)
    common = rng.normal(size=400)
    first, second = (0.7 * common + 0.7 * rng.normal(size=400) + gap * labels for gap in (1.2, 0.9))
    found = measure({"a": auroc(first, labels), "b": auroc(second, labels)}, 400)
    row = difference_row({1: found["a"]}, {1: found["b"]})
    # DeLong, DeLong and Clarke-Pearson 1988: the variance of the difference of two dependent areas.
    wins = [(s[labels == 1][:, None] > s[labels == 0][None]).astype(np.float64) for s in (first, second)]
    apart = wins[0] - wins[1]
    by_positive, by_negative = apart.mean(axis=1), apart.mean(axis=0)
    deviation = np.sqrt(by_positive.var(ddof=1) / len(by_positive) + by_negative.var(ddof=1) / len(by_negative))
    assert row["difference"] == pytest.approx(apart.mean(), abs=1e-12)
    assert row["high"] - row["low"] == pytest.approx(2 * norm.ppf(0.975) * deviation, rel=0.08)


def test_a_rate_has_the_interval_of_a_binomial_count() -> None:
    labels = np.ones(300, dtype=np.int64)
    scores = np.where(np.arange(300) < 210, 1.0, -1.0)
    found = measure({"r": score(said(scores, labels), "recall", np.arange(300))}, 300)["r"]
    row = estimate_row({1: found})
    half = norm.ppf(0.975) * np.sqrt(0.7 * 0.3 / 300)
    assert row["estimate"] == 0.7
    assert (row["low"], row["high"]) == (pytest.approx(0.7 - half, abs=0.006), pytest.approx(0.7 + half, abs=0.006))


def measured(estimate: float, draws: Array | None = None, digest: str = "", **changes: object) -> Measured:
    drawn = np.full(comparing_draws.RESAMPLES, estimate) if draws is None else draws
    content = {"n": 90, "units": 80, "problem": "", "thin": "", "trials": None} | changes
    return Measured(estimate, drawn, digest=digest, **content)  # type: ignore[arg-type]


def test_where_seeds_alone_vary_the_interval_is_students() -> None:
    values = [0.80, 0.83, 0.87]
    row = estimate_row({k: measured(v) for k, v in enumerate(values)})
    half = t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
    assert row["high"] - row["estimate"] == pytest.approx(half, rel=0.02)
    assert row["estimate"] - row["low"] == pytest.approx(half, rel=0.02)
    assert estimate_row({k: measured(v) for k, v in enumerate(values)}, (0.0, 0.85))["high"] == 0.85


def test_a_difference_never_reaches_beyond_what_the_metric_allows() -> None:
    ours = {k: measured(v, digest="a") for k, v in enumerate([0.1, 0.9])}
    theirs = {k: measured(v, digest="b") for k, v in enumerate([0.5, 0.2])}
    row = difference_row(ours, theirs)
    assert (row["low"], row["high"]) == (-1.0, 1.0)  # Student's t with one degree of freedom reaches to +-6.99
    row = difference_row(ours, theirs, 2.0)
    assert (row["low"], row["high"]) == (-2.0, 2.0)


def test_models_that_say_the_same_differ_by_nothing() -> None:
    rng = np.random.default_rng(5)
    a, _ = world(rng, (1.3, 1.1), 0.5, 3)
    row = difference_row(a, a)
    assert row == {"difference": 0.0, "low": 0.0, "high": 0.0, "seeds": 3}
    assert type(row["difference"]) is float


def test_differences_are_taken_within_a_seed() -> None:
    a = {1: measured(0.7), 2: measured(0.9), 3: measured(0.1)}
    b = {2: measured(0.8), 1: measured(0.6)}
    row = difference_row(a, b)
    assert row["seeds"] == 2
    assert row["difference"] == pytest.approx(0.1)
    assert row["high"] - row["low"] < 1e-9  # seeds differ much, their differences do not
    assert difference_row(a, {9: measured(0.5)})["why"] == "no seed was run with both"


def test_one_seed_has_an_interval_over_images_only() -> None:
    rng = np.random.default_rng(6)
    draws = rng.normal(0.8, 0.02, comparing_draws.RESAMPLES)
    row = estimate_row({7: measured(0.8, draws)})
    assert (row["low"], row["high"]) == tuple(np.quantile(draws, [0.025, 0.975]))


def test_two_models_without_a_mistake_cannot_be_told_apart() -> None:
    perfect = {1: measured(1.0, digest="a", trials=20)}
    row = difference_row(perfect, {1: measured(1.0, digest="b", trials=20)})
    furthest = 1 - beta.ppf(0.025, 20, 1)
    assert (row["difference"], row["low"], row["high"]) == (0.0, pytest.approx(-furthest), pytest.approx(furthest))
    assert estimate_row(perfect)["low"] == pytest.approx(beta.ppf(0.025, 20, 1))
    assert difference_row(perfect, perfect)["high"] == 0.0


def test_what_cannot_be_measured_says_why() -> None:
    good = {1: measured(0.8, np.linspace(0.7, 0.9, comparing_draws.RESAMPLES), digest="g")}
    bad = {1: measured(np.nan, digest="b", problem="the training diverged")}
    for row in (estimate_row(bad), difference_row(good, bad), difference_row(bad, good), difference_row(bad, bad)):
        assert row["low"] is None
        assert row["why"] == "the training diverged"
    few = {1: measured(0.8, digest="f", thin="fewer than 10 independent units")}
    row = difference_row(few, good)
    assert (row["difference"], row["low"], row["why"]) == (0.0, None, "fewer than 10 independent units")
    holes = np.where(np.arange(comparing_draws.RESAMPLES) % 10 == 0, np.nan, 0.5)
    assert "too rare" in estimate_row({1: measured(0.5, holes)})["why"]
    assert estimate_row({1: measured(0.5)})["why"] == "every resample gives the same value"
    assert estimate_row({})["why"] == "it was not measured"


def test_the_mean_over_models_is_weighted_by_their_shares() -> None:
    rng = np.random.default_rng(7)
    draws = rng.random((2, comparing_draws.RESAMPLES))
    found = weighted_mean([(30, measured(0.9, draws[0])), (10, measured(0.5, draws[1]))])
    assert found.estimate == pytest.approx(0.8)
    np.testing.assert_allclose(found.draws, 0.75 * draws[0] + 0.25 * draws[1])
    assert weighted_mean([(0, measured(0.9)), (0, measured(0.5))]).estimate == pytest.approx(0.7)
    assert weighted_mean([(1, measured(0.9)), (1, measured(0.5, problem="none"))]).problem == "none"


def test_draws_in_pieces_are_the_draws_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 2
    one = auroc(rng.normal(size=60), labels)
    whole = measure({"x": one}, 60)["x"].draws
    monkeypatch.setattr(comparing_draws, "AT_ONCE", 60 * 7)
    np.testing.assert_array_equal(measure({"x": one}, 60)["x"].draws, whole)
