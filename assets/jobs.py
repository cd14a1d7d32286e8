"""Jobs: named selections of assets that people and sensors launch.

Belongs here: selections. `process_shard` makes every table of one corpus shard; `train_models`
trains heads; `evaluate_corpus` scores a corpus.
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

PROCESS_SHARD = "process_shard"
TRAIN = "train_models"
EVALUATE = "evaluate_corpus"


def process_shard_job(keys: list[dg.AssetKey]) -> dg.UnresolvedAssetJobDefinition:
    """Every table of one corpus shard, in one process: models stay loaded and no step pays a start-up."""
    return dg.define_asset_job(
        PROCESS_SHARD,
        selection=dg.AssetSelection.assets(*keys),
        executor_def=dg.in_process_executor,
        description="Make every table of one corpus shard. What is up to date is left alone.",
    )


def train_job(heads: Sequence[dg.AssetsDefinition]) -> dg.UnresolvedAssetJobDefinition:
    """The trainings; launch one asset of it at a time, each with its own corpora."""
    return dg.define_asset_job(
        TRAIN,
        selection=dg.AssetSelection.assets(*(key for head in heads for key in head.keys)),
        executor_def=dg.in_process_executor,
        description="Train heads on registered corpora and publish them. Processing a corpus never trains.",
    )


def evaluate_job(assets: Sequence[dg.AssetsDefinition]) -> dg.UnresolvedAssetJobDefinition:
    """Scores and report of one corpus. A job of its own, so that the nightly evaluation never trains or predicts."""
    return dg.define_asset_job(
        EVALUATE,
        selection=dg.AssetSelection.assets(*(key for asset in assets for key in asset.keys)),
        executor_def=dg.in_process_executor,
        description="Score a labelled corpus and write its report. It never trains and predicts nothing anew.",
    )
