"""Sensors: runs and partitions that follow from changes of the registered corpora.

Belongs here: the comparison of the registry with what Dagster knows. All sensors are stopped until they are turned on
in the UI.
"""

# No postponed annotations here: Dagster reads them off the function as it is decorated.
import json
from collections.abc import Iterable
from pathlib import Path

import dagster as dg

from assets.jobs import PROCESS_SHARD
from assets.partitions import CORPUS, CORPUS_SHARD, corpora, corpus_shards
from cer_pipeline.corpora import registry
from cer_pipeline.corpora.corpus import parse_shard_key, shard_key
from cer_pipeline.errors import CerError
from cer_pipeline.store.fingerprint import digest_json
from resources.settings import Settings

INTERVAL_S = 60
MAX_REQUESTS = 20  # runs a tick, so that a large new corpus does not flood the queue


def shard_digests(home: str) -> dict[str, str]:
    """Return a digest of the files of every shard of every registered corpus, by shard key."""
    out = {}
    for name in registry.names(Path(home)):
        corpus = registry.load(Path(home), name)
        for shard in corpus.shard_labels():
            files = [[f.video_id, f.sha256, f.split, f.labels, f.captions] for f in corpus.files_of(shard)]
            out[shard_key(name, shard)] = digest_json(sorted(files, key=str))
    return out


def corpus_changes_sensor() -> dg.SensorDefinition:
    """Return the sensor that keeps the partitions equal to the registry.

    It requests a run for every shard whose files have changed since the last run that it requested, and deletes the
    partitions of corpora that are no longer registered.
    """

    @dg.sensor(
        name="corpus_changes",
        job_name=PROCESS_SHARD,
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Adds the shards of registered corpora as partitions, processes those whose files changed, and "
        "deletes the partitions of corpora that are no longer registered.",
    )
    def corpus_changes(context: dg.SensorEvaluationContext, settings: Settings) -> dg.SensorResult:
        home = settings.get_home().root
        digests, requested = shard_digests(str(home)), json.loads(context.cursor or "{}")
        changed = [key for key, value in digests.items() if requested.get(key) != value][:MAX_REQUESTS]
        shards, names = (context.instance.get_dynamic_partitions(name) for name in (CORPUS_SHARD, CORPUS))
        gone = gone_corpora(home, [*map(corpus_of, shards), *map(corpus_of, requested), *names])
        kept = {key: value for key, value in requested.items() if corpus_of(key) not in gone}
        return dg.SensorResult(
            run_requests=[dg.RunRequest(run_key=f"{key}:{digests[key]}", partition_key=key) for key in changed],
            dynamic_partitions_requests=[
                corpus_shards.build_add_request([key for key in changed if key not in shards]),
                corpus_shards.build_delete_request([key for key in shards if corpus_of(key) in gone]),
                corpora.build_delete_request([name for name in names if name in gone]),
            ],
            cursor=json.dumps(kept | {key: digests[key] for key in changed}, sort_keys=True),
        )

    return corpus_changes


def corpus_of(key: str) -> str:
    """Return the corpus of a shard key; empty where the key is none of this project."""
    try:
        return parse_shard_key(key)[0]
    except CerError:
        return ""


def gone_corpora(home: Path, names: Iterable[str]) -> set[str]:
    """Return the names that no registered corpus has; none where the folder of the registrations is absent.

    An absent folder more likely means a drive that is not mounted than a home without corpora.
    """
    if not (home / "corpora").is_dir():
        return set()
    return set(names) - {""} - set(registry.names(home))
