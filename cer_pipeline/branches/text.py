"""The branch that reads what is said in a segment: text_minilm.

Belongs here: its spec (light at import) and stages. Does not belong here: transcripts (`perception`), the encoder
(`minilm`) or the arithmetic of the head (`prompts`).

It stands for the paper's fine-tuned transcript encoders (Table 1, IDs 11 to 13).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from cer_pipeline.branches.minilm import ZOO_ID, MiniLM
from cer_pipeline.branches.prompts import PromptHead, sentences_of
from cer_pipeline.branches.sentences import branch, embed_rows, judge_rows, read_features
from cer_pipeline.stage import StageContext

MODULE: Final = "cer_pipeline.branches.text"

TEXT_MINILM: Final = branch(
    name="text_minilm",
    title="Transcript (MiniLM)",
    modality="text",
    table1=12,
    source="transcripts",
    embed=f"{MODULE}:EmbedText",
    judge=f"{MODULE}:JudgeText",
    config=("text_minilm",),
)


class EmbedText:
    """Transcripts -> `features/text_minilm`."""

    def __init__(self, context: StageContext) -> None:
        self.encoder = MiniLM(context.weights.path(ZOO_ID), context.counters)

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of the table for segments of the plan."""
        return embed_rows(units, self.encoder.encode, TEXT_MINILM.features.table)


class JudgeText:
    """`features/text_minilm` -> `probabilities/text_minilm`, by likeness to the profile's sentences."""

    def __init__(self, context: StageContext) -> None:
        section = context.profile["text_minilm"]
        encoder = MiniLM(context.weights.path(ZOO_ID), context.counters)
        sets = [np.stack(encoder.encode_all(sentences)) for sentences in sentences_of(section)]
        self.head = PromptHead(sets, section["temperature"])
        self.features = read_features(context, TEXT_MINILM.features.name)

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of the table for segments of the plan."""
        return judge_rows(units, self.features, self.head, "prompts", TEXT_MINILM.probabilities.table)
