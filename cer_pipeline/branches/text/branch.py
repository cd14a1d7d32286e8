"""The branch over transcripts: text_minilm.

Belongs here: its spec (light at import) and stages. Does not belong here: transcripts (`perception`), the encoder
(`branches.sentences.minilm`) or the arithmetic of the heads (`branches.text.head`, `branches.sentences.zero_shot`).

It stands for the paper's fine-tuned transcript encoders (Table 1, IDs 11 to 13).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline.branches.rows import probability_rows, read_features
from cer_pipeline.branches.sentences.minilm import ZOO_ID, MiniLM
from cer_pipeline.branches.sentences.stages import (
    Head,
    TextEncoder,
    branch,
    centroid,
    embed_rows,
    predict_with,
)
from cer_pipeline.branches.sentences.zero_shot import zero_shot_head
from cer_pipeline.stage import StageContext
from cer_pipeline.training.trainer import Trainer

MODULE: Final = "cer_pipeline.branches.text.branch"
TEXT_HEAD: Final = "head_text_minilm"
"""Zoo id of the trained head: low-rank changes of the encoder and a linear layer."""

_OPTIONS: Final = (
    "rank", "alpha", "layers", "dropout", "rate", "decay", "warmup", "batch", "epochs", "clip", "seed", "meld",
)  # fmt: skip

TEXT_MINILM: Final = branch(
    name="text_minilm",
    title="Transcript (MiniLM)",
    modality="text",
    table1=12,
    source="transcripts",
    embed=f"{MODULE}:EmbedText",
    predict=f"{MODULE}:PredictText",
    trained=(TEXT_HEAD,),
    trainers=(
        Trainer(
            "text_minilm",
            "cer_pipeline.branches.text.train:train",
            "MiniLM with low-rank changes on sentences.",
            formats=("utterances",),
            models=(ZOO_ID,),
            options=_OPTIONS,
        ),
    ),
)


class EmbedText:
    """Transcripts -> `features/text_minilm`, by the encoder of the trained head where it is present."""

    def __init__(self, context: StageContext) -> None:
        self.context = context

    @cached_property
    def encode(self) -> Callable[[str], NDArray[np.float32]]:
        """Text -> [384]; the encoder is loaded for the first transcript with words."""
        weights, counters = self.context.weights, self.context.counters
        if weights.digest(TEXT_HEAD) is None:
            return MiniLM(weights.path(ZOO_ID), counters).encode
        return _adapted(weights.path(TEXT_HEAD), weights.path(ZOO_ID), counters)

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of the table for segments of the plan."""
        encoder = TextEncoder(lambda texts: [self.encode(text) for text in texts], centroid)
        return embed_rows(units, encoder, TEXT_MINILM.features.table)


def _adapted(head: Path, folder: Path, counters: Counter[str]) -> Callable[[str], NDArray[np.float32]]:
    from cer_pipeline.branches.text.head import TextHead

    network = TextHead.read(head, folder)

    def encode(text: str) -> NDArray[np.float32]:
        counters[f"calls/{ZOO_ID}"] += 1
        return network.features(text)

    return encode


class PredictText:
    """`features/text_minilm` -> `probabilities/text_minilm`, by the trained head or else the zero-shot head."""

    head: Head

    def __init__(self, context: StageContext) -> None:
        self.features = read_features(context, TEXT_MINILM.features.name)
        if context.weights.digest(TEXT_HEAD) is None:
            self.head, self.model = zero_shot_head(context, TEXT_MINILM.name)
        else:
            from cer_pipeline.branches.text.head import TextClassifier

            self.head, self.model = TextClassifier.load(context.weights.path(TEXT_HEAD)), TEXT_HEAD

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of the table for segments of the plan."""
        return probability_rows(
            units, self.features, predict_with(self.head, self.model), TEXT_MINILM.probabilities.table
        )
