"""Multi-Head Probability Fusion, as it is applied: trained parameters, and the weights that they give.

Belongs here: both forms of MHPF with numpy, in float64, and their file. Does not belong here: training
(`fusion.train.fit`) or the weighted sum itself (`combine`).

Both forms give weights that are convex over the branches that are present, for every unit, head and class; heads are
mixed with coefficients alpha = softmax(a), so the mixture is convex too. A branch that is absent is masked before the
softmax, so each of the 2^M - 1 subsets of branches gives a distribution.

* static (section 3.6 of the paper, as its published code does it): weights w[h, m, c] = softmax over m of W[h, m, c],
  whatever the input. With all branches present, H heads equal one convex M x C matrix (`collapse`).
* dynamic (what section 3.6 says): the weights depend on what every branch says and how sure it is. Every head weighs
  up the evidence of all branches that are present to an opinion of its own,
  r[h, c] = softmax over c of s sum_mk V[h, c, m, k] z[m, k],
  and trusts, class by class, the branches that come near it:
  w[h, m, c] = softmax over m of -k ((p[m, c] - r[h, c]) / (range[c] + EPSILON))^2,
  range[c] the largest p[m, c] of the branches present less the smallest. s is the sharpness, k the stiffness. The
  opinion only steers: no fused value leaves the range of what the branches say.

Inputs z of a branch with the distribution p: p, log(p + EPSILON) less its mean over the classes, the entropy of p,
max p, each standardised over the training set, and 1 for being present.

A class without a training unit has no opinion: the branches that are present share its weight equally.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.special import softmax

from cer_pipeline.errors import CerError
from cer_pipeline.fusion.combine import Array, Mask, combine, equal_weights, masked_softmax, ordered_sum
from cer_pipeline.zoo.head_file import load_head, save_head

STATIC: Final = "static"
DYNAMIC: Final = "dynamic"
KIND: Final = "mhpf"
TENSORS: Final = ("scores", "mix", "maps", "mean", "scale")

EPSILON: Final = 0.02
"""Added to a probability before its logarithm, and to a range of probabilities: finer differences say nothing."""


@dataclass(frozen=True)
class MHPF:
    """A trained fusion of M branches over C classes.

    Args:
        method: static or dynamic.
        branches: M names.
        classes: C labels.
        known: of these, the classes that had a training unit.
        scores: W [H, M, C]; empty for dynamic.
        mix: a [H].
        maps: V [H, C, M, K]; empty for static.
        mean: of the evidence over the training set [M, K - 1]; empty for static.
        scale: standard deviation of the evidence [M, K - 1]; empty for static.
        sharpness: s; not used by static.
        stiffness: k; not used by static.
    """

    method: str
    branches: tuple[str, ...]
    classes: tuple[str, ...]
    known: tuple[bool, ...]
    scores: Array
    mix: Array
    maps: Array
    mean: Array
    scale: Array
    sharpness: float = 1.0
    stiffness: float = 1.0

    def weights(self, probabilities: Array, present: Mask) -> Array:
        """Weights of the branches.

        Args:
            probabilities: [n, M, C]; what stands at absent branches is not read.
            present: [n, M]; at least one branch in every unit.

        Returns:
            [n, M, C], convex over the branches that are present.
        """
        shares = softmax(self.mix)
        if self.method == DYNAMIC:
            scores = self._scores(probabilities, present)
        else:
            scores = np.broadcast_to(self.scores, (len(present), *self.scores.shape))
        heads = masked_softmax(scores, present[:, None, :])
        mixed = ordered_sum(shares[:, None, None] * heads, 1)
        return np.where(self.known, mixed, equal_weights(present, len(self.classes)))

    def weights_of(self, branches: Sequence[str], probabilities: Array, present: Mask) -> Array:
        """Weights of branches that are given by name, in any order and number, whatever corpus they come from.

        Branches of this fusion that are not among them count as absent; those that it was not trained with get 0.

        Args:
            branches: B names.
            probabilities: [n, B, C]; what stands at absent branches is not read.
            present: [n, B]; in every unit at least one that this fusion was trained with.

        Returns:
            [n, B, C].
        """
        own = [i for i, b in enumerate(branches) if b in self.branches]
        places = [self.branches.index(branches[i]) for i in own]
        wide = np.full((len(present), len(self.branches), len(self.classes)), np.nan)
        seen = np.zeros(wide.shape[:2], dtype=bool)
        wide[:, places], seen[:, places] = probabilities[:, own], present[:, own]
        weights = np.zeros(probabilities.shape)
        weights[:, own] = self.weights(wide, seen)[:, places]
        return weights

    def fuse(self, probabilities: Array, present: Mask) -> tuple[Array, Array]:
        """Fused distributions [n, C] and the effective weights [n, M, C]; see `combine.combine`."""
        return combine(self.weights(probabilities, present), probabilities, present)

    def gate_targets(self, probabilities: Array, present: Mask) -> Array:
        """What every head of a dynamic fusion makes of the evidence: r [n, H, C], 0 for classes without training."""
        z = standardised(probabilities, present, self.mean, self.scale)
        logits = np.zeros((len(z), *self.maps.shape[:2]))
        for m in range(z.shape[1]):  # in fixed order, so that a row does not depend on its batch
            for k in range(z.shape[2]):
                logits += z[:, m, k, None, None] * self.maps[:, :, m, k]
        logits = np.where(self.known, self.sharpness * logits, -np.inf)
        raw = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return raw / ordered_sum(raw, -1)[..., None]

    def _scores(self, probabilities: Array, present: Mask) -> Array:
        """Scores before the softmax over branches [n, H, M, C]; what stands at absent branches is masked later."""
        seen = present[..., None]
        top = np.where(seen, probabilities, -np.inf).max(axis=1)
        span = top - np.where(seen, probabilities, np.inf).min(axis=1) + EPSILON
        known = np.where(seen, probabilities, 0.0)
        away = known[:, None] - self.gate_targets(probabilities, present)[:, :, None, :]
        return -self.stiffness * (away / span[:, None, None, :]) ** 2

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


def gate_inputs(probabilities: Array) -> Array:
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


def standardised(probabilities: Array, present: Mask, mean: Array, scale: Array) -> Array:
    """BranchValues with 1 behind it for being present, and 0 everywhere for a branch that is absent.

    Args:
        probabilities: [n, M, C]; what stands at absent branches is not read.
        present: [n, M].
        mean: [M, 2 C + 2].
        scale: [M, 2 C + 2].

    Returns:
        z [n, M, 2 C + 3].
    """
    seen = present[..., None]
    raw = gate_inputs(np.where(seen, probabilities, 1.0 / probabilities.shape[-1]))
    return np.where(seen, np.concatenate([(raw - mean) / scale, np.ones((*present.shape, 1))], axis=2), 0.0)


def save_mhpf(path: Path, fusion: MHPF, meta: dict[str, Any]) -> None:
    """Write a fusion as a head.

    Args:
        path: file to write.
        fusion: what to write; tensors keep float64, so that a fusion that is read back gives the same bits.
        meta: what else its header says: data, protocol, scores.
    """
    tensors = {n: getattr(fusion, n) for n in TENSORS}
    own: dict[str, Any] = {
        "kind": KIND,
        "method": fusion.method,
        "branches": list(fusion.branches),
        "classes": list(fusion.classes),
        "known": list(fusion.known),
        "sharpness": fusion.sharpness,
        "stiffness": fusion.stiffness,
    }
    save_head(path, tensors, {**meta, **own})


def load_mhpf(path: Path) -> MHPF:
    """Read a fusion that `save_mhpf` wrote.

    Raises:
        CerError: the file is missing, damaged, or holds another kind of head.
    """
    tensors, meta = load_head(path)
    if meta.get("kind") != KIND or "known" not in meta:
        raise CerError("not a trained fusion", str(path), "train one with `cer train mhpf`")
    own: dict[str, Any] = {n: tuple(meta[n]) for n in ("branches", "classes", "known")}
    own |= {n: meta[n] for n in ("method", "sharpness", "stiffness")}
    own |= {n: tensors[n].astype(np.float64) for n in TENSORS}
    return MHPF(**own)
