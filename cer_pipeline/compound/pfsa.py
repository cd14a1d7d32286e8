"""Pair-Wise Feature Similarity Aggregation: a compound lies where the features of its two emotions meet.

Belongs here: prototypes and similarities, as pure functions. Does not belong here: which features, and the choice of
the temperature (both belong to training).

Source: section 3.7 of the paper; the published repository holds no code for it. The paper leaves open whether features
are normalised before averaging: here they are not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from cer_pipeline.compound.ppa import PAIRS
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC

Array = NDArray[np.float64]


def basic_prototypes(features: Array, labels: NDArray[np.int64], predicted: NDArray[np.int64]) -> Array:
    """The mean feature vector of the correctly classified samples of every basic emotion that a compound needs.

    Args:
        features: [n, d].
        labels: true class of each sample, position in BASIC [n].
        predicted: predicted class [n].

    Returns:
        Prototypes [8, d]; NaN for Neutral and Other, which make no compound.

    Raises:
        CerError: no sample of a needed class is classified correctly.
    """
    needed = {i for pair in PAIRS for i in pair}
    out = np.full((len(BASIC), features.shape[1]), np.nan)
    for i in sorted(needed):
        right = (labels == i) & (predicted == i)
        if not right.any():
            raise CerError(
                "no correctly classified sample to make a prototype of", BASIC[i], "use more validation data"
            )
        out[i] = features[right].mean(axis=0)
    return out


def compound_prototypes(basic: Array) -> Array:
    """The L2-normalised mean of the two basic prototypes of every compound.

    Args:
        basic: [8, d].

    Returns:
        Unit vectors [7, d].
    """
    means = np.stack([(basic[i] + basic[j]) / 2.0 for i, j in PAIRS])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def pfsa(features: Array, prototypes: Array, temperature: float) -> Array:
    """Cosine similarity to every compound prototype, through a softmax with temperature.

    Args:
        features: [n, d]; a zero vector is equally far from everything.
        prototypes: unit vectors [7, d].
        temperature: above 0; the smaller, the sharper.

    Returns:
        Distributions [n, 7].
    """
    if not temperature > 0.0:
        raise CerError("the temperature must be above 0", str(temperature))
    scores = np.empty((len(features), len(prototypes)))
    norms = np.sqrt(np.einsum("nd,nd->n", features, features))
    for k, prototype in enumerate(prototypes):  # one product per prototype and row: independent of the batch
        scores[:, k] = (features * prototype).sum(axis=1) / np.where(norms > 0.0, norms, 1.0)
    return softmax((scores - scores.max(axis=1, keepdims=True)) / temperature, axis=1)
