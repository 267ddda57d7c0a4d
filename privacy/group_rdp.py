"""Epsilon of a unit of several images by Renyi divergences, at the orders and with the conversion of opacus.

opacus has no accountant for such units. This is what its way of accounting gives for them, for comparison with
``rdp.opacus_epsilon``: valid, and floored by the smallest order at about 1.1 T k^2/(2 s^2).
"""

import functools
import math

from privacy.group_loss import SampledGroup
from privacy.rdp import ORDERS
from privacy.release import Spend


def _log_moment(order: float, spend: Spend, records: int) -> float:
    """Ln E_Q[(P/Q)^order] of one step."""
    if spend.sample_rate == 1.0:
        return order * (order - 1.0) * 0.5 * (records / spend.noise_multiplier) ** 2
    loss = SampledGroup(noise_multiplier=spend.noise_multiplier, sample_rate=spend.sample_rate, records=records)
    return loss.tilted(order).log_moment


def group_rdp_epsilon(spends: tuple[Spend, ...], records: int, *, delta: float) -> float:
    """Return the RDP epsilon of a unit of ``records`` images. No unit; never negative.

    ln E[(P/Q)^a] is convex in the order a, and so the bound times (a - 1): the bound falls, then rises, and the
    search stops where it rises.

    *Guarantee*: a valid upper bound of ``unit_epsilon``, up to rounding (remove direction, as opacus).
    *Assumes*: noise multipliers above 0, otherwise as ``accounting.unit_epsilon``.
    *Edge cases*: 0 for an empty history.
    Source: as ``rdp.opacus_epsilon``; for one record it is the same number (tests/privacy/test_units.py).
    """
    if not spends:
        return 0.0

    @functools.cache
    def bound(place: int) -> float:
        order = ORDERS[place]
        divergence = sum(s.steps * _log_moment(order, s, records) for s in spends) / (order - 1.0)
        return divergence + math.log((order - 1.0) / order) - (math.log(delta) + math.log(order)) / (order - 1.0)

    at, stride = 0, 1
    while at + 1 < len(ORDERS) and bound(at + 1) < bound(at):
        stride *= 2
        ahead = min(at + stride, len(ORDERS) - 1)
        while ahead > at + 1 and bound(ahead) >= bound(ahead - 1):
            ahead = (at + ahead) // 2
            stride = 1
        at = max(ahead, at + 1)
    return max(0.0, bound(at))
