"""Score an attack that counts labels: how many it got right, beside what the classes' shares alone would give."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs import derive
from server.adversary.label_counts import distinct_images
from server.adversary.nulls import noise_only
from simulation.attacking import Case, head
from simulation.scoring.exact_tests import clopper_pearson

DRAWS = 9_999  # of the test; the smallest p-value is one over one more
Floats = NDArray[np.float64]


def score_labels(case: Case) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the row of the summary, and no rows per target: counts belong to a release and to no image.

    Keys: `label_error`, the total absolute error of the counts over the number of images; `null_label_error`, that of
    the stronger null (the classes' shares among images nobody trained on, times the expected number of images; or the
    attack on noise alone); `above_null_p`, the chance that labels drawn from these shares come as close to the
    attack's counts, Monte Carlo with 9,999 draws, 1 where the attack is not better than its null. `success` is the
    share of labels counted right, the overlap of both counts over the larger total (one minus the total variation
    distance where the totals agree); its interval is exact for the rounded overlap as a binomial count.
    """
    why = _why_not(case)
    if why is not None:
        return {**head(case), **_EMPTY, "why": why}, []
    guessed = case.attack.label_counts(case.trace, case.public)
    true = np.bincount(case.targets.labels, minlength=len(guessed)).astype(np.float64)
    shares = class_shares(case, len(guessed))
    prior = shares * distinct_images(case.trace.observations)
    blind = case.attack.label_counts(noise_only(case.trace), case.public)
    null = min(prior, blind, key=lambda counts: label_error(counts, true))
    rng = np.random.default_rng(derive(case.setup.experiment.seed, "label null", case.trace.hospital, case.attack.name))
    figures = compare(guessed, null, true, shares, rng)
    counts = {"guessed_labels": guessed.round(6).tolist(), "true_labels": true.astype(int).tolist()}
    return {**head(case), **figures, **counts, "why": None}, []


def compare(guessed: Floats, null: Floats, true: Floats, shares: Floats, rng: np.random.Generator) -> dict[str, Any]:
    """Return the figures of a row.

    Args:
        guessed: (classes,), the attack's counts.
        null: (classes,), the null's.
        true: (classes,), whole numbers, at least one image.
        shares: (classes,), from which labels are drawn under the null hypothesis.
        rng: of the test.
    """
    error, null_error = label_error(guessed, true), label_error(null, true)
    right, null_right = overlap(guessed, true), overlap(null, true)
    total = int(true.sum())
    p = chance(guessed, true, shares, rng) if error < null_error else 1.0
    return {
        "label_error": error,
        "null_label_error": null_error,
        "above_null_p": p,
        "success": right,
        "success_ci": list(clopper_pearson(round(right * total), total)),
        "success_null": null_right,
        "success_p": p,
        "success_name": SUCCESS,
    }


def label_error(counts: Floats, true: Floats) -> float:
    """Return the total absolute error of counts over the number of images."""
    return float(np.abs(counts - true).sum() / true.sum())


def overlap(counts: Floats, true: Floats) -> float:
    """Return the share of labels that are in both counts, of the larger total."""
    return float(np.minimum(counts, true).sum() / max(counts.sum(), true.sum()))


def chance(guessed: Floats, true: Floats, shares: Floats, rng: np.random.Generator) -> float:
    """Return how often as many labels drawn from the shares lie as close to the guess as the true ones, (0, 1]."""
    drawn = rng.multinomial(int(true.sum()), shares, size=DRAWS)
    apart = np.abs(drawn - guessed).sum(axis=1)
    hits = np.count_nonzero(apart <= np.abs(true - guessed).sum() * (1 + 1e-9) + 1e-9)
    return float((1 + hits) / (1 + DRAWS))


def class_shares(case: Case, classes: int) -> Floats:
    """Return the classes' shares among the scorer's images plus one image of each, (classes,)."""
    counts = np.bincount(case.pools.decoys.labels, minlength=classes)[:classes] + 1.0
    return counts / counts.sum()


SUCCESS = "labels counted right"
_EMPTY: dict[str, Any] = {
    "label_error": None,
    "null_label_error": None,
    "above_null_p": None,
    "success": None,
    "success_ci": None,
    "success_null": None,
    "success_p": None,
    "success_name": SUCCESS,
}


def _why_not(case: Case) -> str | None:
    if case.trace.last.spec.dense:
        return "not applicable: this model's labels are masks"
    if len(case.targets.labels) == 0:
        return "no image was drawn in the attacked rounds"
    return None
