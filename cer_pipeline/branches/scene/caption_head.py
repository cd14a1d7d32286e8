"""The caption head: the captions of a segment -> probabilities of the basic emotions.

Belongs here: the two feature vectors of a text, the linear map on them, how views are combined, and the encoder of the
head. Does not belong here: training (`branches.scene.train`), tables (`branches.scene.branch`) or caption files
(`corpora.formats.caption_files`).

A text has two feature vectors. The first is a bag of words and pairs of words, in which words after a negation count as
words of their own. The second is the mean, over the sentences of the text, of the mean-pooled states of MiniLM with
low-rank changes that were trained on sentences with emotion labels; whole captions are longer than those. Each vector
has length at most 1, so no text moves the scores far. Grams outside the vocabulary add to the length of the bag but to
no score: a text without a known gram has zero bag-of-words score.

The scores d of a text are linear in both vectors. The views of a segment (texts by several models or prompts) are
averaged and sharpened: p = softmax(s m / (1 + (m - 1) r) * mean d), with m views, scale s, and r in 0..1 for how much
the views repeat each other: r = 0 multiplies their evidence, r = 1 averages it. Inference needs numpy only.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from cer_pipeline.branches.sentences.minilm import MAX_TOKENS
from cer_pipeline.labels import BASIC, TRAINED_CLASSES
from cer_pipeline.torch_threads import deterministic_map
from cer_pipeline.zoo.head_file import load_head

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Embed = Callable[[Sequence[str]], NDArray[Any]]
"""Texts -> mean-pooled states of the adapted encoder [n, 384]."""

SENTENCES: Final = "sentences"  # in the metadata of a head: whether the state of a text is that of its sentences
ADAPTER: Final = "adapter/"  # prefix of the tensors of the low-rank changes
NOT: Final = "not_"  # prefix of words after a negation

_SENTENCE: Final = re.compile(r"(?<=[.!?;])\s+")
_PART: Final = re.compile(r"(?<=[.!?;:])\s+|\n+")
_WORD: Final = re.compile(r"[a-z][a-z-]*[a-z]")
_NEGATION: Final = re.compile(
    r"\b(no|not|without|rather than|lack(?:s|ing)?|absence|n't|neither|nor|minimal|hardly)\b|n't\b"
)


def grams(text: str) -> list[str]:
    """Return the words and pairs of neighbouring words of a text, sentence by sentence, in lower case.

    In each sentence the words after the first negation have the prefix `NOT`: captions list what is absent ("no sign of
    fear or anger"), and a plain bag would count these words as present.
    """
    made: list[str] = []
    for sentence in _SENTENCE.split(text.lower()):
        negation = _NEGATION.search(sentence)
        cut = negation.end() if negation else len(sentence)
        words = _WORD.findall(sentence[:cut]) + [NOT + word for word in _WORD.findall(sentence[cut:])]
        made += words
        made += [f"{a} {b}" for a, b in itertools.pairwise(words)]
    return made


def parts(text: str) -> list[str]:
    """Return the sentences and clauses of a text, without marks of lists and emphasis; the text where it has none."""
    stripped = [part.strip(" -*#") for part in _PART.split(text)]
    return [part for part in stripped if part] or [text]


@dataclass(frozen=True)
class Bag:
    """The vocabulary of the bag of words: gram -> column, and the weight of each column.

    Args:
        columns: gram -> column.
        idf: inverse document frequency of every column.
        unknown: the same for grams outside the vocabulary.
    """

    columns: Mapping[str, int]
    idf: Floats
    unknown: float

    def vector(self, text: str) -> tuple[list[int], Floats]:
        """Return columns and values of a text: (1 + log count) x idf over the Euclidean length of *all* its grams.

        Grams outside the vocabulary have no column but count in the length, so a text of unknown words is short.
        """
        columns: list[int] = []
        values: list[float] = []
        rest = 0.0
        for gram, count in sorted(Counter(grams(text)).items()):
            weight = 1.0 + float(np.log(count))
            if (column := self.columns.get(gram)) is None:
                rest += (weight * self.unknown) ** 2
            else:
                columns.append(column)
                values.append(weight * float(self.idf[column]))
        vector = np.asarray(values, np.float64)
        length = float(np.sqrt((vector**2).sum() + rest))
        return columns, vector / length if length else vector


class SceneHead:
    """A trained caption head.

    Args:
        tensors: `grams` (uint8: the vocabulary, one gram a line), `idf`, `bag` [grams, 7], `mean` and `spread` [384],
            `state` [384, 7], the adapter's tensors, which `encoder` reads, and, for PFSA, `prototypes` [7, 384].
        meta: needs `unknown` (idf of unknown grams), `scale` and `repeat` (s and r of the module's formula); for PFSA,
            `pfsa_temperature`.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> None:
        vocabulary = tensors["grams"].tobytes().decode("utf-8").split("\n") if tensors["grams"].size else []
        self.bag = Bag({g: i for i, g in enumerate(vocabulary)}, _float(tensors["idf"]), float(meta["unknown"]))
        self.meta = dict(meta)
        self.bag_weights = _float(tensors["bag"])
        self.mean, self.spread = _float(tensors["mean"]), _float(tensors["spread"])
        self.state_weights = _float(tensors["state"])
        self.prototypes = _float(tensors["prototypes"]) if "prototypes" in tensors else None

    @classmethod
    def load(cls, path: Path) -> SceneHead:
        """Read a head's file.

        Raises:
            CerError: it is missing or damaged.
        """
        return cls(*load_head(path))

    def scores(self, texts: Sequence[str], states: NDArray[Any]) -> Floats:
        """Return linear scores [n, 7] of texts, in the order of `TRAINED_CLASSES`.

        Args:
            texts: captions.
            states: mean-pooled states of the adapted encoder, one row a text [n, 384].
        """
        if len(texts) != len(states):
            raise ValueError(f"{len(texts)} texts for {len(states)} rows of states")
        scores = np.zeros((len(texts), len(TRAINED_CLASSES)))
        # Row by row, so that the scores of a text do not depend on other texts.
        for i, text in enumerate(texts):
            columns, values = self.bag.vector(text)
            scores[i] = values @ self.bag_weights[columns]
            scores[i] += standard(np.asarray(states[i], np.float64), self.mean, self.spread) @ self.state_weights
        return scores

    def state(self, states: NDArray[Any]) -> Floats:
        """Return the mean standardised state [384] of all texts of one segment.

        `segment` needs it with the texts, and PFSA compares it with the prototypes.

        Args:
            states: mean-pooled states of the adapted encoder, one row a text [views, 384].
        """
        return standard(np.asarray(states, np.float64), self.mean, self.spread).mean(0)

    def segment(self, texts: Sequence[str], state: NDArray[Any]) -> Floats:
        """Return one distribution [8] of a segment from its texts and their `state`.

        It equals `fused` up to rounding: the scores are linear, so the mean over texts may be taken first.
        """
        scores = np.asarray(state, np.float64) @ self.state_weights
        for text in texts:
            columns, values = self.bag.vector(text)
            scores = scores + values @ self.bag_weights[columns] / len(texts)
        return self.sharpen(scores[None], np.array([len(texts)]))[0]

    def probabilities(self, texts: Sequence[str], embed: Embed) -> Floats:
        """Return one distribution [8] for each text [n, 8]."""
        return self.sharpen(self.scores(texts, embed(texts)), np.ones(len(texts), np.int64))

    def fused(self, views: Sequence[Sequence[str | None]], embed: Embed) -> Floats:
        """Return one distribution for each segment [n, 8] from all its texts.

        Args:
            views: for each view one text a segment; None where a view lacks the segment.
            embed: the encoder.

        Raises:
            ValueError: a segment has no text in any view.
        """
        return self.sharpen(*_mean(views, lambda texts: self.scores(texts, embed(texts))))

    def features(self, views: Sequence[Sequence[str | None]], embed: Embed) -> Floats:
        """Return the mean standardised state [n, 384] of the texts of each segment; PFSA compares it with prototypes.

        Args:
            views: as for `fused`.
            embed: the encoder.

        Raises:
            ValueError: a segment has no text in any view.
        """
        mean, _ = _mean(views, lambda texts: standard(np.asarray(embed(texts), np.float64), self.mean, self.spread))
        return mean

    def sharpen(self, scores: Floats, count: NDArray[np.int64]) -> Floats:
        """Return distributions over `BASIC` [n, 8] from mean scores [n, 7] over `count` views [n]."""
        factor = sharpness(count, float(self.meta["scale"]), float(self.meta["repeat"]))
        full = np.zeros((len(scores), len(BASIC)))
        full[:, TRAINED_CLASSES] = softmax(scores * factor[:, None], axis=-1)
        return full


def _mean(views: Sequence[Sequence[str | None]], values: Callable[[Sequence[str]], Floats]) -> tuple[Floats, Ints]:
    """Mean over views of the values of texts [n, size], and the number of views of each segment [n]."""
    total: Floats | None = None
    count = np.zeros(len(views[0]), np.int64)
    for texts in views:
        rows = [i for i, text in enumerate(texts) if text is not None]
        present = values([text for text in texts if text is not None])
        total = np.zeros((len(count), present.shape[1])) if total is None else total
        total[rows] += present
        count[rows] += 1
    if total is None or not count.all():
        raise ValueError(f"row {int(np.argmin(count))} has no text in any view")
    return total / count[:, None], count


def standard(states: Floats, mean: Floats, spread: Floats) -> Floats:
    """Return states [..., 384] scaled to mean 0 and deviation 1 per column, then to length 1 per row."""
    values = (states - mean) / spread
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.divide(values, length, out=np.zeros_like(values), where=length > 0)


def sharpness(count: NDArray[np.int64], scale: float, repeat: float) -> Floats:
    """Return the factor on mean scores of m views: s m / (1 + (m - 1) r)."""
    return scale * count / (1 + (count - 1) * repeat)


def encoder(tensors: Mapping[str, NDArray[Any]], meta: Mapping[str, Any], folder: Path, threads: int = 1) -> Embed:
    """Return the encoder of a head: MiniLM with the low-rank changes of the head merged in. Loads torch.

    Args:
        tensors: of the head; those whose names begin with `ADAPTER` are read.
        meta: of the head; `adapter` and `sentences` are read.
        folder: the folder of plain MiniLM.
        threads: texts at a time; the states do not depend on it.

    Returns:
        A function from texts to states. Each text is encoded alone; with `sentences`, its parts are encoded in one
        batch, and the state of the text is their mean.
    """
    from cer_pipeline.branches.text.head import TextHead

    adapter = {name.removeprefix(ADAPTER): value for name, value in tensors.items() if name.startswith(ADAPTER)}
    network = TextHead(adapter, meta["adapter"], folder, MAX_TOKENS)

    def state(text: str) -> NDArray[Any]:
        return network.batch(parts(text) if meta.get(SENTENCES) else [text]).mean(0)

    def embed(texts: Sequence[str]) -> NDArray[Any]:
        rows = deterministic_map(state, texts, threads)
        return np.stack(rows) if rows else np.empty((0, network.weight.shape[1]), np.float32)

    return embed


def _float(array: NDArray[Any]) -> Floats:
    return array.astype(np.float64)
