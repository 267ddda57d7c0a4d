"""The model that a run hands out: an exponential moving average of the server's iterates.

Averaging is post-processing of what the server already holds: it costs no privacy, and the noise of late steps
averages out. Hospitals are always sent the latest iterate, never the average.
"""

from typing import final

import numpy as np
from numpy.typing import NDArray


@final
class RunningAverage:
    """``average = sum_t (1 - decay) decay^(T - t) w_t / (1 - decay^T)``, the bias towards the start taken out.

    Edge cases: decay 0 is the latest iterate itself.
    """

    def __init__(self, decay: float, size: int) -> None:
        self._decay = decay
        self._sum = np.zeros(size)
        self._mass = 0.0

    def add(self, weights: NDArray[np.float64]) -> None:
        """Take in the weights after a round, (size,)."""
        self._sum = self._decay * self._sum + (1 - self._decay) * weights
        self._mass = self._decay * self._mass + (1 - self._decay)

    def value(self) -> NDArray[np.float64]:
        """Return the average (size,); at least one round must have been added."""
        return self._sum / self._mass

    def state(self) -> dict[str, NDArray[np.float64]]:
        """Return what a checkpoint keeps."""
        return {"average.sum": self._sum.copy(), "average.mass": np.array([self._mass])}

    def restore(self, arrays: dict[str, NDArray[np.float64]]) -> None:
        """Take over what :meth:`state` returned."""
        self._sum = arrays["average.sum"].copy()
        self._mass = float(arrays["average.mass"][0])
