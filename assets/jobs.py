"""Jobs: named selections of assets that people and sensors launch.

Belongs here: selections. `process_shard` makes every table of one corpus shard; `train_models`
trains heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

PROCESS_SHARD = "process_shard"
TRAIN = "train_models"


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
