"""The two partition dimensions: shards of corpora, and whole corpora.

Belongs here: the partitions definitions. A shard's key reads NAME-sNNN; `cer corpus add` and the sensor add keys. A
corpus's key is its name; `cer evaluate` and the nightly schedule add keys.
"""

from __future__ import annotations

import dagster as dg

CORPUS_SHARD = "corpus_shard"
CORPUS = "corpus"

corpus_shards = dg.DynamicPartitionsDefinition(name=CORPUS_SHARD)
corpora = dg.DynamicPartitionsDefinition(name=CORPUS)
