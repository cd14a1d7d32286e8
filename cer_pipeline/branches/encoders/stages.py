"""The stages of the branches over texts by an encoder of the model hub.

Belongs here: texts -> `features/BRANCH` -> `probabilities/BRANCH`. Does not belong here: specs (`specs`), encoders,
heads (`heads`) or their training (`train`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from cer_pipeline import tables
from cer_pipeline.branches.encoders import clip, jina, roberta
from cer_pipeline.branches.encoders.heads import LinearHead
from cer_pipeline.branches.encoders.pretrained import Model, Runner, change
from cer_pipeline.branches.encoders.specs import CLIP, JINA, RECIPES, ROBERTA, Recipe
from cer_pipeline.branches.rows import probability_rows, read_features
from cer_pipeline.branches.sentences.minilm import load_tokenizer
from cer_pipeline.branches.sentences.stages import TextEncoder, embed_rows, predict_with
from cer_pipeline.profiles import EXECUTION
from cer_pipeline.stage import StageContext

LOADERS: Final[Mapping[str, Callable[[Path, str, str], tuple[Any, Model]]]] = {
    JINA: jina.load,
    ROBERTA: roberta.load,
    CLIP: clip.load,
}
"""Encoder -> (folder, precision, features) -> network and model."""


class EmbedTexts:
    """Captions or transcripts -> `features/BRANCH`: the mean of the features of all texts of a segment.

    Raises:
        CerError: the encoder's files or the head do not fit.
    """

    def __init__(self, recipe: Recipe, context: StageContext) -> None:
        self.recipe, self.context = recipe, context
        path = context.weights.path(recipe.head) if context.weights.digest(recipe.head) is not None else None
        self.head = None if path is None else LinearHead.load(recipe, path)

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of the table for segments of the plan."""
        table = tables.features(self.recipe.branch, self.recipe.size)
        return embed_rows(units, TextEncoder(self._embed, lambda views: views.mean(0)), table)

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.context.counters[f"calls/{self.recipe.encoder}"] += len(texts)
        tokenizer, run = self._encoder
        return run([torch.tensor(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))])

    @cached_property
    def _encoder(self) -> tuple[Any, Runner]:
        """Tokeniser and encoder, loaded for the first text, with the changes of a fine-tuned head."""
        recipe, profile = self.recipe, self.context.profile
        settings, folder = profile[recipe.branch], self.context.weights.path(recipe.encoder)
        network, model = LOADERS[recipe.encoder](folder, settings["precision"], recipe.features)
        if self.head is not None:
            change(network, self.head.changed, recipe.head)
        return load_tokenizer(folder, settings["max_tokens"]), Runner(network, model, profile[EXECUTION])


class PredictTexts:
    """`features/BRANCH` -> `probabilities/BRANCH` by the trained head.

    Raises:
        CerError: the head does not fit the branch.
    """

    def __init__(self, recipe: Recipe, context: StageContext) -> None:
        self.recipe = recipe
        self.head = LinearHead.load(recipe, context.weights.path(recipe.head))
        self.features = read_features(context, f"features/{recipe.branch}")

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of the table for segments of the plan."""
        predict = predict_with(self.head, self.recipe.head)
        return probability_rows(units, self.features, predict, tables.probabilities(self.recipe.branch))


EmbedSceneJina: Final = partial(EmbedTexts, RECIPES["scene_jina"])
EmbedSceneRoberta: Final = partial(EmbedTexts, RECIPES["scene_roberta"])
EmbedSceneClip: Final = partial(EmbedTexts, RECIPES["scene_clip"])
EmbedTextJina: Final = partial(EmbedTexts, RECIPES["text_jina"])
EmbedTextRoberta: Final = partial(EmbedTexts, RECIPES["text_roberta"])
EmbedTextClip: Final = partial(EmbedTexts, RECIPES["text_clip"])

PredictSceneJina: Final = partial(PredictTexts, RECIPES["scene_jina"])
PredictSceneRoberta: Final = partial(PredictTexts, RECIPES["scene_roberta"])
PredictSceneClip: Final = partial(PredictTexts, RECIPES["scene_clip"])
PredictTextJina: Final = partial(PredictTexts, RECIPES["text_jina"])
PredictTextRoberta: Final = partial(PredictTexts, RECIPES["text_roberta"])
PredictTextClip: Final = partial(PredictTexts, RECIPES["text_clip"])
