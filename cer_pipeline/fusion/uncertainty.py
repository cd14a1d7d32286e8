"""Uncertainty of a distribution: share of expression, confidence, entropy, and agreement of the branches.

Belongs here: pure functions over arrays. Does not belong here: tables (`fuse`, `predictions.map_compounds`,
`predictions.predict_frames`) or the rule for what is shown (`compound.clear`).

All four measures lie between 0 and 1; a row with a NaN gives NaN.

* expressed: 1 - p(Neutral) - p(Other) of a distribution over the basic emotions. PPA normalises without these two
  classes, so a distribution over compounds is meaningful only beside it.
* confidence: the largest probability less the second largest, the margin of Scheffer et al. (2001), "Active hidden
  Markov models for information extraction". 0 is a tie.
* entropy: Shannon entropy divided by its maximum log C. 0: one class has probability 1; 1: uniform over the C classes.
* agreement: 1 - JSD / H(s), with the shares s_m = sum_c w_mc p_mc of the branches in the fused value (they sum to 1)
  and JSD = H(sum_m s_m p_m) - sum_m s_m H(p_m), the generalised Jensen-Shannon divergence of Lin (1991), "Divergence
  measures based on the Shannon entropy". H(s) bounds it. 1: all branches give the same distribution; 0: no two branches
  give probability to the same class. Entropy and agreement distinguish two cases: all branches are uncertain (high,
  high), and the branches contradict each other (high, low). With fewer than two weighted branches it is NaN.

Sums over classes and branches are loops in fixed order, so that a row does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cer_pipeline.fusion.combine import Array, ordered_sum
from cer_pipeline.labels import BASIC

NEUTRAL, OTHER = BASIC.index("Neutral"), BASIC.index("Other")


def expressed(basic: Array) -> Array:
    """Probability of the six expressions together.

    Args:
        basic: distributions over `labels.BASIC` [..., 8].

    Returns:
        [...], 0..1.
    """
    return np.clip(1.0 - basic[..., NEUTRAL] - basic[..., OTHER], 0.0, 1.0)


def confidence(probabilities: Array) -> Array:
    """Margin between the two largest probabilities.

    Args:
        probabilities: distributions [..., C] over at least two classes.

    Returns:
        [...], 0..1.
    """
    ascending = np.sort(probabilities, axis=-1)
    return np.where(np.isnan(probabilities).any(axis=-1), np.nan, ascending[..., -1] - ascending[..., -2])


def entropy(probabilities: Array) -> Array:
    """Shannon entropy, divided by log C.

    Args:
        probabilities: distributions [..., C] over at least two classes.

    Returns:
        [...], 0..1.
    """
    return np.clip(_nats(probabilities) / np.log(probabilities.shape[-1]), 0.0, 1.0)


def agreement(weights: Array, probabilities: Array) -> Array:
    """Agreement of the branches of fused values.

    Args:
        weights: effective weights [n, M, C] of `combine.combine`; 0 at absent branches.
        probabilities: distributions [n, M, C]; values of absent branches are not read.

    Returns:
        [n], 0..1; NaN where fewer than two branches have a weight.
    """
    known = np.where(weights.any(axis=-1, keepdims=True), probabilities, 0.0)
    shares = ordered_sum(weights * known, -1)
    return agreement_of((shares[:, m], known[:, m]) for m in range(weights.shape[1]))


def agreement_of(parts: Iterable[tuple[Array, Array]]) -> Array:
    """`agreement` from one branch at a time, so that only the distributions of one branch lie in memory.

    Args:
        parts: per branch its share of the fused value [n], 0 where it is absent, and its distributions [n, C].

    Returns:
        [n], 0..1; NaN where fewer than two branches have a share.
    """
    mixture: Array | None = None
    inside = bound = count = np.zeros(0)
    for share, probabilities in parts:
        if mixture is None:
            mixture = np.zeros_like(probabilities)
            inside, bound, count = (np.zeros(len(probabilities)) for _ in range(3))
        mixture = mixture + share[:, None] * probabilities
        inside = inside + share * _nats(probabilities)
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
