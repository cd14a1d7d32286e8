"""Multi-Head Probability Fusion, as it is applied: trained parameters, and the weights that they give.

Belongs here: both forms of MHPF with numpy, in float64, and their file. Does not belong here: training (`training`) or
the weighted sum itself (`combine`).

Both forms give weights that are convex over the branches that are present, for every unit, head and class; heads are
mixed with coefficients alpha = softmax(a), so the mixture is convex too. A branch that is absent is masked before the
softmax, so each of the 2^M - 1 subsets of branches gives a distribution.

* static (section 3.6 of the paper, as its published code does it): weights w[h, m, c] = softmax over m of W[h, m, c],
  whatever the input. With all branches present, H heads equal one convex M x C matrix (`collapse`).
* dynamic (what section 3.6 says): the scores before the softmax depend on what every branch says and how sure it is,
  s[h, m, c] = b[h, m, c] + sum over branches m' present and evidence k of V[h, m, c, m', k] z[m', k].

Evidence z of a branch with the distribution p: p, log(p + EPSILON) less its mean over the classes, the entropy of p,
max p, each standardised over the training set, and 1 for being present.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from cer_pipeline.errors import CerError
from cer_pipeline.fusion.combine import Array, Mask, combine, masked_softmax, ordered_sum
from cer_pipeline.heads.io import load_head, save_head

STATIC: Final = "static"
DYNAMIC: Final = "dynamic"
KIND: Final = "mhpf"

EPSILON: Final = 0.02
"""Added to a probability before its logarithm: finer differences between small probabilities say nothing."""


@dataclass(frozen=True)
class MHPF:
    """A trained fusion of M branches over C classes.

    Args:
        method: static or dynamic.
        branches: M names.
        classes: C labels.
        scores: W or b [H, M, C].
        mix: a [H].
        maps: V [H, M, C, M, K]; empty for static.
        mean: of the evidence over the training set [M, K - 1]; empty for static.
        scale: standard deviation of the evidence [M, K - 1]; empty for static.
    """

    method: str
    branches: tuple[str, ...]
    classes: tuple[str, ...]
    scores: Array
    mix: Array
    maps: Array
    mean: Array
    scale: Array

    def weights(self, probabilities: Array, present: Mask) -> Array:
        """Weights of the branches.

        Args:
            probabilities: [n, M, C]; what stands at absent branches is not read.
            present: [n, M]; at least one branch in every unit.

        Returns:
            [n, M, C], convex over the branches that are present.
        """
        shares = _softmax(self.mix)
        scores = np.broadcast_to(self.scores, (len(present), *self.scores.shape))
        if self.method == DYNAMIC:
            scores = scores + self._moved(probabilities, present)
        heads = masked_softmax(scores, present[:, None, :])
        return ordered_sum(shares[:, None, None] * heads, 1)

    def fuse(self, probabilities: Array, present: Mask) -> tuple[Array, Array]:
        """Fused distributions [n, C] and the effective weights [n, M, C]; see `combine.combine`."""
        return combine(self.weights(probabilities, present), probabilities, present)

    def _moved(self, probabilities: Array, present: Mask) -> Array:
        """What the evidence adds to the scores [n, H, M, C], summed in fixed order."""
        seen = evidence(np.where(present[..., None], probabilities, 1.0 / probabilities.shape[-1]))
        z = np.concatenate([(seen - self.mean) / self.scale, np.ones((*present.shape, 1))], axis=2)
        z = np.where(present[..., None], z, 0.0)
        moved = np.zeros((len(z), *self.scores.shape))
        for m in range(z.shape[1]):
            for k in range(z.shape[2]):
                moved += z[:, m, k, None, None, None] * self.maps[:, :, :, m, k]
        return moved

    def collapse(self, present: Mask | None = None) -> Array:
        """The one convex matrix [M, C] that all heads of a static fusion come down to.

        Args:
            present: [M]; all branches unless given.

        Raises:
            ValueError: the fusion is dynamic, so that its weights depend on the input.
        """
        if self.method != STATIC:
            raise ValueError("only a static fusion has one matrix")
        here = np.ones(len(self.branches), dtype=bool) if present is None else present
        return self.weights(np.full((1, *self.scores.shape[1:]), np.nan), here[None])[0]

    def select(self, branches: Sequence[str]) -> tuple[int, ...]:
        """Positions in this fusion of some branches.

        Raises:
            CerError: a branch that it was not trained on.
        """
        unknown = [b for b in branches if b not in self.branches]
        if unknown:
            then = "train it again with these branches, or set fusion.method to equal"
            raise CerError("the trained fusion does not know a branch", ", ".join(unknown), then)
        return tuple(self.branches.index(b) for b in branches)


def evidence(probabilities: Array) -> Array:
    """What the weights of the dynamic form depend on, before it is standardised.

    Args:
        probabilities: [n, M, C] distributions.

    Returns:
        [n, M, 2 C + 2]: p, centred log p, entropy (nats), max p.
    """
    classes = probabilities.shape[-1]
    logs = np.log(probabilities + EPSILON)
    centred = logs - (ordered_sum(logs, -1) / classes)[..., None]
    own = np.where(probabilities > 0.0, probabilities, 1.0)
    entropy = -ordered_sum(probabilities * np.log(own), -1)[..., None]
    return np.concatenate([probabilities, centred, entropy, probabilities.max(axis=-1, keepdims=True)], axis=-1)


def save_mhpf(path: Path, fusion: MHPF, meta: dict[str, object]) -> None:
    """Write a fusion as a head.

    Args:
        path: file to write.
        fusion: what to write; tensors keep float64, so that a fusion that is read back gives the same bits.
        meta: what else its header says: data, protocol, scores.
    """
    tensors = {n: getattr(fusion, n) for n in ("scores", "mix", "maps", "mean", "scale")}
    own = {"kind": KIND, "method": fusion.method, "branches": list(fusion.branches), "classes": list(fusion.classes)}
    save_head(path, tensors, {**meta, **own})


def load_mhpf(path: Path) -> MHPF:
    """Read a fusion that `save_mhpf` wrote.

    Raises:
        CerError: the file is missing, damaged, or holds another kind of head.
    """
    tensors, meta = load_head(path)
    if meta.get("kind") != KIND:
        raise CerError("not a trained fusion", str(path), "train one with `cer train mhpf`")
    values = {n: tensors[n].astype(np.float64) for n in ("scores", "mix", "maps", "mean", "scale")}
    return MHPF(meta["method"], tuple(meta["branches"]), tuple(meta["classes"]), **values)


def _softmax(values: Array) -> Array:
    raw = np.exp(values - values.max())
    return raw / raw.sum()
