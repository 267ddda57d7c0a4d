# The loops that set these names run at least once.
# pyright: reportPossiblyUnboundVariable=false
"""Epsilon of a history by inverting the moment generating function of its privacy loss.

The line of integration passes the minimum of the Chernoff bound, where nothing cancels. Every answer is
computed twice, on different lines with different periods and frequencies: their difference is the
tolerance that is reported.
"""

import math
from dataclasses import dataclass
from typing import final

from scipy.optimize import minimize_scalar

from privacy.contour import Contour, Parts, chernoff

_ALIAS = math.log(1e11)  # periodic images are kept this far below delta
_AGREE = 1e-9  # relative change of delta when the frequencies are halved
_LEAST, _MOST = 1 << 10, 1 << 15  # equidistant frequencies on one line
_OCTAVES = 24  # added to them at most
_COARSEST = 1e-2  # relative: a worse answer is no answer

TOLERANCE = 1e-6
"""Smallest relative tolerance that a numerical answer claims."""


@final
class InversionError(ArithmeticError):
    """The integral did not settle within the work allowed; the caller falls back to bounds."""


@final
@dataclass(frozen=True, slots=True)
class Line:
    """Where to integrate: exponent c, period, and highest frequencies of a first and a longer first stretch.

    ``epsilon`` is an upper bound to start from, ``reach`` a period that keeps the edge of the loss apart.
    """

    c: float
    period: float
    frequencies: tuple[float, float]
    epsilon: float
    reach: float


def best_tilt(parts: Parts, delta: float) -> tuple[float, float]:
    """Return (c, epsilon) of the smallest Chernoff bound: epsilon is valid, and near where c is best.

    epsilon = min_c [ln M(c) - ln delta + c ln c - (1 + c) ln(1 + c)]/c, the RDP conversion at every order.
    """

    def bound(log_c: float) -> float:
        c = math.exp(log_c)
        return (chernoff(parts, 0.0, c) - math.log(delta)) / c

    # An exponent of 1 is too steep for nodes at the smallest noise; the search starts below the steepest.
    most = min(13.0, *(math.log(0.1 * loss.steepest) for loss, _ in parts.steps))
    step, at = 1.0, min(0.0, most)
    here, up, down = bound(at), bound(at + step), bound(at - step)
    while up < here and at < most:
        at, down, here, up = at + step, here, up, bound(at + 2.0 * step)
    while down < here and at > -45.0:
        at, up, here, down = at - step, here, down, bound(at - 2.0 * step)
    found = minimize_scalar(bound, bounds=(at - step, at + step), method="bounded", options={"xatol": 1e-3})
    return math.exp(float(found.x)), float(found.fun)


def period(parts: Parts, c: float, epsilon: float, delta: float) -> float:
    """Length beyond which the periodic images of e^(c eps) delta(eps) are negligible, by Chernoff bounds."""
    left = (_ALIAS - math.log(delta)) / c
    right = math.inf
    for factor in (1.03, 1.1, 1.25, 1.5, 2.0, 3.0):
        bound = chernoff(parts, epsilon, factor * c)
        right = min(right, (bound - math.log(delta) + _ALIAS) / ((factor - 1.0) * c))
    return max(left, right)


def _log_delta(contour: Contour, epsilon: float) -> float:
    value = contour.integral(epsilon)[0]
    return contour.log_scale(epsilon) + math.log(value) if value > 0.0 else math.nan


def _root(contour: Contour, start: float, delta: float, width: float) -> float:
    """Solve delta(eps) = delta by Newton steps on ln delta, the first at most ``width``."""
    target, epsilon = math.log(delta), start
    low, high = -math.inf, math.inf
    for _ in range(100):
        value, tail = contour.integral(epsilon)
        miss = contour.log_scale(epsilon) + math.log(value) - target if value > 0.0 else -1.0
        if miss > 0.0:
            low = epsilon
        else:
            high = epsilon
        if abs(miss) < 1e-12:
            return epsilon
        move = miss * value / tail if value > 0.0 and tail > 0.0 else math.copysign(width, miss)
        if abs(move) <= 1e-13 * abs(epsilon):  # rounding of a large ln M keeps ``miss`` from getting smaller
            return epsilon
        proposal = epsilon + max(-width, min(width, move))
        if abs(move) >= width:
            width *= 1.5
        if not low < proposal < high:
            proposal = 0.5 * (low + high)
        if abs(proposal - epsilon) <= 1e-13 * abs(epsilon):
            return proposal
        epsilon = proposal
    return epsilon


