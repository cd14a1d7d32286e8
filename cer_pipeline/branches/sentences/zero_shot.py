"""Zero-shot heads: cosine of a text to sentences, or to label texts, that stand for each emotion.

Belongs here: the two heads that need no training, in plain numpy, and the sentences of a section of the profile as a
head. Does not belong here: the sentences themselves (the profile), the encoder (`minilm`), tables (`stages`) or trained
heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from cer_pipeline.branches.sentences.minilm import ZOO_ID, MiniLM
from cer_pipeline.labels import BASIC
from cer_pipeline.stage import StageContext

OTHER: Final = BASIC.index("Other")
MODEL: Final = "prompts"  # value of the column `model` of rows by `ZeroShotHead`


class ZeroShotHead:
    """Softmax over the centred cosines to the nearest of several sentences per emotion.

    The score of emotion l for a text x is s_l(x) - b_l. s_l(x) is the cosine to the nearest sentence of the emotion,
    not to their mean: the sentences describe different appearances of the emotion (a bowed head, pulled-down lip
    corners), and a text shows one of them. b_l is the mean of s_l over the mean vectors of the seven emotions: some
    sentences are near to every text, and without b_l their emotion would be favoured for any text. Then the mean over
    the emotions is subtracted, which moves all scores of a text by the same amount.

    "Other" has no sentences, as it names no appearance. Its score is 0, the mean of the other scores, so "Other" is
    never the likeliest class.

    Args:
        sentences: for each label of `BASIC` but "Other", in that order: [n, 384] encoded sentences of length 1.
        temperature: divisor of the scores before the softmax.
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
    """Softmax over the cosines to one text per label: the paper's scene-label match (section 3.2).

    The published code takes the softmax over 15 texts without a temperature, which is nearly uniform, and sums a part
    of it; here only the eight basic labels are used. From each cosine the mean cosine of the label to texts without
    content is subtracted, so that no label is favoured for any text (Zhao et al. 2021, "Calibrate before use", section
    5, on scores instead of probabilities).

    Args:
        labels: [8, 384] encoded label texts in the order of `BASIC`.
        content_free: [n, 384] encoded texts without content.
        temperature: divisor of the scores before the softmax.
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
    """Return the sentences of each label of `BASIC` but "Other", in that order, from a section of the profile."""
    return [section[label.lower()] for label in BASIC[:OTHER]]


def zero_shot_head(context: StageContext, section: str) -> tuple[ZeroShotHead, str]:
    """Return the head of a section of the profile, its sentences encoded by MiniLM, and the value of `model`."""
    settings = context.profile[section]
    model = MiniLM(context.weights.path(ZOO_ID), context.counters)
    sentences = [model.encode_all(texts) for texts in sentences_of(settings)]
    return ZeroShotHead(sentences, settings["temperature"]), MODEL
