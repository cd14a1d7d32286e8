"""Zero-shot heads in sentence space: how near is a text to sentences that stand for each emotion?

Belongs here: the two heads that need no training, in plain numpy. Does not belong here: the sentences (the profile),
the encoder (`minilm`), tables (`stages`) or trained heads (`heads`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from cer_pipeline.labels import BASIC

OTHER = BASIC.index("Other")


class ZeroShotHead:
    """Likeness to the nearest of several sentences per emotion, centred, as a mild distribution.

    The score of emotion l for a text x is s_l(x) - b_l, where s_l(x) is the cosine to the nearest of the emotion's
    sentences: they tell different appearances of it (a bowed head, pulled-down lip corners), and a text shows one of
    them, not their mean. b_l is the mean of s_l over the seven emotions' own mean vectors: some sentences are near to
    everything, and without this their emotion would be favoured before any text is read. Then the mean over the
    emotions is taken off, which only moves all scores of a text together.

    "Other" has no sentences, as it names no appearance: its score is 0, the mean of the others, so it gets the share
    of an emotion that the text speaks neither for nor against, and is never the likeliest.

    Args:
        sentences: for each label of `BASIC` but "Other", in that order: [n, 384] encoded sentences of length 1.
        temperature: what scores are divided by before the softmax.
    """

    def __init__(self, sentences: Sequence[NDArray[np.floating]], temperature: float) -> None:
        if len(sentences) != OTHER:
            raise ValueError(f"{len(sentences)} sets of sentences for {OTHER} emotions")
        self.sentences = [np.asarray(s, dtype=np.float64) for s in sentences]
        self.temperature = temperature
        means = [s.mean(0) for s in self.sentences]
        self.bias = np.mean([self._nearest(mean / np.linalg.norm(mean)) for mean in means], axis=0)

    def _nearest(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """[384] -> [7]: cosine to the nearest sentence of each emotion."""
        return np.array([(s @ vector).max() for s in self.sentences])

    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """[384] of length 1 -> [8] in the order of `BASIC`."""
        scores = self._nearest(features.astype(np.float64)) - self.bias
        return softmax(np.append(scores - scores.mean(), 0.0) / self.temperature)


class LabelHead:
    """Cosine to one text per label, softmax with a temperature: the paper's scene-label match (section 3.2).

    The published code takes the softmax over 15 texts without a temperature, which is all but uniform, and sums a part
    of it; here the eight basic labels alone. From each cosine the label's mean cosine to texts without content is taken
    off, so that no label wins before any text is read (Zhao et al. 2021, "Calibrate before use", section 5, on
    scores instead of probabilities).

    Args:
        labels: [8, 384] encoded label texts in the order of `BASIC`.
        content_free: [n, 384] encoded texts that speak for no label.
        temperature: what scores are divided by before the softmax.
    """

    def __init__(self, labels: NDArray[np.floating], content_free: NDArray[np.floating], temperature: float) -> None:
        if len(labels) != len(BASIC):
            raise ValueError(f"{len(labels)} label texts for {len(BASIC)} labels")
        self.labels = np.asarray(labels, dtype=np.float64)
        self.bias = (self.labels @ np.asarray(content_free, dtype=np.float64).T).mean(1)
        self.temperature = temperature

    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """[384] of length 1 -> [8] in the order of `BASIC`."""
        return softmax((self.labels @ features.astype(np.float64) - self.bias) / self.temperature)


def sentences_of(section: Mapping[str, Sequence[str]]) -> list[Sequence[str]]:
    """The sentences of each label of `BASIC` but "Other", in that order, from a section of the profile."""
    return [section[label.lower()] for label in BASIC[:OTHER]]
