"""The two partition dimensions: shards of corpora, and whole corpora.

Belongs here: the partitions definitions. The key of a shard is NAME-sNNN; `cer corpus add` and the sensor add keys. The
key of a corpus is its name; `cer evaluate` and the nightly schedule add keys. `cer corpus remove` and the sensor delete
keys of corpora that are no longer registered.
"""

from __future__ import annotations

import dagster as dg

CORPUS_SHARD = "corpus_shard"
CORPUS = "corpus"

corpus_shards = dg.DynamicPartitionsDefinition(name=CORPUS_SHARD)
corpora = dg.DynamicPartitionsDefinition(name=CORPUS)
