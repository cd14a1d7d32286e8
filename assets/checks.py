"""The blocking check on `labels`: nothing can be learned from what is held out.

Belongs here: putting `corpora.leaks.check` into Dagster's terms. Does not belong here: looking for leaks.
"""

# No postponed annotations here: Dagster reads them off the function as it is decorated.
import dagster as dg

from assets.metadata import check_metadata
from cer_pipeline.corpora.leaks.check import leaks_of
from cer_pipeline.corpora.shards import ShardInputs

NO_LEAK = "no_leak"
LABELS = "labels"
LINES = 20  # leaks that the check names


def leak_check_specs(table: str, key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """The check that `labels` has and no other table."""
    if table != LABELS:
        return []
    about = "No source clip and no copy stands in two splits, no id spells a label, no held-out row is in training."
    return [dg.AssetCheckSpec(NO_LEAK, asset=key, blocking=True, description=about)]


def leak_check_results(table: str, key: dg.AssetKey, inputs: ShardInputs) -> list[dg.AssetCheckResult]:
    """The result of that check over the shard that was made."""
    if table != LABELS:
        return []
    leaks = leaks_of(inputs)
    told = check_metadata(leaks=leaks[:LINES], count=len(leaks))
    text = f"{len(leaks)} leaks, first {leaks[0]} - take it out of one of the splits" if leaks else "no leak"
    return [dg.AssetCheckResult(check_name=NO_LEAK, asset_key=key, passed=not leaks, metadata=told, description=text)]
