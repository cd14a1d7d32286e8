"""The branches over captions: scene_minilm and scene_label.

Belongs here: their specs (light at import) and stages. Does not belong here: captions
(`perception.captions.rule_based`), which texts of a segment are read (`branches.sentences.stages`), the encoder
(`branches.sentences.minilm`) or the arithmetic of the heads (`branches.sentences.zero_shot`,
`branches.scene.caption_head`, `branches.scene.au_head`).

scene_minilm stands for the paper's fine-tuned caption encoders (Table 1, IDs 6 to 8), scene_label for its image-label
match (ID 14), which needs CLIP: here the caption takes the place of the image.

scene_minilm has two trained heads. Imported texts are classified by the caption head; its features are the mean
standardised state of all texts of the segment. It was trained on captions that name emotions and is wrong about texts
that name none, so the texts of the rule-based captioner are classified by the action-unit caption head, after
`au_phrases`. Where a trained head is absent, a zero-shot head is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline.branches.rows import Predict, Row, probability_rows, read_features
from cer_pipeline.branches.scene.au_head import AUHead
from cer_pipeline.branches.scene.au_phrases import caption_phrases
from cer_pipeline.branches.scene.caption_head import Embed, SceneHead, encoder
from cer_pipeline.branches.sentences.minilm import ZOO_ID, MiniLM
from cer_pipeline.branches.sentences.stages import (
    TextEncoder,
    branch,
    centroid,
    embed_rows,
    predict_with,
)
from cer_pipeline.branches.sentences.zero_shot import LabelHead, zero_shot_head
from cer_pipeline.profiles import EXECUTION
from cer_pipeline.stage import StageContext
from cer_pipeline.training.trainer import Trainer
from cer_pipeline.zoo.head_file import load_head

MODULE: Final = "cer_pipeline.branches.scene.branch"
CAPTION_HEAD: Final = "head_scene_minilm"
"""Zoo id of the caption head, which classifies imported texts; also the value of `model` in its rows."""
AU_HEAD: Final = "head_scene_signs"
"""Zoo id of the action-unit caption head, which classifies the texts of the rule-based captioner; also in `model`."""

SCENE_MINILM: Final = branch(
    name="scene_minilm",
    title="Scene caption (MiniLM)",
    modality="scene",
    table1=7,
    source="captions",
    embed=f"{MODULE}:EmbedScene",
    predict=f"{MODULE}:PredictScene",
    trained=(CAPTION_HEAD, AU_HEAD),
    trainers=(
        Trainer(
            "scene_minilm",
            "cer_pipeline.branches.scene.train:train",
            "Balanced ridge regression on words and sentence vectors of captions.",
            formats=("captions", "utterances"),
            models=(ZOO_ID,),
            options=("least", "share", "ridge", "folds", "seeds", "sentences"),
        ),
        Trainer(
            "scene_signs",
            "cer_pipeline.branches.scene.train_au:train",
            "Logistic regression on clauses about face and voice, for texts of the rule-based captioner.",
            formats=("captions",),
            models=(ZOO_ID,),
            options=("strength", "repeats", "seed"),
        ),
    ),
)
SCENE_LABEL: Final = branch(
    name="scene_label",
    title="Scene-label match (MiniLM)",
    modality="label",
    table1=14,
    source="captions",
    embed=f"{MODULE}:EmbedLabel",
    predict=f"{MODULE}:PredictLabel",
)


class EmbedLabel:
    """Captions -> `features/scene_label`: the centroid of the vectors of all texts of a segment."""

    def __init__(self, context: StageContext) -> None:
        threads = int(context.profile[EXECUTION]["threads"])
        model = MiniLM(context.weights.path(ZOO_ID), context.counters)
        self.encoder = TextEncoder(lambda texts: model.encode_all(texts, threads), centroid)

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of the table for segments of the plan."""
        return embed_rows(units, self.encoder, SCENE_LABEL.features.table)


class EmbedScene(EmbedLabel):
    """Captions -> `features/scene_minilm`: each text by the encoder of the head that will classify it."""

    def __init__(self, context: StageContext) -> None:
        super().__init__(context)
        self.context = context
        has = {head: context.weights.digest(head) is not None for head in (CAPTION_HEAD, AU_HEAD)}
        rule_based = TextEncoder(self._embed_phrases, centroid) if has[AU_HEAD] else self.encoder
        imported = TextEncoder(self._embed_adapted, self._mean_state) if has[CAPTION_HEAD] else self.encoder
        self.encoders = {False: rule_based, True: imported}

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of the table for segments of the plan."""
        return embed_rows(units, self.encoders, SCENE_MINILM.features.table)

    def _embed_phrases(self, texts: Sequence[str]) -> Iterable[NDArray[np.floating]]:
        return self.encoder.embed([caption_phrases(text) for text in texts])

    def _embed_adapted(self, texts: Sequence[str]) -> NDArray[np.floating]:
        self.context.counters[f"calls/{ZOO_ID}"] += len(texts)
        return self._caption_head[1](texts)

    def _mean_state(self, vectors: NDArray[np.floating]) -> NDArray[np.floating]:
        return self._caption_head[0].state(vectors)

    @cached_property
    def _caption_head(self) -> tuple[SceneHead, Embed]:
        """The caption head and its encoder, loaded for the first imported text."""
        weights = self.context.weights
        tensors, meta = load_head(weights.path(CAPTION_HEAD))
        threads = int(self.context.profile[EXECUTION]["threads"])
        return SceneHead(tensors, meta), encoder(tensors, meta, weights.path(ZOO_ID), threads)


class PredictScene:
    """`features/scene_minilm` -> `probabilities/scene_minilm`, by a trained head or else the zero-shot head."""

    def __init__(self, context: StageContext) -> None:
        self.context, weights = context, context.weights
        self.au_head = None if weights.digest(AU_HEAD) is None else AUHead.load(weights.path(AU_HEAD))
        self.caption_head = None
        if weights.digest(CAPTION_HEAD) is not None:
            self.caption_head = SceneHead.load(weights.path(CAPTION_HEAD))
        self.features = read_features(context, SCENE_MINILM.features.name)

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of the table for segments of the plan."""
        return probability_rows(units, self.features, self._predict, SCENE_MINILM.probabilities.table)

    def _predict(self, unit: Row, features: NDArray[np.float32]) -> tuple[str, NDArray[np.float64]]:
        if unit["imported"] and self.caption_head is not None:
            return CAPTION_HEAD, self.caption_head.segment(unit["texts"], features)
        if not unit["imported"] and self.au_head is not None:
            return AU_HEAD, self.au_head.probabilities(features)
        return self._zero_shot(unit, features)

    @cached_property
    def _zero_shot(self) -> Predict:
        """The zero-shot head; its sentences are encoded for the first text without a trained head."""
        return predict_with(*zero_shot_head(self.context, SCENE_MINILM.name))


class PredictLabel:
    """`features/scene_label` -> `probabilities/scene_label`, by cosine to the label texts."""

    def __init__(self, context: StageContext) -> None:
        section = context.profile["scene_label"]
        model = MiniLM(context.weights.path(ZOO_ID), context.counters)
        labels, content_free = (model.encode_all(section[name]) for name in ("labels", "content_free"))
        self.head = LabelHead(labels, content_free, section["temperature"])
        self.features = read_features(context, SCENE_LABEL.features.name)

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of the table for segments of the plan."""
        return probability_rows(
            units, self.features, predict_with(self.head, "labels"), SCENE_LABEL.probabilities.table
        )
