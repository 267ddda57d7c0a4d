"""Public terms of what is added up: several hospitals in one round, or several rounds of one source."""

from collections.abc import Sequence

import numpy as np

from server.adversary.base import PublicTerms


def terms_of_sum(terms: Sequence[PublicTerms]) -> PublicTerms:
    """Return the terms of a sum over hospitals.

    FedSGD adds gradient sums: an image still weighs C at most, the noise multipliers add in squares, expected batches
    add. FedAvg's mean of differences, weighted by units, has the same terms where every hospital samples at the same
    rate: an image weighs lr*C/B with B the total expected batch. (With equal batches and unequal hospitals an image
    weighs more at a large one; the terms then hold for the average image.)

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
        noise_multiplier=float(np.sqrt(sum(t.noise_multiplier**2 for t in terms))),
        sample_rate=float(np.average(rates, weights=batches)) if batches.sum() > 0 else float(rates.mean()),
        local_steps=terms[0].local_steps,
        expected_batch=float(batches.sum()),
        learning_rate=terms[0].learning_rate,
        loss=terms[0].loss,
    )
