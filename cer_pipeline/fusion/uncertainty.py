"""How much is expressed, how sure a distribution is, and how far the branches behind it agree.

Belongs here: pure functions over arrays. Does not belong here: tables (`fuse`, `predictions.map_compounds`,
`predictions.predict_frames`) or which values are shown to people (`compound.clear`).

All four are shares between 0 and 1; a row that holds NaN gives NaN.

* expressed: 1 - p(Neutral) - p(Other) of a distribution over the basic emotions. PPA divides these two away, so a
  distribution over compounds says nothing without it.
* confidence: the largest probability less the second largest, the margin of Scheffer et al. (2001), "Active hidden
  Markov models for information extraction". 0 is a tie.
* entropy: Shannon entropy over its largest value log C. 0 has one certain class, 1 is uniform over the C classes.
* agreement: 1 - JSD / H(s), with the shares s_m = sum_c w_mc p_mc of the branches in the fused value (they sum to 1)
  and JSD = H(sum_m s_m p_m) - sum_m s_m H(p_m), the generalised Jensen-Shannon divergence of Lin (1991), "Divergence
  measures based on the Shannon entropy". H(s) bounds it. 1: all branches give one and the same distribution; 0: no two
  branches give any class in common. Entropy and agreement tell two cases apart: all branches are unsure (high, high),
  and the branches contradict each other (high, low). Fewer than two branches with a weight cannot agree: NaN.

Sums over classes and branches are loops in fixed order, so that a row does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cer_pipeline.fusion.combine import Array, ordered_sum
from cer_pipeline.labels import BASIC

NEUTRAL, OTHER = BASIC.index("Neutral"), BASIC.index("Other")


def expressed(basic: Array) -> Array:
    """Share of a distribution that lies on the six expressions.

    Args:
        basic: distributions over `labels.BASIC` [..., 8].

    Returns:
        [...], 0..1.
    """
    return np.clip(1.0 - basic[..., NEUTRAL] - basic[..., OTHER], 0.0, 1.0)


def confidence(probabilities: Array) -> Array:
    """Margin of the first class over the second.

    Args:
        probabilities: distributions [..., C] over at least two classes.

    Returns:
        [...], 0..1.
    """
    order = np.sort(probabilities, axis=-1)
    return np.where(np.isnan(probabilities).any(axis=-1), np.nan, order[..., -1] - order[..., -2])


def entropy(probabilities: Array) -> Array:
    """Shannon entropy, divided by log C.

    Args:
        probabilities: distributions [..., C] over at least two classes.

    Returns:
        [...], 0..1.
    """
    return np.clip(_nats(probabilities) / np.log(probabilities.shape[-1]), 0.0, 1.0)


def agreement(weights: Array, probabilities: Array) -> Array:
    """How far the branches behind fused values agree.

    Args:
        weights: effective weights [n, M, C] as `combine.combine` gives them; 0 at absent branches.
        probabilities: distributions [n, M, C]; what stands at absent branches is not read.

    Returns:
        [n], 0..1; NaN where fewer than two branches have a weight.
    """
    seen = weights.any(axis=-1, keepdims=True)
    known = np.where(seen, probabilities, 0.0)
    shares = ordered_sum(weights * known, -1)
    return agreement_of((shares[:, m], known[:, m]) for m in range(weights.shape[1]))


def agreement_of(parts: Iterable[tuple[Array, Array]]) -> Array:
    """`agreement`, branch by branch, so that the distributions of all branches need not lie in memory together.

    Args:
        parts: for every branch its share in the fused value [n], 0 where it is absent, and its distributions [n, C].

    Returns:
        [n], 0..1; NaN where fewer than two branches have a share.
    """
    mixture: Array | None = None
    inside = bound = count = np.zeros(0)
    for share, says in parts:
        if mixture is None:
            mixture = np.zeros_like(says)
            inside, bound, count = (np.zeros(len(says)) for _ in range(3))
        mixture = mixture + share[:, None] * says
        inside = inside + share * _nats(says)
        bound = bound + _nats(share[:, None])
        count = count + (share > 0.0)
    if mixture is None:
        return inside
    several = count > 1
    divergence = _nats(mixture) - inside
    return np.where(several, np.clip(1.0 - divergence / np.where(several, bound, 1.0), 0.0, 1.0), np.nan)


def _nats(values: Array) -> Array:
    """-sum v log v over the last axis, with 0 log 0 = 0."""
    positive = np.ascontiguousarray(np.where(values > 0.0, values, 1.0))
    return -ordered_sum(values * np.log(positive), -1)
