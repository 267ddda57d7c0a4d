"""Public terms of what is added up: several hospitals in one round, or several rounds of one source."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from server.adversary.base import PublicTerms


def terms_of_sum(terms: Sequence[PublicTerms]) -> PublicTerms:
    """Return the terms of a sum over hospitals.

    FedSGD adds gradient sums: an image still weighs C at most, the noise multipliers add in squares, expected batches
    add. FedAvg's mean of differences, weighted by units, has the same terms where every hospital samples at the same
    rate: an image weighs lr*C/B with B the total expected batch. With equal batches and unequal hospitals an image
    weighs more at a large one, and so does its noise: the noise is what the weighted mean has, the weight of an image
    that of the average one.

    Raises:
        ValueError: no terms, or hospitals of one round that clip or step differently.
    """
    if not terms:
        raise ValueError("a sum over no hospital has no terms")
    if len({(t.clipping_norm, t.local_steps, t.learning_rate) for t in terms}) > 1:
        raise ValueError("the hospitals of one sum clip or step differently")
    batches = np.array([t.expected_batch for t in terms])
    rates = np.array([t.sample_rate for t in terms])
    return PublicTerms(
        clipping_norm=terms[0].clipping_norm,
        noise_multiplier=_noise(terms),
        sample_rate=float(np.average(rates, weights=batches)) if batches.sum() > 0 else float(rates.mean()),
        local_steps=terms[0].local_steps,
        expected_batch=float(batches.sum()),
        learning_rate=terms[0].learning_rate,
        loss=terms[0].loss,
    )


def of_a_cohort(terms: PublicTerms, share: float) -> PublicTerms:
    """Return the terms of a sum over an average cohort, from those of the sum over all: a share of its squares."""
    noise, batch = terms.noise_multiplier * float(np.sqrt(share)), terms.expected_batch * share
    return replace(terms, noise_multiplier=noise, expected_batch=batch)


def with_noise(terms: PublicTerms, deviation: float) -> PublicTerms:
    """Return the terms with noise of this deviation added to the sum, beside the hospitals' own."""
    clip = 1.0 if terms.clipping_norm is None else terms.clipping_norm
    return replace(terms, noise_multiplier=float(np.hypot(terms.noise_multiplier, deviation / clip)))


def terms_of_rounds(before: PublicTerms, count: int, now: PublicTerms) -> PublicTerms:
    """Return the terms per round of one more round added to `count`: those of other hospitals where a cohort changes.

    The noise adds in squares, so that its deviation over all rounds is the root of their number times that of one.
    """
    if now == before:
        return before
    noise = np.sqrt((count * before.noise_multiplier**2 + now.noise_multiplier**2) / (count + 1))
    return replace(
        before,
        noise_multiplier=float(noise),
        sample_rate=(count * before.sample_rate + now.sample_rate) / (count + 1),
        expected_batch=(count * before.expected_batch + now.expected_batch) / (count + 1),
    )


def _noise(terms: Sequence[PublicTerms]) -> float:
    """Return s of the sum, or of the weighted mean in units of lr*C/B; a hospital has batch / rate units."""
    noise = np.array([t.noise_multiplier for t in terms])
    batches = np.array([t.expected_batch for t in terms])
    rates = np.array([t.sample_rate for t in terms])
    if terms[0].local_steps == 1 or len(set(rates.tolist())) == 1 or min(rates.min(), batches.min()) <= 0:
        return float(np.sqrt(np.sum(noise**2)))
    units = batches / rates
    return float(batches.sum() / units.sum() * np.sqrt(np.sum((noise / rates) ** 2)))
