"""What a fusion is fitted by: the static form and its two losses, and the opinions of the dynamic form, with torch.

Belongs here: what has a gradient, and the one optimiser. Does not belong here: which units and classes are learned from
(`fit`), or application (`mhpf`, which gives the same numbers with numpy).

Source of the static form and of its loss: section 3.6 of the paper and its published code, which feeds the fused
probabilities to a cross-entropy as if they were logits. With C classes such a loss cannot see a class beyond
e / (e + C - 1), so it never rewards certainty; the likelihood does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor, nn

TINY = 1e-3  # added to a probability before its logarithm: a vote that both branches lack would cost without bound
STEPS = 300  # of L-BFGS at most
TOLERANCE = 1e-10  # L-BFGS ends where a step lowers the loss by a smaller share


class StaticMHPF(nn.Module):
    """Weights that do not depend on the input: W [H, M, C] and a [H], drawn from U[0, 1) as published."""

    def __init__(self, heads: int, branches: int, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        shape = (heads, branches, classes)
        self.scores = nn.Parameter(torch.rand(shape, generator=generator, dtype=torch.float64))
        self.mix = nn.Parameter(torch.rand(heads, generator=generator, dtype=torch.float64))

    def weights(self, present: Tensor) -> Tensor:
        """Weights [n, M, C] for branches that are present [n, M]; see `mhpf.MHPF.weights`."""
        scores = self.scores.masked_fill(~present[:, None, :, None], -torch.inf)
        return (self.mix.softmax(0)[None, :, None, None] * scores.softmax(2)).sum(1)

    def forward(self, probabilities: Tensor, present: Tensor) -> Tensor:
        """The weighted sum [n, C], not normalised over classes; absent branches hold 0."""
        subsets, which = torch.unique(present, dim=0, return_inverse=True)
        return (self.weights(subsets)[which] * probabilities).sum(1)


def published_loss(fused: Tensor, targets: Tensor, class_weights: Tensor) -> Tensor:
    """Cross-entropy on the fused probabilities as if they were logits, with balanced class weights, as published.

    Args:
        fused: weighted sums [n, C], not normalised.
        targets: distributions [n, C]; the most likely class counts.
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
    """The linear map from evidence to the logits of an opinion: weighted maximum likelihood, with a penalty.

    The problem is convex, so its answer depends on no first values. Its slope is written out, because the bookkeeping
    of gradients takes ten times as long as these few sums.

    Args:
        inputs: standardised evidence, flat [n, K].
        free: which inputs carry no penalty [K]: the ones for being present.
        targets: distributions [n, C], or shares of them.
        class_weights: [C].
        decay: factor of the sum of squares of what is not free.

    Returns:
        [C, K].
    """
    shape = (targets.shape[1], inputs.shape[1])
    weighted = targets * class_weights
    mass, rows = float(weighted.sum()), weighted.sum(1, keepdim=True)
    penalty = decay * (~free).to(torch.float64)

    def value_and_slope(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        maps = torch.from_numpy(flat).view(shape)
        logs = (inputs @ maps.T).log_softmax(1)
        value = float((penalty * maps**2).sum()) - float((weighted * logs).sum()) / mass
        slope = (rows * logs.exp() - weighted).T @ inputs / mass + 2 * penalty * maps
        return value, slope.numpy().ravel()

    return torch.from_numpy(_least(np.zeros(shape[0] * shape[1]), value_and_slope)).view(shape)


def minimise(parameters: Sequence[Tensor], loss: Callable[[], Tensor]) -> None:
    """Bring a loss of some parameters down to a minimum, over whole data and without chance."""
    sizes = np.cumsum([p.numel() for p in parameters])[:-1]

    def write(flat: NDArray[np.float64]) -> None:
        with torch.no_grad():
            for parameter, part in zip(parameters, np.split(flat, sizes), strict=True):
                parameter.copy_(torch.from_numpy(part.copy()).view_as(parameter))

    def value_and_slope(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        write(flat)
        value = loss()
        slopes = torch.autograd.grad(value, list(parameters))
        return value.item(), np.concatenate([s.numpy().ravel() for s in slopes])

    write(_least(np.concatenate([p.detach().numpy().ravel() for p in parameters]), value_and_slope))


def _least(
    start: NDArray[np.float64], value_and_slope: Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]
) -> NDArray[np.float64]:
    # SciPy's, because the first optimiser of torch that a process makes loads its compiler, which takes seconds.
    options = {"maxiter": STEPS, "ftol": TOLERANCE}
    return minimize(value_and_slope, start, jac=True, method="L-BFGS-B", options=options).x


def _weighted(logs: Tensor, targets: Tensor, class_weights: Tensor) -> Tensor:
    weighted = targets * class_weights
    return -(weighted * logs).sum() / weighted.sum()
