"""Convex combination of branches, with weights that reproduce the fused value exactly.

Belongs here: masks, weights and the weighted sum, with numpy in float64. Does not belong here: trained weights (`mhpf`)
or tables (`fuse`).

Shapes: n units, M branches, C classes. Sums over branches and classes are loops in fixed order: numpy may sum an axis
in another order when the batch has another shape, and a row must not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SPREAD: Final = 30.0
"""Scores are clipped to at most this far below the largest score of a present branch. Every present branch then keeps a
weight above 1e-13, and the sum over classes stays above 0."""


def ordered_sum(values: Array, axis: int) -> Array:
    """Sum along an axis from the first to the last entry, whatever the shape of the other axes."""
    parts = np.moveaxis(values, axis, 0)
    total = np.zeros(parts.shape[1:])
    for part in parts:
        total = total + part
    return total


def masked_softmax(scores: Array, present: Mask) -> Array:
    """Softmax over the present branches; absent branches get weight 0.

    Args:
        scores: [..., M, C], finite.
        present: [..., M], broadcast against the scores; at least one present branch per unit.

    Returns:
        Weights [..., M, C], convex over M for every class.
    """
    mask = np.broadcast_to(present[..., None], np.broadcast_shapes(scores.shape, (*present.shape, 1)))
    top = np.max(np.where(mask, scores, -np.inf), axis=-2, keepdims=True)
    raw = np.where(mask, np.exp(np.clip(scores - top, -SPREAD, 0.0)), 0.0)
    return raw / ordered_sum(raw, -2)[..., None, :]


def equal_weights(present: Mask, classes: int, modalities: Sequence[str] | None = None) -> Array:
    """Equal weights of the present modalities, each divided equally among its present branches.

    Args:
        present: [n, M].
        classes: C.
        modalities: modality of every branch [M]; by default every branch has a modality of its own.

    Returns:
        Weights [n, M, C].
    """
    names = list(modalities) if modalities is not None else list(range(present.shape[1]))
    same = np.array([[float(a == b) for b in names] for a in names])
    sharing = ordered_sum(same * present[:, None, :], -1)  # present branches of the modality of each branch
    scores = -np.log(np.maximum(sharing, 1.0))
    return masked_softmax(np.broadcast_to(scores[..., None], (*present.shape, classes)), present)


def combine(weights: Array, probabilities: Array, present: Mask) -> tuple[Array, Array]:
    """Weighted sum over branches, normalised over classes.

    y_c = sum_m w_mc p_mc does not sum to 1 when weights differ between classes. The weights are therefore divided by
    Y = sum_c y_c, so that the fused probability is the sum over branches of weight x probability, to the last bit. The
    effective weights of one class sum to 1/Y over the branches, which is 1 where all classes share their weights.

    Args:
        weights: [n, M, C], convex over the present branches.
        probabilities: [n, M, C]; values of absent branches are not read.
        present: [n, M]; at least one present branch per unit.

    Returns:
        Fused probabilities [n, C], and effective weights [n, M, C], 0 at absent branches.
    """
    mask = present[..., None]
    known = np.where(mask, probabilities, 0.0)
    masked = np.where(mask, weights, 0.0)
    scale = ordered_sum(ordered_sum(masked * known, -2), -1)
    effective = masked / scale[..., None, None]
    return ordered_sum(effective * known, -2), effective