def _settle(parts: Parts, line: Line, delta: float) -> tuple[float, float]:
    """Add octaves until two in a row change nothing; return (epsilon, absolute uncertainty).

    A root that stays below 0 is enough of an answer: epsilon is 0. Raises ``InversionError``.
    """
    width = 4.0 * math.sqrt(parts.cumulants(line.c)[2])
    for frequency in line.frequencies:
        contour = Contour(parts, line.c, period=line.period, frequency=frequency)
        if contour.decayed:
            return _root(contour, line.epsilon, delta, width), 0.0
    start, before, settled = line.epsilon, math.inf, 0
    epsilon = _root(contour, start, delta, width)
    for _ in range(_OCTAVES):
        here = _log_delta(contour, epsilon)
        if not contour.refine(line.reach):
            break
        change = _log_delta(contour, epsilon) - here
        settled = settled + 1 if abs(change) < _AGREE else 0
        if settled == 2 or max(before, epsilon) < 0.0:
            return epsilon, 0.0
        if settled == 0:
            before, start = epsilon, epsilon if abs(change) < 0.5 else line.epsilon
            epsilon = _root(contour, start, delta, width)
    if abs(epsilon - before) < _COARSEST * abs(epsilon):
        return epsilon, abs(epsilon - before)
    raise InversionError


def invert(parts: Parts, delta: float, ceiling: float = math.inf) -> tuple[float, float]:
    """Return (epsilon, relative tolerance) with delta(epsilon) = delta; (0, 0) where delta(0) <= delta.

    ``ceiling`` is a known upper bound, to start from where it is below the Chernoff bound.

    *Guarantee*: numerical; the tolerance is at least twice the difference of two evaluations on different
    lines, and covers frequencies that the work allowed did not reach.
    *Assumes*: exact moment generating functions at the nodes (see step_loss).
    *Edge cases*: raises ``InversionError`` where the evaluations differ by more than a hundredth.
    """
    c, upper = best_tilt(parts, delta)
    answers: list[float] = []
    doubts: list[float] = []
    for share in (0.93, 0.71):
        epsilon, doubt = _on_line(parts, share * c, 1.9 - share, min(upper, ceiling), delta)
        answers.append(epsilon)
        doubts.append(doubt)
    first, second = answers
    if max(answers) <= 0.0:
        return 0.0, 0.0
    spread = 2.0 * abs(first - second) + max(doubts)
    if spread > _COARSEST * first:
        raise InversionError
    return first, max(TOLERANCE, spread / first)


def _on_line(parts: Parts, c: float, stretch: float, upper: float, delta: float) -> tuple[float, float]:
    """Return (epsilon, absolute uncertainty) from the line at c, with a period that fits the answer.

    The Chernoff bound of the images depends on where epsilon is, so a first answer that is much smaller
    than the upper bound is checked, and computed again with a longer period.
    """
    length = period(parts, c, upper, delta)
    for _ in range(4):
        epsilon, doubt = _settle(parts, _line(parts, c, stretch, upper, length), delta)
        needed = period(parts, c, max(0.0, min(epsilon, upper)), delta)
        if needed <= 1.02 * length:
            return epsilon, doubt
        length = needed
    raise InversionError


def _line(parts: Parts, c: float, stretch: float, upper: float, length: float) -> Line:
    frequencies = resolve(parts, c, stretch, length)
    return Line(c, length, frequencies, upper, 2.2 * (abs(upper) + abs(parts.edge)))


def resolve(parts: Parts, c: float, stretch: float, length: float) -> tuple[float, float]:
    """Return the highest frequencies of a first and a longer first stretch, times ``stretch``.

    The first resolves the total loss, and the gaps between numbers of participations where they are apart
    and not blurred; the longer one the widths of single participations too. At most ``_MOST`` spacings: octaves do
    the rest.
    """
    spacing = 2.0 * math.pi / length
    apart = max(30.0 / step.gap for step, _ in parts.steps)
    if parts.sign > 0:
        # Twice, since ``Contour.decayed`` looks at the upper half.
        apart = min(apart, *(2.2 * step.blurred(1.0 + c, count) for step, count in parts.steps))
    total = max(40.0 / math.sqrt(parts.cumulants(c)[2]), apart)
    single = max(24.0 / step.width for step, _ in parts.steps)
    short = stretch * min(total, _MOST * spacing)
    long = stretch * min(max(total, single, _LEAST * spacing), _MOST * spacing)
    return short, long
