"""The scene head: what a caption says -> probabilities of the basic emotions, for one caption or several views.

Belongs here: the two feature vectors of a text, the linear map on them, how views are put together, and the encoder as
the head wants it. Does not belong here: training (`branches.scene.train`), tables (`branches.scene.branch`) or caption
files (`corpora.formats.caption_files`).

A text is seen twice: as a bag of words and pairs of words, where words behind a negation count as words of their own,
and as the mean over its sentences of the mean-pooled states of MiniLM with low-rank changes that were trained on
sentences with emotion labels: a whole caption is a kind of text that these changes have never met. Each
vector has length at most 1, so that no text, however strange, can pull the scores far: what the bag does not know adds
to its length but to no score, and a text without a known word leaves the encoder alone to speak.

The scores d of one text are linear in both vectors. The views of a segment (texts by several models or prompts) are
averaged and sharpened: p = softmax(s m / (1 + (m - 1) r) * mean d), with m views, scale s, and r in 0..1 for how much
the views repeat each other: r = 0 would multiply their evidence, r = 1 would average it. Inference needs numpy only.
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
from cer_pipeline.labels import BASIC
from cer_pipeline.torch_threads import deterministic_map
from cer_pipeline.zoo.head_file import load_head

Floats = NDArray[np.float64]
Embed = Callable[[Sequence[str]], NDArray[Any]]
"""Texts -> mean-pooled states of the adapted encoder [n, 384]."""

CLASSES: Final = tuple(BASIC.index(name) for name in BASIC if name != "Other")
"""Columns of `BASIC` that the head answers for; AFEW has no "Other", which is never trained and gets 0."""

SENTENCES: Final = "sentences"  # in a head's meta: whether the encoder reads the sentences of a text too
ADAPTER: Final = "adapter/"  # prefix of the tensors of the low-rank changes
NOT: Final = "not_"  # prefix of words behind a negation

_SENTENCE: Final = re.compile(r"(?<=[.!?;])\s+")
_PART: Final = re.compile(r"(?<=[.!?;:])\s+|\n+")
_WORD: Final = re.compile(r"[a-z][a-z-]*[a-z]")
_NEGATION: Final = re.compile(
    r"\b(no|not|without|rather than|lack(?:s|ing)?|absence|n't|neither|nor|minimal|hardly)\b|n't\b"
)


def grams(text: str) -> list[str]:
    """Words and pairs of neighbouring words of a text, sentence by sentence, lower case.

    In each sentence the words behind the first negation carry the prefix `NOT`: captions list what they do not see
    ("no sign of fear or anger"), and a plain bag would count these words as seen.
    """
    found: list[str] = []
    for sentence in _SENTENCE.split(text.lower()):
        negation = _NEGATION.search(sentence)
        cut = negation.end() if negation else len(sentence)
        words = _WORD.findall(sentence[:cut]) + [NOT + word for word in _WORD.findall(sentence[cut:])]
        found += words
        found += [f"{a} {b}" for a, b in itertools.pairwise(words)]
    return found


def parts(text: str) -> list[str]:
    """The sentences and clauses of a text, without marks of lists and emphasis; the text itself where it has none."""
    found = [part.strip(" -*#") for part in _PART.split(text)]
    return [part for part in found if part] or [text]


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
        """Columns and values of a text: (1 + log count) x idf over the Euclidean length of *all* its grams.

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

    def coverage(self, text: str) -> float:
        """Squared length of the text's vector, 0..1: how much of the text the vocabulary knows."""
        return float((self.vector(text)[1] ** 2).sum())


