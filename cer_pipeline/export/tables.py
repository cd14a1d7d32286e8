"""Predictions of a corpus in long form: compounds by segment and method, basic emotions by segment and system.

Belongs here: joining the tables of all shards into two tables, and writing them as Parquet or CSV. Does not belong
here: the forms of challenges (`abaw`) or the tables themselves (`store`).

Every segment has its rows, also where there is no value: its status and reason say why.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from cer_pipeline.errors import CerError
from cer_pipeline.evaluation.read import FUSED, branches_of, shards
from cer_pipeline.labels import BASIC_COLUMNS, COMPOUND_COLUMNS
from cer_pipeline.store.files import commit_tree
from cer_pipeline.store.home import Home
from cer_pipeline.store.inputs import ShardInputs

KEYS: Final = ("segment_id", "video_id", "segment", "start_s", "end_s")
OUTCOME: Final = ("status", "reason")
COMPOUND: Final = "compound"
BASIC: Final = "basic"
FORMATS: Final = ("parquet", "csv")


def compounds(home: Home, name: str) -> pa.Table:
    """One row a segment and method: keys, method (ppa or pfsa), the seven probabilities, status, reason.

    Raises:
        CerError: no such corpus, or its tables have not been made.
    """
    columns = (*KEYS, "method", *COMPOUND_COLUMNS, *OUTCOME)
    parts = [_with_times(shard, shard.table(COMPOUND)).select(columns) for shard in _made(home, name)]
    return pa.concat_tables(parts).sort_by(
        [("video_id", "ascending"), ("segment", "ascending"), ("method", "ascending")]
    )


def basics(home: Home, name: str) -> pa.Table:
    """One row a segment and system (each branch, and fused): keys, system, the eight probabilities, status, reason.

    Raises:
        CerError: no such corpus, or its tables have not been made.
    """
    columns = (*KEYS, "system", *BASIC_COLUMNS, *OUTCOME)
    parts = []
    for shard in _made(home, name):
        for system in (*branches_of(shard), FUSED):
            table = shard.table(FUSED if system == FUSED else f"probabilities/{system}")
            named = table.append_column("system", pa.array([system] * table.num_rows, pa.string()))
            parts.append(_with_times(shard, named).select(columns))
    return pa.concat_tables(parts).sort_by(
        [("video_id", "ascending"), ("segment", "ascending"), ("system", "ascending")]
    )


def export(home: Home, name: str, out: Path, to: str) -> list[Path]:
    """Write both tables below a folder, both or none.

    Args:
        home: the home folder.
        name: the corpus.
        out: folder for the files; or the file of the compounds, ending in the format's name, beside which the other
            is written.
        to: one of `FORMATS`.

    Returns:
        The files: compounds, then basic emotions.

    Raises:
        CerError: unknown format or corpus, tables that have not been made, or a folder that cannot be written to.
    """
    if to not in FORMATS:
        raise CerError("unknown format", to, f"choose one of: {', '.join(FORMATS)}")
    if out.suffix == f".{to}" and not out.is_dir():
        files = [out, out.with_name(f"{out.stem}_{BASIC}{out.suffix}")]
    elif out.exists() and not out.is_dir():
        raise CerError("not a folder", str(out), f"name a folder, or a file that ends in .{to}")
    else:
        files = [out / f"{name}_{what}.{to}" for what in (COMPOUND, BASIC)]
    made = (compounds(home, name), basics(home, name))

    def write(folder: Path) -> None:
        for path, table in zip(files, made, strict=True):
            _write(table.combine_chunks(), folder / path.name, to)

    commit_tree(files[0].parent, write)
    return files


def _write(table: pa.Table, path: Path, to: str) -> None:
    if to == "csv":
        pacsv.write_csv(table, path)
    else:
        pq.write_table(table, path, compression="zstd")


def _made(home: Home, name: str) -> list[ShardInputs]:
    own = shards(home, name)
    for shard in own:
        branches_of(shard)  # says what to run where the fusion has not been made
    return own


def _with_times(shard: ShardInputs, table: pa.Table) -> pa.Table:
    """The table with the start and end of each segment, s."""
    segments = shard.table("segments", ["segment_id", "start_s", "end_s"])
    times = {row["segment_id"]: row for row in segments.to_pylist()}
    ids: Sequence[str] = table.column("segment_id").to_pylist()
    lost = next((i for i in ids if i not in times), None)
    if lost is not None:
        raise CerError("a prediction of a segment that is no more", lost, f"run `cer run {shard.corpus}`")
    for column in ("start_s", "end_s"):
        table = table.append_column(column, pa.array([times[i][column] for i in ids], pa.float64()))
    return table
