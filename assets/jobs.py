"""Jobs: named selections of assets that people and sensors launch.

Belongs here: selections. `process_shard` makes every table of one corpus shard.
"""

from __future__ import annotations

import dagster as dg

PROCESS_SHARD = "process_shard"


def process_shard_job(keys: list[dg.AssetKey]) -> dg.UnresolvedAssetJobDefinition:
    """Every table of one corpus shard, in one process: models stay loaded and no step pays a start-up."""
    return dg.define_asset_job(
        PROCESS_SHARD,
        selection=dg.AssetSelection.assets(*keys),
        executor_def=dg.in_process_executor,
        description="Make every table of one corpus shard. What is up to date is left alone.",
    )