class SceneHead:
    """A trained scene head.

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
        """Linear scores [n, 7] of texts, in the order of `CLASSES`.

        Args:
            texts: captions.
            states: mean-pooled states of the adapted encoder, one row a text [n, 384].
        """
        if len(texts) != len(states):
            raise ValueError(f"{len(texts)} texts for {len(states)} rows of states")
        found = np.zeros((len(texts), len(CLASSES)))
        # Row by row, so that a text's scores do not depend on the texts beside it.
        for i, text in enumerate(texts):
            columns, values = self.bag.vector(text)
            found[i] = values @ self.bag_weights[columns]
            found[i] += standard(np.asarray(states[i], np.float64), self.mean, self.spread) @ self.state_weights
        return found

    def state(self, states: NDArray[Any]) -> Floats:
        """What the head needs to know of all texts of one segment: their mean standardised state [384].

        It is also what PFSA compares with the prototypes.

        Args:
            states: mean-pooled states of the adapted encoder, one row a text [views, 384].
        """
        return standard(np.asarray(states, np.float64), self.mean, self.spread).mean(0)

    def segment(self, texts: Sequence[str], state: NDArray[Any]) -> Floats:
        """One distribution [8] of a segment from its texts and what `state` gave for them.

        Equal to `fused` up to rounding: the scores are linear, so the mean over texts may be taken first.
        """
        scores = np.asarray(state, np.float64) @ self.state_weights
        for text in texts:
            columns, values = self.bag.vector(text)
            scores = scores + values @ self.bag_weights[columns] / len(texts)
        return self.sharpen(scores[None], np.array([len(texts)]))[0]

    def probabilities(self, texts: Sequence[str], embed: Embed) -> Floats:
        """One distribution a text [n, 8]; each text stands alone."""
        return self.sharpen(self.scores(texts, embed(texts)), np.ones(len(texts), np.int64))

    def fused(self, views: Sequence[Sequence[str | None]], embed: Embed) -> Floats:
        """One distribution a segment [n, 8] from all texts that it has.

        Args:
            views: one sequence of texts a view, all of the same segments; None where a view lacks the segment.
            embed: the encoder.

        Raises:
            ValueError: a segment has no text in any view.
        """
        total = np.zeros((len(views[0]), len(CLASSES)))
        count = np.zeros(len(total), np.int64)
        for texts in views:
            rows = [i for i, text in enumerate(texts) if text is not None]
            present = [text for text in texts if text is not None]
            total[rows] += self.scores(present, embed(present))
            count[rows] += 1
        if not count.all():
            raise ValueError(f"row {int(np.argmin(count))} has no text in any view")
        return self.sharpen(total / count[:, None], count)

    def features(self, views: Sequence[Sequence[str | None]], embed: Embed) -> Floats:
        """What PFSA compares with the prototypes: the mean standardised state of a segment's texts [n, 384].

        Args:
            views: as for `fused`.
            embed: the encoder.

        Raises:
            ValueError: a segment has no text in any view.
        """
        total = np.zeros((len(views[0]), len(self.mean)))
        count = np.zeros(len(total), np.int64)
        for texts in views:
            rows = [i for i, text in enumerate(texts) if text is not None]
            states = np.asarray(embed([text for text in texts if text is not None]), np.float64)
            total[rows] += standard(states, self.mean, self.spread)
            count[rows] += 1
        if not count.all():
            raise ValueError(f"row {int(np.argmin(count))} has no text in any view")
        return total / count[:, None]

    def sharpen(self, scores: Floats, count: NDArray[np.int64]) -> Floats:
        """Mean scores [n, 7] over `count` views [n] -> distributions over `BASIC` [n, 8]."""
        factor = sharpness(count, float(self.meta["scale"]), float(self.meta["repeat"]))
        full = np.zeros((len(scores), len(BASIC)))
        full[:, CLASSES] = softmax(scores * factor[:, None], axis=-1)
        return full


def standard(states: Floats, mean: Floats, spread: Floats) -> Floats:
    """States [..., 384] brought to mean 0 and deviation 1 per column, then to length 1 per row."""
    values = (states - mean) / spread
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.divide(values, length, out=np.zeros_like(values), where=length > 0)


def sharpness(count: NDArray[np.int64], scale: float, repeat: float) -> Floats:
    """The factor on mean scores of m views: s m / (1 + (m - 1) r)."""
    return scale * count / (1 + (count - 1) * repeat)


def encoder(tensors: Mapping[str, NDArray[Any]], meta: Mapping[str, Any], folder: Path, threads: int = 1) -> Embed:
    """The encoder of a head: MiniLM with the head's low-rank changes merged in. Loads torch.

    Args:
        tensors: the head's tensors; those whose names begin with `ADAPTER` are read.
        meta: the head's meta; `adapter` and `sentences` are read.
        folder: the folder of plain MiniLM.
        threads: texts at a time; the states do not depend on it.

    Returns:
        A function from texts to states. Each text is put through the network on its own; with `sentences`, its parts
        are, together, and the state is the mean of theirs.
    """
    from cer_pipeline.branches.text.head import TextHead

    own = {name.removeprefix(ADAPTER): value for name, value in tensors.items() if name.startswith(ADAPTER)}
    network = TextHead(own, meta["adapter"], folder, MAX_TOKENS)

    def state(text: str) -> NDArray[Any]:
        return network.batch(parts(text) if meta.get(SENTENCES) else [text]).mean(0)

    def embed(texts: Sequence[str]) -> NDArray[Any]:
        rows = deterministic_map(state, texts, threads)
        return np.stack(rows) if rows else np.empty((0, network.weight.shape[1]), np.float32)

    return embed


def _float(array: NDArray[Any]) -> Floats:
    return array.astype(np.float64)
