"""Convex combination of branches, with weights that reproduce the fused value exactly.

Belongs here: masks, weights, the weighted sum; numpy only, in float64. Does not belong here: where weights come from
(`mhpf`) or tables (`fuse`).

Shapes: n units, M branches, C classes. Sums over branches and classes are loops in fixed order, because numpy may sum
an axis in another order when the batch has another shape, and a row must not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SPREAD: Final = 30.0
"""Scores are taken as at most this far below the largest one present, so that every branch that is present keeps a
weight above 1e-13 and the class sum stays above 0."""


def ordered_sum(values: Array, axis: int) -> Array:
    """Sum along an axis, first to last, whatever the other axes are."""
    parts = np.moveaxis(values, axis, 0)
    total = np.zeros(parts.shape[1:])
    for part in parts:
        total = total + part
    return total


def masked_softmax(scores: Array, present: Mask) -> Array:
    """Softmax over the branches that are present; the others are masked before it and get weight 0.

    Args:
        scores: [..., M, C], any finite values.
        present: [..., M], broadcast against the scores; at least one branch in every unit.

    Returns:
        Weights [..., M, C], convex over M for every class.
    """
    seen = np.broadcast_to(present[..., None], np.broadcast_shapes(scores.shape, (*present.shape, 1)))
    top = np.max(np.where(seen, scores, -np.inf), axis=-2, keepdims=True)
    raw = np.where(seen, np.exp(np.clip(scores - top, -SPREAD, 0.0)), 0.0)
    return raw / ordered_sum(raw, -2)[..., None, :]


def equal_weights(present: Mask, classes: int, modalities: Sequence[str] | None = None) -> Array:
    """The same weight for every modality that is present, in equal parts on its branches that are present.

    Args:
        present: [n, M].
        classes: C.
        modalities: the modality of every branch [M]; each branch is one of its own unless given.

    Returns:
        Weights [n, M, C].
    """
    of = list(modalities) if modalities is not None else list(range(present.shape[1]))
    same = np.array([[float(a == b) for b in of] for a in of])
    sharing = ordered_sum(same * present[:, None, :], -1)  # branches that are there, of each branch's modality
    scores = -np.log(np.maximum(sharing, 1.0))
    return masked_softmax(np.broadcast_to(scores[..., None], (*present.shape, classes)), present)


def combine(weights: Array, probabilities: Array, present: Mask) -> tuple[Array, Array]:
    """Fuse: the weighted sum over branches, normalised over classes.

    y_c = sum_m w_mc p_mc need not sum to 1 when weights differ between classes. The weights are divided by
    Y = sum_c y_c, so that the fused probability is the sum over branches of weight x probability, to the last bit. The
    reported weights of one class therefore sum to 1/Y over the branches, which is 1 where all classes share weights.

    Args:
        weights: [n, M, C], convex over the branches that are present.
        probabilities: [n, M, C]; what stands at absent branches (NaN as a rule) is not read.
        present: [n, M]; at least one branch in every unit.

    Returns:
        Fused probabilities [n, C], and effective weights [n, M, C], 0 at absent branches.
    """
    seen = present[..., None]
    known = np.where(seen, probabilities, 0.0)
    masked = np.where(seen, weights, 0.0)
    scale = ordered_sum(ordered_sum(masked * known, -2), -1)
    effective = masked / scale[..., None, None]
    return ordered_sum(effective * known, -2), effective
