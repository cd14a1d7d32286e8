"""Specs of branches that read texts by an encoder of the model hub (Table 1, IDs 6 to 8 and 11 to 13).

Belongs here: what an encoder gives, and the builder of a branch; light at import. Does not belong here: which texts of
a segment are read (`branches.sentences.stages`), the branches themselves (`branches.scene`, `branches.text`), or any
computation.

Several caption views of a segment: the features are the mean of the features of its texts, so the logits of a linear
head are the mean of the logits of its texts. The head `dense` of scene_roberta is applied to the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

from cer_pipeline import tables
from cer_pipeline.branch import BranchSpec
from cer_pipeline.branches.sentences.stages import SEGMENT_COLUMNS, TEXT_COLUMNS, TRANSCRIPTS, plan_features, plan_texts
from cer_pipeline.stage import StageSpec
from cer_pipeline.training.trainer import Trainer

JINA: Final = "jina_v3"
ROBERTA: Final = "emotion_distilroberta"
CLIP: Final = "clip_vit_b32"
"""Zoo ids of the encoders."""

SIZES: Final = {JINA: 1024, ROBERTA: 768, CLIP: 512}
"""Encoder -> number of its features."""
ENGLISH_READERS: Final = {JINA: "", ROBERTA: "RoBERTa", CLIP: "CLIP"}
"""Encoder -> its name if it was trained on English only; Jina v3 reads 89 languages."""

FIRST_STATE: Final = "first_state"
MEAN: Final = "mean"
POOLED: Final = "pooled"
PROJECTED: Final = "projected"
"""What of an encoder's output the features are; see the modules of the encoders."""


@dataclass(frozen=True)
class Recipe:
    """How the texts of a branch become features.

    Args:
        branch: name of the branch, of its tables and of its section of the profile.
        encoder: zoo id.
        features: which output of the encoder.
    """

    branch: str
    encoder: str
    features: str

    @property
    def size(self) -> int:
        """Number of features."""
        return SIZES[self.encoder]

    @property
    def head(self) -> str:
        """Zoo id of the trained head."""
        return f"head_{self.branch}"


RECIPES: Final = {
    recipe.branch: recipe
    for recipe in (
        Recipe("scene_jina", JINA, FIRST_STATE),
        Recipe("scene_roberta", ROBERTA, FIRST_STATE),
        Recipe("scene_clip", CLIP, POOLED),
        Recipe("text_jina", JINA, MEAN),
        Recipe("text_roberta", ROBERTA, MEAN),
        Recipe("text_clip", CLIP, PROJECTED),
    )
}
"""Branch -> its recipe: features as the published classifiers read them, which for the text branches are not the ones
that the published code stores."""


def text_branch(branch: str, title: str, modality: str, table1: int, source: str) -> BranchSpec:
    """Return a branch with a trained head on features of texts.

    Args:
        branch: key of `RECIPES`.
        title: title that users read.
        modality: see `BranchSpec`.
        table1: see `BranchSpec`.
        source: table with the texts: captions or transcripts.
    """
    recipe = RECIPES[branch]
    stage = f"cer_pipeline.branches.encoders.stages:{{}}{branch.title().replace('_', '')}"
    features = StageSpec(
        table=tables.features(recipe.branch, recipe.size),
        description=f"{recipe.encoder} on {source}: mean over the views of a segment.",
        group="features",
        inputs=(source,),
        reads={source: TEXT_COLUMNS[source]},
        plan=partial(plan_texts, source, ENGLISH_READERS[recipe.encoder]),
        stage=stage.format("Embed"),
        code_version="1",
        config=(recipe.branch,),
        models=(recipe.encoder,),
        optional_models=(recipe.head,),
        kinds=("parquet", "torch"),
        chunk_units=512,  # a GPU batch holds texts of one length
    )
    probabilities = StageSpec(
        table=tables.probabilities(recipe.branch),
        description=f"Basic emotions of every segment from {source}, by a trained head.",
        group="probabilities",
        inputs=(features.name,),
        reads={features.name: (*SEGMENT_COLUMNS, "features", "status", "reason")},
        # By the features alone, as for transcripts: the head reads no text.
        plan=partial(plan_features, TRANSCRIPTS, features.name),
        stage=stage.format("Predict"),
        code_version="1",
        models=(recipe.head,),
        kinds=("parquet", "numpy"),
        chunk_units=4096,
    )
    trainer = Trainer(
        recipe.branch,
        "cer_pipeline.branches.encoders.train:train",
        f"Logistic regression on frozen features of {recipe.encoder}.",
        reads=("labels", features.name),
        options=("folds", "inner", "seed"),  # fields of `train.ProbeSettings`
    )
    return BranchSpec(recipe.branch, title, modality, table1, features, probabilities, trainers=(trainer,))
