"""Jobs: named selections of assets, for the launchpad, the commands, the sensor and the schedule.

Belongs here: selections. Does not belong here: assets, or what starts a job (`sensors`, `schedules`).
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

PROCESS_SHARD = "process_shard"
TRAIN = "train_models"
EVALUATE = "evaluate_corpus"


def process_shard_job(keys: list[dg.AssetKey]) -> dg.UnresolvedAssetJobDefinition:
    """Return the job that makes every table of one corpus shard in one process, so that no step pays a start-up."""
    return dg.define_asset_job(
        PROCESS_SHARD,
        selection=dg.AssetSelection.assets(*keys),
        executor_def=dg.in_process_executor,
        description="Make every table of one corpus shard. A table that is up to date is not written.",
    )


def train_job(heads: Sequence[dg.AssetsDefinition]) -> dg.UnresolvedAssetJobDefinition:
    """Return the job of all trainings; launch one asset of it at a time, each with its own corpora."""
    return dg.define_asset_job(
        TRAIN,
        selection=dg.AssetSelection.assets(*(key for head in heads for key in head.keys)),
        executor_def=dg.in_process_executor,
        description="Train heads on registered corpora and publish them. Processing a corpus never trains.",
    )


def evaluate_job(assets: Sequence[dg.AssetsDefinition]) -> dg.UnresolvedAssetJobDefinition:
    """Return the job of scores and report of one corpus, apart from the others so that the schedule never trains."""
    return dg.define_asset_job(
        EVALUATE,
        selection=dg.AssetSelection.assets(*(key for asset in assets for key in asset.keys)),
        executor_def=dg.in_process_executor,
        description="Score a labelled corpus and write its report. It neither trains nor predicts.",
    )
