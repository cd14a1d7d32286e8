"""The branches that read what a caption says of a segment: scene_minilm and scene_label.

Belongs here: their specs (light at import) and stages. Does not belong here: captions (`perception.describer_stage`),
the encoder (`minilm`) or the arithmetic of the heads (`prompts`).

scene_minilm stands for the paper's fine-tuned caption encoders (Table 1, IDs 6 to 8), scene_label for its image-label
match (ID 14), which needs CLIP: here the caption takes the image's place.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from cer_pipeline.branches.minilm import ZOO_ID, MiniLM
from cer_pipeline.branches.prompts import LabelHead, PromptHead, sentences_of
from cer_pipeline.branches.sentences import branch, embed_rows, judge_rows, read_features
from cer_pipeline.stage import StageContext

MODULE: Final = "cer_pipeline.branches.scene"

SCENE_MINILM: Final = branch(
    name="scene_minilm",
    title="Scene caption (MiniLM)",
    modality="scene",
    table1=7,
    source="captions",
    embed=f"{MODULE}:EmbedScene",
    judge=f"{MODULE}:JudgeScene",
    config=("scene_minilm",),
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


class EmbedScene:
    """Captions -> `features/scene_minilm`."""

    table = SCENE_MINILM.features.table

    def __init__(self, context: StageContext) -> None:
        self.encoder = MiniLM(context.weights.path(ZOO_ID), context.counters)

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of the table for segments of the plan."""
        return embed_rows(units, self.encoder.encode, self.table)


class EmbedLabel(EmbedScene):
    """Captions -> `features/scene_label`."""

    table = SCENE_LABEL.features.table


class JudgeScene:
    """`features/scene_minilm` -> `probabilities/scene_minilm`, by likeness to the profile's sentences."""

    def __init__(self, context: StageContext) -> None:
        section = context.profile["scene_minilm"]
        encoder = MiniLM(context.weights.path(ZOO_ID), context.counters)
        sets = [np.stack(encoder.encode_all(sentences)) for sentences in sentences_of(section)]
        self.head = PromptHead(sets, section["temperature"])
        self.features = read_features(context, SCENE_MINILM.features.name)

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of the table for segments of the plan."""
        return judge_rows(units, self.features, self.head, "prompts", SCENE_MINILM.probabilities.table)


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
        return judge_rows(units, self.features, self.head, "labels", SCENE_LABEL.probabilities.table)
