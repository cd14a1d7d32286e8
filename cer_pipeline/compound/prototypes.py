"""Train PFSA: prototypes and their temperature, from the out-of-fold predictions of a training split.

Belongs here: the training of PFSA. Does not belong here: the mapping itself (`compound.pfsa`).

There are no compound labels, so the temperature is chosen on basic ones: a softmax over the similarities to the
prototypes of the six basic emotions, with the least mean cross-entropy on folds whose videos are not in the prototypes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from cer_pipeline.compound.pfsa import basic_prototypes, compound_prototypes
from cer_pipeline.compound.ppa import PAIRS
from cer_pipeline.training.folds import Fold

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EMOTIONS: Final = tuple(sorted({i for pair in PAIRS for i in pair}))
"""Indices into BASIC of the emotions that are part of a compound: all but Neutral and Other."""

TEMPERATURES: Final = tuple(float(round(t, 4)) for t in np.geomspace(0.02, 2, 41))


def similarities(features: Floats, prototypes: Floats) -> Floats:
    """Cosine similarities [n, k] of features [n, d] to prototypes [k, d]; 0 where a vector is 0."""
    lengths = np.outer(np.linalg.norm(features, axis=1), np.linalg.norm(prototypes, axis=1))
    products = features @ prototypes.T
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)


def train_prototypes(features: Floats, labels: Ints, predicted: Ints, folds: Sequence[Fold]) -> tuple[Floats, float]:
    """Compound prototypes from all correctly classified rows, and the temperature chosen on folds.

    Args:
        features: [n, d].
        labels: class of each row, index into BASIC [n].
        predicted: class that a head predicts for each row out of fold [n].
        folds: grouped folds over the rows.

    Returns:
        Unit vectors [7, d], and the temperature.

    Raises:
        CerError: no row of a class is classified correctly, in all rows or in the training rows of a fold.
    """
    losses = np.zeros(len(TEMPERATURES))
    for fold in folds:
        basic = basic_prototypes(features[fold.train], labels[fold.train], predicted[fold.train])[list(EMOTIONS)]
        rows = fold.test[np.isin(labels[fold.test], EMOTIONS)]
        truth = np.searchsorted(EMOTIONS, labels[rows])
        cosines = similarities(features[rows], basic)
        for k, temperature in enumerate(TEMPERATURES):
            losses[k] -= log_softmax(cosines / temperature, axis=1)[np.arange(len(truth)), truth].sum()
    prototypes = compound_prototypes(basic_prototypes(features, labels, predicted))
    return prototypes, TEMPERATURES[int(losses.argmin())]
