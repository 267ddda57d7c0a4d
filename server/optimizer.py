"""The server's optimiser: torch's own, over one flat float64 vector, with a state that is plain arrays."""

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from configs.sections import TrainingSettings

KINDS: dict[str, Any] = {"average": torch.optim.SGD, "adam": torch.optim.Adam, "nadam": torch.optim.NAdam}


@final
class ServerOptimizer:
    """Applies the mean gradient (FedSGD) or the mean difference of weights (FedAvg) to the global weights.

    FedSGD steps along the mean gradient with `learning_rate`; FedAvg takes the negative mean difference as its
    gradient (Reddi et al. 2021) with `server_learning_rate`, so `average` at 1 is plain averaging.
    """

    def __init__(self, training: TrainingSettings, weights: NDArray[np.float64]) -> None:
        self._differences = training.local_steps > 1
        self._here = torch.nn.Parameter(torch.from_numpy(weights.copy()))
        rate = training.server_learning_rate if self._differences else training.learning_rate
        self._optimizer = KINDS[training.server_optimizer]([self._here], lr=rate)

    @property
    def weights(self) -> NDArray[np.float64]:
        """The global weights, a copy."""
        return self._here.detach().numpy().copy()

    def step(self, mean: NDArray[np.float64]) -> None:
        """Take one step along the mean of what the hospitals released."""
        self._here.grad = torch.from_numpy(-mean if self._differences else mean)
        self._optimizer.step()

    def state(self) -> dict[str, NDArray[np.float64]]:
        """Return the weights and the optimiser's moments as arrays."""
        arrays = {"weights": self.weights}
        for key, value in self._optimizer.state[self._here].items():
            arrays[f"state.{key}"] = np.atleast_1d(np.asarray(torch.as_tensor(value).double().numpy())).copy()
        return arrays

    def restore(self, arrays: Mapping[str, NDArray[np.float64]]) -> None:
        """Take over what :meth:`state` returned."""
        with torch.no_grad():
            self._here.copy_(torch.from_numpy(np.array(arrays["weights"])))
        found = {k.removeprefix("state."): v for k, v in arrays.items() if k.startswith("state.")}
        if not found:
            return
        shape = self._here.shape
        single = torch.get_default_dtype()
        state: dict[str, torch.Tensor] = {}
        for key, value in found.items():
            tensor = torch.from_numpy(np.array(value))
            # torch keeps counters as scalars of the default type and moments in the parameter's own.
            state[key] = tensor if tensor.shape == shape and key.startswith("exp_avg") else tensor[0].to(single)
        self._optimizer.state[self._here] = state
