"""Pair-Wise Probability Aggregation (PPA): a compound scores the sum of the probabilities of its two emotions.

Belongs here: the mapping and its linear factors. Does not belong here: tables (`predictions.map_compounds`) or features
(`pfsa`).

Source: section 3.7 of "Team RAS in 9th ABAW Competition: Multimodal Compound Expression Recognition Approach"; its
reference code scores a compound by p_i + p_j, without weights, without Neutral and Other.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.labels import BASIC, COMPOUND_PAIRS

Array = NDArray[np.float64]

PAIRS: Final[tuple[tuple[int, int], ...]] = tuple((BASIC.index(a), BASIC.index(b)) for a, b in COMPOUND_PAIRS)
"""Indices into BASIC of the two emotions of every compound."""


def ppa_scores(basic: Array) -> Array:
    """Scores p_i + p_j of the reference code.

    Args:
        basic: distributions over the 8 basic emotions [..., 8].

    Returns:
        Scores [..., 7], 0..1, which do not sum to 1.
    """
    return np.stack([basic[..., i] + basic[..., j] for i, j in PAIRS], axis=-1)


def ppa(basic: Array) -> Array:
    """Scores normalised to a distribution over the 7 compounds.

    Where all scores are 0, because Neutral and Other have all of the probability, every compound gets 1/7.

    Args:
        basic: distributions over the 8 basic emotions [..., 8].

    Returns:
        Distributions [..., 7].
    """
    scores = ppa_scores(basic)
    total = np.zeros(scores.shape[:-1])
    for k in range(scores.shape[-1]):  # in fixed order, so that a row does not depend on its batch
        total = total + scores[..., k]
    empty = total <= 0.0
    uniform = np.full_like(scores, 1.0 / scores.shape[-1])
    return np.where(empty[..., None], uniform, scores / np.where(empty, 1.0, total)[..., None])


def ppa_parts(basic: Array) -> Array:
    """Linear factors of PPA for one distribution.

    Args:
        basic: distribution over the 8 basic emotions [8].

    Returns:
        Factors g [7, 8] such that `ppa(basic)[k]` is the sum over b of g[k, b] x basic[b].
    """
    factors = np.zeros((len(PAIRS), len(BASIC)))
    for k, (i, j) in enumerate(PAIRS):
        factors[k, [i, j]] = 1.0
    total = float((factors @ basic).sum())
    # Where Neutral and Other have all of the probability, it is divided equally among the compounds.
    return factors / total if total > 0.0 else np.full_like(factors, 1.0 / len(PAIRS))
