# numpy's complex arrays are typed too loosely to be checked strictly here.
# pyright: reportArgumentType=false
"""The privacy loss of one step for a unit of several images, each of which is drawn and clipped by itself.

The unit's J ~ Bin(k, q) drawn images add at most J clipping norms: P = sum_j w_j N(j, s^2) against
Q = N(0, s^2), and with u = x/s^2 the loss is l = ln sum_j w_j e^(j u - j^2/(2 s^2)). Its sum is a polynomial in
e^u whose roots are negative: ((1 - q) + q y)^k has such roots, and multiplying coefficients by e^(-j^2 t) keeps
them so (Polya and Schur, 1914). So l is analytic in the same strip as with one image, and its imaginary part
grows from the real line on: the nodes of step_loss serve here too.
"""

import functools
import math
from typing import final

import numpy as np
import numpy.typing as npt

from privacy.step_loss import APART, HIGHEST, StepLoss, TiltedLoss, nodes, steepest_exponent

Array = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]

_CELL = 0.5  # standard deviations; the integrand is first looked at on a grid as coarse as this
_FAINT = 48.0  # cells e^-48 below the top are left out
_REACH = 10.5  # standard deviations beyond the outermost branches


def log_binomial(records: int, sample_rate: float) -> Array:
    """Ln Bin(j; records, sample_rate) for j = 0 .. records. Sample rate below 1."""
    j = np.arange(records + 1, dtype=np.float64)
    choose = np.array([math.log(math.comb(records, i)) for i in range(records + 1)], dtype=np.float64)
    log_weight: Array = choose + j * math.log(sample_rate) + (records - j) * math.log1p(-sample_rate)
    return log_weight


@final
class SampledGroup(StepLoss):
    """Remove direction for a unit of ``records`` images; tilting by a < 0 serves the add direction.

    ``apart``: treat the branches as if they did not overlap, that is take the loss of a step's own branch,
    which is a lower bound (group_bounds.overlap says by how much). Sample rate below 1.
    """

    def __init__(self, *, noise_multiplier: float, sample_rate: float, records: int, apart: bool = False) -> None:
        super().__init__(noise_multiplier)
        self._records = records
        self._log_weight = log_binomial(records, sample_rate)
        self._apart = apart or noise_multiplier < APART
        j = np.arange(1.0, records + 1.0)
        # The search for a line of integration comes back to the same exponents.
        self._nodes = functools.lru_cache(maxsize=64)(self._quadrature)
        # Where branch j overtakes branch j - 1, in u; increasing, since the weights are log-concave.
        self._breaks = (j - 0.5) / noise_multiplier**2 - np.diff(self._log_weight)

    @property
    def edge(self) -> float:
        """Smallest loss of a step, k ln(1 - q)."""
        return float(self._log_weight[0])

    @property
    def steepest(self) -> float:
        """Exponent that asks for a hundred thousand nodes; unlimited where the loss is taken as branches."""
        return math.inf if self._apart else steepest_exponent(self._noise) / self._records

    def blurred(self, a: float, steps: int) -> float:
        """Frequency beyond which |E e^(i w l)|^steps < e^-38 under the tilted law, as far as branches are apart.

        |E e^(i w l)| <= sum_j p_j e^(-(w j/s)^2/2), which falls in w; inf where it never falls so low.
        """
        if a <= 0.0 or math.isinf(self.gap):
            return math.inf
        law = self._branches(a)

        def excess(log_w: float) -> float:
            here = float(law.probability.real @ np.exp(-0.5 * (math.exp(log_w) * law.spread) ** 2))
            return steps * math.log(here) + 38.0 if here > 0.0 else -math.inf

        low, high = -40.0, 10.0
        if excess(high) > 0.0:
            return math.inf
        for _ in range(30):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if excess(middle) > 0.0 else (low, middle)
        return math.exp(high)

    def tilted(self, a: float, *, frequency: float = 0.0) -> TiltedLoss:
        """Return the tilted loss: branches where they are apart, else trapezoidal nodes where it has mass."""
        if self._apart:
            return self._branches(a)
        return self._nodes(a, frequency > 0.0)

    def _quadrature(self, a: float, lifted: bool) -> TiltedLoss:
        step, lift = min(0.5 * self._noise, 0.2), 0.0
        if lifted:
            step, lift = min(0.25 * self._noise, 0.2), min(0.5 * math.pi * self._noise, HIGHEST)
        t = self._places(a, step)
        return nodes(self._loss, t + 1j * lift, np.full(len(t), step + 0j), a)

    def _places(self, a: float, step: float) -> Array:
        """Multiples of ``step`` in all cells where e^(a l) times the Gaussian is not faint."""
        moved = a * self._records / self._noise
        count = math.ceil((abs(moved) + 2.0 * _REACH) / _CELL) + 1
        cells = min(0.0, moved) - _REACH + _CELL * np.arange(count)
        size = -0.5 * cells * cells + a * self._loss(cells + 0j).real
        seen = size > size.max() - _FAINT
        seen[1:] |= seen[:-1].copy()
        seen[:-1] |= seen[1:].copy()
        ends = np.flatnonzero(np.diff(np.concatenate([[0], seen.astype(np.int8), [0]])))
        runs = [
            np.arange(math.floor(cells[i] / step), math.ceil(cells[j - 1] / step) + 1)
            for i, j in zip(ends[::2], ends[1::2], strict=True)
        ]
        return np.asarray(np.unique(np.concatenate(runs)) * step, dtype=np.float64)

    def _loss(self, z: Complex) -> Complex:
        """Ratio at x = s z: the leading branch, and the others relative to it as far as doubles see them."""
        u = z / self._noise
        lead = np.searchsorted(self._breaks, u.real)
        # Offset m is at least e^(-m (m - 1)/(2 s^2)) below the lead.
        far = min(self._records, math.ceil(9.0 * self._noise + 1.5))
        m = np.arange(-far, far + 1)
        at = lead[:, None] + m
        inside = (at >= 0) & (at <= self._records) & (m != 0)
        weight = self._log_weight[np.clip(at, 0, self._records)] - self._log_weight[lead][:, None]
        real = weight - (0.5 / self._noise**2) * (m * (at + lead[:, None])) + np.outer(u.real, m)
        ratio = np.exp(np.where(inside, real, -math.inf))
        rest = ratio.sum(axis=1) + 0j if not np.any(u.imag) else (ratio * np.exp(1j * np.outer(u.imag, m))).sum(axis=1)
        ratio_of_lead: Complex = self._log_weight[lead] + lead * (u - 0.5 * lead / self._noise**2)
        return ratio_of_lead + np.log1p(rest)

    def _branches(self, a: float) -> TiltedLoss:
        half, j = 0.5 / self._noise**2, np.arange(self._records + 1.0)
        moment = a * self._log_weight + half * a * (a - 1.0) * j * j
        if a <= 0.0:  # tilted away from participation the loss saturates at its edge
            moment[1:] = -math.inf
        top = float(moment.max())
        probability: Array = np.exp(moment - top)
        total = float(probability.sum())
        return TiltedLoss(
            log_moment=top + math.log(total),
            probability=probability / total,
            loss=self._log_weight + half * (2.0 * a - 1.0) * j * j,
            spread=np.asarray(j / self._noise, dtype=np.float64),
        )
