"""Zero-shot heads in sentence space: how near is a text to sentences that stand for each emotion?

Belongs here: the two heads that need no training, in plain numpy. Does not belong here: the sentences (the profile),
the encoder (`minilm`), tables (`sentences`) or trained heads (`heads`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.labels import BASIC

OTHER = BASIC.index("Other")


class PromptHead:
    """Similarity to several sentences per emotion, centred, as a mild distribution.

    The score of emotion l for a text x is x.c_l - b_l. c_l is the mean of the emotion's sentences, scaled to length 1.
    b_l is the mean of c_k.c_l over the seven emotions k: some centroids are near to everything, and without this they
    would be favoured before any text is read; with it every emotion has mean score 0 over the seven centroids. Then
    the mean over the emotions is taken off, which only moves all scores of a text together.

    "Other" has no sentences, as it names no appearance: its score is 0, the mean of the others, so it gets the share
    of an emotion that the text speaks neither for nor against.

    Args:
        sentences: for each label of `BASIC` but "Other", in that order: [n, 384] encoded sentences.
        temperature: what scores are divided by before the softmax.
    """

    def __init__(self, sentences: Sequence[NDArray[np.floating]], temperature: float) -> None:
        if len(sentences) != OTHER:
            raise ValueError(f"{len(sentences)} sets of sentences for {OTHER} emotions")
        means = np.stack([np.asarray(s, dtype=np.float64).mean(0) for s in sentences])
        self.centroids = means / np.linalg.norm(means, axis=1, keepdims=True)
        self.bias = (self.centroids @ self.centroids.T).mean(0)
        self.temperature = temperature

    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """[384] of length 1 -> [8] in the order of `BASIC`."""
        scores = self.centroids @ features.astype(np.float64) - self.bias
        return softmax(np.append(scores - scores.mean(), 0.0) / self.temperature)


class LabelHead:
    """Cosine to one text per label, softmax with a temperature: the paper's scene-label match (section 3.2).

    The published code takes the softmax over 15 texts without a temperature, which is all but uniform, and sums a part
    of it; here the eight basic labels alone.

    Args:
        labels: [8, 384] encoded label texts in the order of `BASIC`.
        temperature: what cosines are divided by before the softmax.
    """

    def __init__(self, labels: NDArray[np.floating], temperature: float) -> None:
        self.labels = np.asarray(labels, dtype=np.float64)
        self.temperature = temperature

    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """[384] of length 1 -> [8] in the order of `BASIC`."""
        return softmax(self.labels @ features.astype(np.float64) / self.temperature)


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax of a vector."""
    values = np.exp(scores - scores.max())
    return values / values.sum()


def sentences_of(section: Mapping[str, Sequence[str]]) -> list[Sequence[str]]:
    """The sentences of each label of `BASIC` but "Other", in that order, from a section of the profile."""
    return [section[label.lower()] for label in BASIC[:OTHER]]
