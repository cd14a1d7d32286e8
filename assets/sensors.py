"""Sensors: what starts a run without a person.

Belongs here: noticing that a registered corpus has changed. All sensors are off until someone turns them on.
"""

# No postponed annotations here: Dagster reads them off the function as it is decorated.
import json
from pathlib import Path

import dagster as dg

from assets.jobs import PROCESS_SHARD
from assets.partitions import CORPUS_SHARD, corpus_shards
from cer_pipeline.corpora import registry
from cer_pipeline.corpora.corpus import shard_key
from cer_pipeline.store.fingerprint import digest_json
from resources.settings import Settings

INTERVAL_S = 60
MAX_REQUESTS = 20  # runs a tick, so that a large new corpus does not flood the queue


def shard_digests(home: str) -> dict[str, str]:
    """For every shard key of every registered corpus: a digest of its files."""
    out = {}
    for name in registry.names(Path(home)):
        corpus = registry.load(Path(home), name)
        for shard in corpus.shard_labels():
            files = [[f.video_id, f.sha256, f.split, f.labels, f.captions] for f in corpus.files_of(shard)]
            out[shard_key(name, shard)] = digest_json(sorted(files, key=str))
    return out


def corpus_changes_sensor() -> dg.SensorDefinition:
    """Requests a run for every shard whose files have changed since the last run that it requested."""

    @dg.sensor(
        name="corpus_changes",
        job_name=PROCESS_SHARD,
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Adds the shards of registered corpora as partitions and processes those whose files changed.",
    )
    def corpus_changes(context: dg.SensorEvaluationContext, settings: Settings) -> dg.SensorResult:
        digests = shard_digests(str(settings.get_home().root))
        known = set(context.instance.get_dynamic_partitions(CORPUS_SHARD))
        changed = [key for key, value in digests.items() if not _requested(context, key, value)][:MAX_REQUESTS]
        return dg.SensorResult(
            run_requests=[dg.RunRequest(run_key=f"{key}:{digests[key]}", partition_key=key) for key in changed],
            dynamic_partitions_requests=[corpus_shards.build_add_request([key for key in changed if key not in known])],
            cursor=_with(context.cursor, {key: digests[key] for key in changed}),
        )

    return corpus_changes


def _requested(context: dg.SensorEvaluationContext, key: str, value: str) -> bool:
    return json.loads(context.cursor or "{}").get(key) == value


def _with(cursor: str | None, new: dict[str, str]) -> str:
    return json.dumps(json.loads(cursor or "{}") | new, sort_keys=True)
