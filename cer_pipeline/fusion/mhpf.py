"""Multi-Head Probability Fusion (MHPF) in inference: trained parameters, and the weights that they give.

Belongs here: both forms of MHPF with numpy in float64, and their file. Does not belong here: training
(`fusion.train.fit`) or the weighted sum itself (`combine`).

Both forms give weights that are convex over the present branches, for every unit, head and class. Heads are mixed with
coefficients alpha = softmax(a), so the mixture is convex too. An absent branch is masked before the softmax, so each of
the 2^M - 1 subsets of branches gives a distribution.

* static (section 3.6 of the paper, as its published code does it): weights w[h, m, c] = softmax over m of W[h, m, c],
  whatever the input. With all branches present, H heads equal one convex M x C matrix.
* dynamic (as section 3.6 describes it): the weights depend on the probabilities and the confidence of every branch.
  Every head maps the inputs z of all present branches to a gate target,
  r[h, c] = softmax over c of s sum_mk V[h, c, m, k] z[m, k],
  and gives, class by class, more weight to branches whose probability lies near the target:
  w[h, m, c] = softmax over m of -k ((p[m, c] - r[h, c]) / (range[c] + EPSILON))^2,
  with range[c] the largest p[m, c] of the present branches less the smallest, s the sharpness and k the stiffness.
  The target only changes weights: no fused value leaves the range of the probabilities of the branches.

Gate inputs z of a branch with the distribution p: p, log(p + EPSILON) less its mean over the classes, the entropy of p,
max p, each standardised over the training set, and 1 for a present branch.

A class without a training unit has no gate target: the present branches share its weight equally.
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
"""Added to a probability before its logarithm, and to a range of probabilities: finer differences are noise."""


@dataclass(frozen=True)
class MHPF:
    """A trained fusion of M branches over C classes.

    Args:
        method: static or dynamic.
        branches: names [M].
        classes: labels [C].
        known: whether a class had a training unit [C].
        scores: W [H, M, C]; empty for dynamic.
        mix: a [H].
        maps: V [H, C, M, K]; empty for static.
        mean: mean of the gate inputs over the training set [M, K - 1]; empty for static.
        scale: standard deviation of the gate inputs [M, K - 1]; empty for static.
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
            probabilities: [n, M, C]; values of absent branches are not read.
            present: [n, M]; at least one present branch per unit.

        Returns:
            [n, M, C], convex over the present branches.
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
        """Weights of branches that are given by name, in any order and number.

        A branch of this fusion that is not given counts as absent; a branch that it was not trained with gets 0.

        Args:
            branches: names [B].
            probabilities: [n, B, C]; values of absent branches are not read.
            present: [n, B]; per unit at least one present branch that this fusion was trained with.

        Returns:
            [n, B, C].
        """
        given = [i for i, b in enumerate(branches) if b in self.branches]
        places = [self.branches.index(branches[i]) for i in given]
        values = np.full((len(present), len(self.branches), len(self.classes)), np.nan)
        mask = np.zeros(values.shape[:2], dtype=bool)
        values[:, places], mask[:, places] = probabilities[:, given], present[:, given]
        weights = np.zeros(probabilities.shape)
        weights[:, given] = self.weights(values, mask)[:, places]
        return weights

    def fuse(self, probabilities: Array, present: Mask) -> tuple[Array, Array]:
        """Fused distributions [n, C] and the effective weights [n, M, C]; see `combine.combine`."""
        return combine(self.weights(probabilities, present), probabilities, present)

    def gate_targets(self, probabilities: Array, present: Mask) -> Array:
        """The gate target r [n, H, C] of every head of a dynamic fusion; 0 for classes without a training unit."""
        z = standardised(probabilities, present, self.mean, self.scale)
        logits = np.zeros((len(z), *self.maps.shape[:2]))
        for m in range(z.shape[1]):  # in fixed order, so that a row does not depend on its batch
            for k in range(z.shape[2]):
                logits += z[:, m, k, None, None] * self.maps[:, :, m, k]
        logits = np.where(self.known, self.sharpness * logits, -np.inf)
        raw = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return raw / ordered_sum(raw, -1)[..., None]

    def _scores(self, probabilities: Array, present: Mask) -> Array:
        """Scores before the softmax over branches [n, H, M, C]; those of absent branches are masked later."""
        mask = present[..., None]
        top = np.where(mask, probabilities, -np.inf).max(axis=1)
        span = top - np.where(mask, probabilities, np.inf).min(axis=1) + EPSILON
        known = np.where(mask, probabilities, 0.0)
        distance = known[:, None] - self.gate_targets(probabilities, present)[:, :, None, :]
        return -self.stiffness * (distance / span[:, None, None, :]) ** 2


def gate_inputs(probabilities: Array) -> Array:
    """Inputs of the gate of the dynamic form, before standardisation.

    Args:
        probabilities: [n, M, C] distributions.

    Returns:
        [n, M, 2 C + 2]: p, centred log p, entropy (nats), max p.
    """
    classes = probabilities.shape[-1]
    logs = np.log(probabilities + EPSILON)
    centred = logs - (ordered_sum(logs, -1) / classes)[..., None]
    positive = np.where(probabilities > 0.0, probabilities, 1.0)
    entropy = -ordered_sum(probabilities * np.log(positive), -1)[..., None]
    return np.concatenate([probabilities, centred, entropy, probabilities.max(axis=-1, keepdims=True)], axis=-1)


def standardised(probabilities: Array, present: Mask, mean: Array, scale: Array) -> Array:
    """Standardised gate inputs, followed by 1 for a present branch; all 0 for an absent branch.

    Args:
        probabilities: [n, M, C]; values of absent branches are not read.
        present: [n, M].
        mean: [M, 2 C + 2].
        scale: [M, 2 C + 2].

    Returns:
        z [n, M, 2 C + 3].
    """
    mask = present[..., None]
    raw = gate_inputs(np.where(mask, probabilities, 1.0 / probabilities.shape[-1]))
    return np.where(mask, np.concatenate([(raw - mean) / scale, np.ones((*present.shape, 1))], axis=2), 0.0)


def save_mhpf(path: Path, fusion: MHPF, meta: dict[str, Any]) -> None:
    """Write a fusion as a head.

    Args:
        path: file to write.
        fusion: its tensors keep float64, so that a fusion that is read back gives the same bits.
        meta: further entries of the header: data, protocol, scores.
    """
    tensors = {n: getattr(fusion, n) for n in TENSORS}
    header: dict[str, Any] = {
        "kind": KIND,
        "method": fusion.method,
        "branches": list(fusion.branches),
        "classes": list(fusion.classes),
        "known": list(fusion.known),
        "sharpness": fusion.sharpness,
        "stiffness": fusion.stiffness,
    }
    save_head(path, tensors, {**meta, **header})


def load_mhpf(path: Path) -> MHPF:
    """Read a fusion that `save_mhpf` wrote.

    Raises:
        CerError: the file is missing, damaged, or holds another kind of head.
    """
    tensors, meta = load_head(path)
    if meta.get("kind") != KIND or "known" not in meta:
        raise CerError("not a trained fusion", str(path), "train one with `cer train mhpf`")
    fields: dict[str, Any] = {n: tuple(meta[n]) for n in ("branches", "classes", "known")}
    fields |= {n: meta[n] for n in ("method", "sharpness", "stiffness")}
    fields |= {n: tensors[n].astype(np.float64) for n in TENSORS}
    return MHPF(**fields)
