"""The branches that read what a caption says of a segment: scene_minilm and scene_label.

Belongs here: their specs (light at import) and stages. Does not belong here: captions
(`perception.captions.rule_based`), which texts of a segment are read (`branches.sentences.stages`), the encoder
(`branches.sentences.minilm`) or the arithmetic of the heads (`branches.sentences.zero_shot`,
`branches.scene.caption_head`).

scene_minilm stands for the paper's fine-tuned caption encoders (Table 1, IDs 6 to 8), scene_label for its image-label
match (ID 14), which needs CLIP: here the caption takes the image's place.

scene_minilm has two trained heads. Imported texts are judged by the scene head: its features are the mean standardised
state of all texts of the segment. It learned from captions that judge what they see, and is wrong about texts that do
not; so the describer's texts are judged by the head of signs, after `au_phrases`. Where a head is absent, likeness to
sentences takes its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline.branches.scene.au_head import SignsHead
from cer_pipeline.branches.scene.au_phrases import in_plain_words
from cer_pipeline.branches.scene.caption_head import Embed, SceneHead, encoder
from cer_pipeline.branches.sentences.minilm import ZOO_ID, MiniLM
from cer_pipeline.branches.sentences.stages import (
    Judge,
    Reader,
    branch,
    embed_rows,
    judge_rows,
    judged_by,
    middle,
    read_features,
)
from cer_pipeline.branches.sentences.zero_shot import LabelHead, PromptHead, sentences_of
from cer_pipeline.profiles import EXECUTION
from cer_pipeline.stage import StageContext
from cer_pipeline.zoo.head_file import load_head

MODULE: Final = "cer_pipeline.branches.scene.branch"
TRAINED: Final = "head_scene_minilm"
"""Zoo id of the trained head, which judges imported texts; also what stands in `model` where it did."""
SIGNS: Final = "head_scene_signs"
"""Zoo id of the head of signs, which judges the describer's texts."""

SCENE_MINILM: Final = branch(
    name="scene_minilm",
    title="Scene caption (MiniLM)",
    modality="scene",
    table1=7,
    source="captions",
    embed=f"{MODULE}:EmbedScene",
    judge=f"{MODULE}:JudgeScene",
    config=("scene_minilm",),
    trained=(TRAINED, SIGNS),
)
SCENE_LABEL: Final = branch(
    name="scene_label",
    title="Scene-label match (MiniLM)",
    modality="label",
    table1=14,
    source="captions",
    embed=f"{MODULE}:EmbedLabel",
    judge=f"{MODULE}:JudgeLabel",
    config=("scene_label",),
)


class EmbedLabel:
    """Captions -> `features/scene_label`: the middle of the vectors of all texts of a segment."""

    def __init__(self, context: StageContext) -> None:
        threads = int(context.profile[EXECUTION]["threads"])
        model = MiniLM(context.weights.path(ZOO_ID), context.counters)
        self.reader = Reader(lambda texts: model.encode_all(texts, threads), middle)

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of the table for segments of the plan."""
        return embed_rows(units, self.reader, SCENE_LABEL.features.table)


class EmbedScene(EmbedLabel):
    """Captions -> `features/scene_minilm`, each text read as the head that will judge it learned to."""

    def __init__(self, context: StageContext) -> None:
        super().__init__(context)
        self.context = context
        trained = context.weights.digest(TRAINED) is not None
        own = Reader(self._told, middle) if context.weights.digest(SIGNS) is not None else self.reader
        self.readers = {False: own, True: Reader(self._adapted, self._state) if trained else self.reader}

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of the table for segments of the plan."""
        return embed_rows(units, self.readers, SCENE_MINILM.features.table)

    def _told(self, texts: Sequence[str]) -> Iterable[NDArray[np.floating]]:
        return self.reader.encode([in_plain_words(text) for text in texts])

    def _adapted(self, texts: Sequence[str]) -> NDArray[np.floating]:
        self.context.counters[f"calls/{ZOO_ID}"] += len(texts)
        return self._network[1](texts)

    def _state(self, vectors: NDArray[np.floating]) -> NDArray[np.floating]:
        return self._network[0].state(vectors)

    @cached_property
    def _network(self) -> tuple[SceneHead, Embed]:
        """The trained head and its encoder, loaded where there is an imported text."""
        weights = self.context.weights
        tensors, meta = load_head(weights.path(TRAINED))
        threads = int(self.context.profile[EXECUTION]["threads"])
        return SceneHead(tensors, meta), encoder(tensors, meta, weights.path(ZOO_ID), threads)


class JudgeScene:
    """`features/scene_minilm` -> `probabilities/scene_minilm`: a trained head, or likeness to sentences."""

    def __init__(self, context: StageContext) -> None:
        self.context, weights = context, context.weights
        self.signs = None if weights.digest(SIGNS) is None else SignsHead.load(weights.path(SIGNS))
        self.trained = None if weights.digest(TRAINED) is None else SceneHead.load(weights.path(TRAINED))
        self.features = read_features(context, SCENE_MINILM.features.name)

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of the table for segments of the plan."""
        return judge_rows(units, self.features, self._judge, SCENE_MINILM.probabilities.table)

    def _judge(self, unit: Mapping[str, Any], features: NDArray[np.floating]) -> tuple[str, NDArray[np.float64]]:
        if unit["imported"] and self.trained is not None:
            return TRAINED, self.trained.segment(unit["texts"], features)
        if not unit["imported"] and self.signs is not None:
            return SIGNS, self.signs.probabilities(features)
        return self._likeness(unit, features)

    @cached_property
    def _likeness(self) -> Judge:
        """What judges where a head is absent; its sentences are encoded only then."""
        section = self.context.profile["scene_minilm"]
        model = MiniLM(self.context.weights.path(ZOO_ID), self.context.counters)
        sets = [np.stack(model.encode_all(sentences)) for sentences in sentences_of(section)]
        return judged_by(PromptHead(sets, section["temperature"]), "prompts")


class JudgeLabel:
    """`features/scene_label` -> `probabilities/scene_label`, by cosine to the label texts."""

    def __init__(self, context: StageContext) -> None:
        section = context.profile["scene_label"]
        encoder = MiniLM(context.weights.path(ZOO_ID), context.counters)
        labels, free = (np.stack(encoder.encode_all(section[name])) for name in ("labels", "content_free"))
        self.head = LabelHead(labels, free, section["temperature"])
        self.features = read_features(context, SCENE_LABEL.features.name)

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of the table for segments of the plan."""
        return judge_rows(units, self.features, judged_by(self.head, "labels"), SCENE_LABEL.probabilities.table)
