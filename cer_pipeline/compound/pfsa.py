"""Pair-Wise Feature Similarity Aggregation (PFSA): similarity of features to the mean prototype of two emotions.

Belongs here: prototypes and similarities, as pure functions. Does not belong here: the choice of features and of the
temperature (`prototypes`, training).

Source: section 3.7 of the paper; its reference code does not contain PFSA. The paper does not say whether features are
normalised before averaging: here they are not.
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
    """Mean feature vector of the correctly classified samples of every basic emotion that is part of a compound.

    Args:
        features: [n, d].
        labels: true class of each sample, index into BASIC [n].
        predicted: predicted class [n].

    Returns:
        Prototypes [8, d]; NaN for Neutral and Other, which are part of no compound.

    Raises:
        CerError: no sample of a class is classified correctly.
    """
    emotions = {i for pair in PAIRS for i in pair}
    out = np.full((len(BASIC), features.shape[1]), np.nan)
    for i in sorted(emotions):
        correct = (labels == i) & (predicted == i)
        if not correct.any():
            raise CerError("no correctly classified sample for a prototype of", BASIC[i], "use more validation data")
        out[i] = features[correct].mean(axis=0)
    return out


def compound_prototypes(basic: Array) -> Array:
    """L2-normalised mean of the two basic prototypes of every compound.

    Args:
        basic: [8, d].

    Returns:
        Unit vectors [7, d].
    """
    means = np.stack([(basic[i] + basic[j]) / 2.0 for i, j in PAIRS])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def pfsa(features: Array, prototypes: Array, temperature: float) -> Array:
    """Softmax with temperature over the cosine similarities to the compound prototypes.

    Args:
        features: [n, d]; a zero vector has similarity 0 to all.
        prototypes: unit vectors [7, d].
        temperature: above 0.

    Returns:
        Distributions [n, 7].
    """
    if not temperature > 0.0:
        raise CerError("the temperature must be above 0", str(temperature))
    scores = np.empty((len(features), len(prototypes)))
    norms = np.sqrt(np.einsum("nd,nd->n", features, features))
    for k, prototype in enumerate(prototypes):  # one product per prototype and row: a row does not depend on its batch
        scores[:, k] = (features * prototype).sum(axis=1) / np.where(norms > 0.0, norms, 1.0)
    return softmax((scores - scores.max(axis=1, keepdims=True)) / temperature, axis=1)
