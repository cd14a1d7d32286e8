"""Reading the tables and files of the shards of a corpus.

Belongs here: the implementation of `stage.Inputs` over the home folder, and reading all shards of a corpus. Does not
belong here: writing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from cer_pipeline.corpora import registry
from cer_pipeline.corpora.corpus import Corpus, shard_key
from cer_pipeline.errors import CerError
from cer_pipeline.store.fingerprint import digest
from cer_pipeline.store.home import Home
from cer_pipeline.store.parquet import read_table, read_unit


@dataclass(frozen=True)
class ShardInputs:
    """The tables and files of one corpus shard."""

    home: Home
    corpus: str
    shard: str

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """See `stage.Inputs.table`."""
        return read_table(self._file(name), columns)

    def batches(self, name: str, video_id: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """See `stage.Inputs.batches`."""
        return read_unit(self._file(name), "video_id", video_id, columns)

    def digests(self, name: str, unit: str = "video_id") -> dict[str, str]:
        """See `stage.Inputs.digests`."""
        table = read_table(self._file(name), [unit, "content"])
        contents: dict[str, dict[str, None]] = {}
        for value, content in zip(table.column(unit).to_pylist(), table.column("content").to_pylist(), strict=True):
            contents.setdefault(value, {})[content] = None
        return {value: next(iter(of)) if len(of) == 1 else digest(*of) for value, of in contents.items()}

    def source(self, video_id: str) -> Path:
        """See `stage.Inputs.source`."""
        return self.registered().source(video_id)

    def registered(self) -> Corpus:
        """See `stage.Inputs.registered`. The registry is read once for each object."""
        return self._registered

    @cached_property
    def _registered(self) -> Corpus:
        return registry.load(self.home.root, self.corpus)

    def _file(self, name: str) -> Path:
        path = self.home.table(name, self.corpus, self.shard)
        if not path.is_file():
            key = shard_key(self.corpus, self.shard)
            raise CerError(f"the table {name} of {key} has not been made", then=f"run `cer run {self.corpus}`")
        return path


def shards(home: Home, name: str, table: str = "") -> list[ShardInputs]:
    """Return the shards of a registered corpus, in order.

    Args:
        home: the home folder.
        name: of the corpus.
        table: return only the shards for which this table has been made; all by default.

    Raises:
        CerError: no such corpus, a corpus without videos, which has no tables, or `table` has been made for no shard.
    """
    corpus = registry.load(home.root, name)
    if corpus.trains:
        then = f"`cer train {corpus.trains} --corpora {name}` prints scores"
        raise CerError("the corpus has no videos, it is for training", name, then)
    labels = corpus.shard_labels()
    if table:
        labels = [label for label in labels if home.table(table, name, label).is_file()]
        if not labels:
            raise CerError("nothing has been made of this corpus", name, f"run `cer run {name}`")
    return [ShardInputs(home, name, label) for label in labels]


def corpus_table(home: Home, corpus: Corpus, table: str, columns: Sequence[str]) -> pa.Table:
    """Return columns of a table over all shards of a corpus, in order of the shards.

    Raises:
        CerError: a shard of the table has not been made.
    """
    parts = [ShardInputs(home, corpus.name, label) for label in corpus.shard_labels()]
    return pa.concat_tables([shard.table(table, columns) for shard in parts])
