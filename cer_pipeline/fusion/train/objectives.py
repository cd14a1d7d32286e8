"""Objectives of the fusion with torch: the static form and its two losses, and the gate of the dynamic form.

Belongs here: functions with a gradient, and the optimiser. Does not belong here: the choice of units and classes
(`fit`), or inference (`mhpf`, which gives the same numbers with numpy).

Source of the static form and of its loss: section 3.6 of the paper and its reference code, which passes the fused
probabilities to a cross-entropy as if they were logits. With C classes the softmax of this loss never exceeds
e / (e + C - 1), so it does not reward certainty; the likelihood does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor, nn

TINY: Final = 1e-3  # added to a probability before its logarithm: a target with probability 0 has a bounded loss
MAX_ITERATIONS: Final = 300  # of L-BFGS
TOLERANCE: Final = 1e-10  # L-BFGS stops where a step lowers the loss by a smaller share


class StaticMHPF(nn.Module):
    """Weights that do not depend on the input: W [H, M, C] and a [H], drawn from U[0, 1) as in the reference code."""

    def __init__(self, heads: int, branches: int, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        shape = (heads, branches, classes)
        self.scores = nn.Parameter(torch.rand(shape, generator=generator, dtype=torch.float64))
        self.mix = nn.Parameter(torch.rand(heads, generator=generator, dtype=torch.float64))

    def weights(self, present: Tensor) -> Tensor:
        """Weights [n, M, C] for the present branches [n, M]; see `mhpf.MHPF.weights`."""
        scores = self.scores.masked_fill(~present[:, None, :, None], -torch.inf)
        return (self.mix.softmax(0)[None, :, None, None] * scores.softmax(2)).sum(1)

    def forward(self, probabilities: Tensor, present: Tensor) -> Tensor:
        """Weighted sum [n, C], not normalised over classes; the probabilities of absent branches must be 0."""
        subsets, index = torch.unique(present, dim=0, return_inverse=True)
        return (self.weights(subsets)[index] * probabilities).sum(1)


def published_loss(fused: Tensor, targets: Tensor, class_weights: Tensor) -> Tensor:
    """Cross-entropy on the fused probabilities as if they were logits, with class weights, as in the reference code.

    Args:
        fused: weighted sums [n, C], not normalised.
        targets: distributions [n, C]; their most probable class counts.
        class_weights: [C].
    """
    return nn.functional.cross_entropy(fused, targets.argmax(1), weight=class_weights)


def likelihood_loss(fused: Tensor, targets: Tensor, class_weights: Tensor) -> Tensor:
    """Negative log-likelihood of the targets under the fused distribution, with class weights.

    Args:
        fused: weighted sums [n, C], normalised here.
        targets: distributions [n, C].
        class_weights: [C].
    """
    return _weighted(torch.log(fused / fused.sum(1, keepdim=True) + TINY), targets, class_weights)


def fit_gate(inputs: Tensor, free: Tensor, targets: Tensor, class_weights: Tensor, decay: float) -> Tensor:
    """Fit the linear map from gate inputs to the logits of the gate target, by penalised weighted maximum likelihood.

    The problem is convex, so the solution does not depend on initial values. The gradient is written out, because
    autograd takes ten times as long.

    Args:
        inputs: standardised gate inputs, flattened [n, K].
        free: whether an input has no penalty [K]: the inputs that are 1 for a present branch.
        targets: distributions [n, C], possibly scaled.
        class_weights: [C].
        decay: factor of the sum of squares of the penalised entries.

    Returns:
        [C, K].
    """
    shape = (targets.shape[1], inputs.shape[1])
    weighted = targets * class_weights
    mass, rows = float(weighted.sum()), weighted.sum(1, keepdim=True)
    penalty = decay * (~free).to(torch.float64)

    def value_and_gradient(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        maps = torch.from_numpy(flat).view(shape)
        logs = (inputs @ maps.T).log_softmax(1)
        value = float((penalty * maps**2).sum()) - float((weighted * logs).sum()) / mass
        gradient = (rows * logs.exp() - weighted).T @ inputs / mass + 2 * penalty * maps
        return value, gradient.numpy().ravel()

    return torch.from_numpy(_minimum(np.zeros(shape[0] * shape[1]), value_and_gradient)).view(shape)


def minimise(parameters: Sequence[Tensor], loss: Callable[[], Tensor]) -> None:
    """Minimise a deterministic loss of some parameters in place."""
    sizes = np.cumsum([p.numel() for p in parameters])[:-1]

    def write(flat: NDArray[np.float64]) -> None:
        with torch.no_grad():
            for parameter, part in zip(parameters, np.split(flat, sizes), strict=True):
                parameter.copy_(torch.from_numpy(part.copy()).view_as(parameter))

    def value_and_gradient(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        write(flat)
        value = loss()
        gradients = torch.autograd.grad(value, list(parameters))
        return value.item(), np.concatenate([g.numpy().ravel() for g in gradients])

    write(_minimum(np.concatenate([p.detach().numpy().ravel() for p in parameters]), value_and_gradient))


def _minimum(
    start: NDArray[np.float64], value_and_gradient: Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]
) -> NDArray[np.float64]:
    # SciPy, because the first torch optimiser of a process loads the torch compiler, which takes seconds.
    options = {"maxiter": MAX_ITERATIONS, "ftol": TOLERANCE}
    return minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options).x


def _weighted(logs: Tensor, targets: Tensor, class_weights: Tensor) -> Tensor:
    weighted = targets * class_weights
    return -(weighted * logs).sum() / weighted.sum()
