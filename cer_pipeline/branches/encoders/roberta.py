"""Emotion English DistilRoBERTa: text -> 768 features (Table 1, IDs 7 and 12).

Belongs here: loading the encoder, and its features. Does not belong here: heads (`heads`) or tables (`stages`).

Source: Liu et al. 2019, "RoBERTa"; distilroberta-base has 6 layers of width 768. The classifier of the published file
is not used: the paper trains a new one. A batch holds texts of one length, so no token is padding and the masked mean
over the tokens is the plain mean.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cer_pipeline.branches.encoders.pretrained import Model, load_pretrained
from cer_pipeline.branches.encoders.specs import FIRST_STATE

UNUSED = r"classifier\..*|(roberta\.)?pooler\..*|(roberta\.)?embeddings\.position_ids"
"""Tensors of the published file beside the encoder: the classifier of 7 emotions, an unused pooler, and a constant."""


def load(folder: Path, precision: str, features: str) -> tuple[Any, Model]:
    """Return the network, and the map from token ids [B, t] to features [B, 768].

    Args:
        folder: holds config.json and model.safetensors.
        precision: float32 or bfloat16.
        features: `FIRST_STATE` (last state of <s>) or `MEAN` (mean of the last states).

    Raises:
        CerError: the file does not hold this encoder.
    """
    network = load_pretrained("roberta.RobertaModel", folder, precision, UNUSED, add_pooling_layer=False)

    def encode(ids: Any) -> Any:
        states = network(input_ids=ids).last_hidden_state
        return states[:, 0] if features == FIRST_STATE else states.mean(1)

    return network, encode
