"""The append-only row cache: rows by key, in chunk files that are written once and never changed.

Belongs here: storing and reading computed rows. Does not belong here: which keys are needed (`materialise`).

A chunk holds complete units. Its footer lists its row keys and the run that computed them. So a key is looked up
without reading rows, and the origin of a value is known also after later runs have rewritten the table.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cer_pipeline.arrow import pc
from cer_pipeline.store.files import commit
from cer_pipeline.store.fingerprint import digest

KEYS = b"cer.keys"
RUN = b"cer.run_id"


@dataclass(frozen=True)
class Chunk:
    """One chunk file: the row keys that it holds and the run that computed them."""

    path: Path
    keys: tuple[str, ...]
    run_id: str


class RowCache:
    """The chunks of one table, fingerprint and shard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def chunks(self) -> list[Chunk]:
        """Return all readable chunks; a damaged one counts as absent, so its rows are computed again."""
        chunks = []
        for path in sorted(self.folder.glob("*.parquet")):
            if path.name.startswith("."):
                continue
            try:
                metadata = pq.read_metadata(path).metadata or {}
                chunks.append(Chunk(path, tuple(json.loads(metadata[KEYS])), metadata[RUN].decode()))
            except (pa.ArrowException, OSError, KeyError, ValueError):
                continue
        return chunks

    def index(self) -> dict[str, Path]:
        """Map each row key to the chunk file that holds its rows."""
        return {key: chunk.path for chunk in self.chunks() for key in chunk.keys}

    def append(self, rows: pa.Table, keys: Sequence[str], run_id: str) -> None:
        """Write the rows of complete units as one chunk.

        Args:
            rows: rows with the store's columns.
            keys: row keys of all units of the chunk, including units without rows.
            run_id: the run that computed the rows.
        """
        if not keys:
            return
        stamped = rows.replace_schema_metadata({KEYS: json.dumps(list(keys)).encode(), RUN: run_id.encode()})
        path = self.folder / f"{digest(*sorted(keys))}.parquet"
        commit(path, lambda temporary: pq.write_table(stamped, temporary, compression="zstd"))


def read_rows(path: Path, keys: Iterable[str]) -> pa.Table:
    """Return the rows of some keys from one chunk file, with the store's columns."""
    with pq.ParquetFile(path) as file:
        table = file.read().replace_schema_metadata(None)
    wanted = pa.array(list(keys), pa.string())
    return table.filter(pc.is_in(table.column("row_key"), value_set=wanted))
