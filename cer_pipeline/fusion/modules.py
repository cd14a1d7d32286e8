"""Multi-Head Probability Fusion as torch modules, for training.

Belongs here: both forms and both losses. Does not belong here: the training loop (`training`) or application (`mhpf`,
which gives the same numbers with numpy).

Source of the static form and of its loss: section 3.6 of the paper and its published code, which feeds the fused
probabilities to a cross-entropy as if they were logits. With C classes such a loss cannot see a class beyond
e / (e + C - 1), so it never rewards certainty; the likelihood does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cer_pipeline.fusion.combine import SPREAD
from cer_pipeline.fusion.mhpf import DYNAMIC, MHPF, STATIC, evidence

TINY = 1e-3  # added to a probability before its logarithm: a vote that both branches lack would cost without bound


class StaticMHPF(nn.Module):
    """Weights that do not depend on the input: W [H, M, C] and a [H], drawn from U[0, 1) as published."""

    def __init__(self, heads: int, branches: int, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        shape = (heads, branches, classes)
        self.scores = nn.Parameter(torch.rand(shape, generator=generator, dtype=torch.float64))
        self.mix = nn.Parameter(torch.rand(heads, generator=generator, dtype=torch.float64))

    def weights(self, probabilities: Tensor, present: Tensor) -> Tensor:
        """Weights [n, M, C]; see `mhpf.MHPF.weights`."""
        return _mixed(self.scores.expand(len(probabilities), -1, -1, -1), self.mix, present)

    def forward(self, probabilities: Tensor, present: Tensor) -> Tensor:
        """The weighted sum [n, C], not normalised over classes."""
        return _sum(self.weights(probabilities, present), probabilities, present)

    def plain(self, branches: Sequence[str], classes: Sequence[str]) -> MHPF:
        """The parameters, to be applied with numpy."""
        none = torch.empty(0, dtype=torch.float64)
        return _plain(STATIC, branches, classes, self.scores, self.mix, none, none, none)


class DynamicMHPF(nn.Module):
    """Weights from what every branch says and how sure it is: one small linear map per head, branch and class."""

    def __init__(self, heads: int, probabilities: Tensor, present: Tensor, generator: torch.Generator) -> None:
        """Start near equal weights, with the evidence standardised.

        Args:
            heads: H.
            probabilities: training set [n, M, C], from which mean and scale of the evidence are taken.
            present: [n, M].
            generator: of the first values.
        """
        super().__init__()
        _, branches, classes = probabilities.shape
        seen = self._evidence(probabilities, present)
        known = present[..., None].to(seen.dtype)
        count = known.sum(0).clamp_min(1.0)
        mean = (seen * known).sum(0) / count
        scale = (((seen - mean) ** 2 * known).sum(0) / count).sqrt() + 1e-6
        self.mean, self.scale = mean, scale
        shape = (heads, branches, classes)
        self.scores = nn.Parameter(0.1 * torch.randn(shape, generator=generator, dtype=torch.float64))
        self.mix = nn.Parameter(torch.zeros(heads, dtype=torch.float64))
        maps = (*shape, branches, seen.shape[2] + 1)
        self.maps = nn.Parameter(0.05 * torch.randn(maps, generator=generator, dtype=torch.float64))

    @staticmethod
    def _evidence(probabilities: Tensor, present: Tensor) -> Tensor:
        known = torch.where(
            present[..., None], probabilities, torch.full_like(probabilities, 1 / probabilities.shape[2])
        )
        return torch.from_numpy(evidence(known.numpy()))  # no gradient goes through the evidence

    def weights(self, probabilities: Tensor, present: Tensor) -> Tensor:
        """Weights [n, M, C]; see `mhpf.MHPF.weights`."""
        z = (self._evidence(probabilities, present) - self.mean) / self.scale
        z = torch.cat([z, torch.ones_like(z[..., :1])], dim=2) * present[..., None]
        return _mixed(self.scores + torch.einsum("hmcjk,njk->nhmc", self.maps, z), self.mix, present)

    def forward(self, probabilities: Tensor, present: Tensor) -> Tensor:
        """The weighted sum [n, C], not normalised over classes."""
        return _sum(self.weights(probabilities, present), probabilities, present)

    def plain(self, branches: Sequence[str], classes: Sequence[str]) -> MHPF:
        """The parameters, to be applied with numpy."""
        return _plain(DYNAMIC, branches, classes, self.scores, self.mix, self.maps, self.mean, self.scale)


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
    logs = torch.log(fused / fused.sum(1, keepdim=True) + TINY)
    weighted = targets * class_weights
    return -(weighted * logs).sum() / weighted.sum()


def _mixed(scores: Tensor, mix: Tensor, present: Tensor) -> Tensor:
    """Masked softmax over branches, with the floor of `combine.masked_softmax`, and heads mixed: -> [n, M, C]."""
    here = present[:, None, :, None]
    top = scores.masked_fill(~here, -torch.inf).amax(dim=2, keepdim=True)
    raw = torch.exp((scores - top).clamp(-SPREAD, 0.0)) * here
    heads = raw / raw.sum(dim=2, keepdim=True)
    return (mix.softmax(0)[None, :, None, None] * heads).sum(1)


def _sum(weights: Tensor, probabilities: Tensor, present: Tensor) -> Tensor:
    return (weights * torch.where(present[..., None], probabilities, torch.zeros_like(probabilities))).sum(1)


def _plain(method: str, branches: Sequence[str], classes: Sequence[str], *values: Tensor) -> MHPF:
    arrays = [v.detach().numpy().copy() for v in values]
    return MHPF(method, tuple(branches), tuple(classes), *arrays)
