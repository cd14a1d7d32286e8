"""The one partition dimension: shards of corpora.

Belongs here: the partitions definition. A key reads NAME-sNNN; `cer corpus add` and the sensor add keys.
"""

from __future__ import annotations

import dagster as dg

CORPUS_SHARD = "corpus_shard"

corpus_shards = dg.DynamicPartitionsDefinition(name=CORPUS_SHARD)
