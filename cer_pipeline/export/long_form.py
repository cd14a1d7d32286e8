"""Predictions of a corpus in long form: compounds by segment and method, basic emotions by segment and system.

Belongs here: joining the tables of all shards into two tables, and writing them as Parquet or CSV. Does not belong
here: the formats of challenges (`abaw`) or the tables themselves (`store`).

Every segment has its rows, also without a value: its status and reason say why. The probabilities are those of the
tables; `clear` and `expression` follow the rule of `compound.clear`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from cer_pipeline.arrow import column, matrix
from cer_pipeline.compound.clear import Clear, named
from cer_pipeline.corpora.shards import ShardInputs, shards
from cer_pipeline.errors import CerError
from cer_pipeline.evaluation.read import FUSED, branches_of
from cer_pipeline.export.registry import Request
from cer_pipeline.fusion.uncertainty import confidence, entropy, expressed
from cer_pipeline.labels import BASIC_COLUMNS, COMPOUND_COLUMNS
from cer_pipeline.store.files import commit_tree
from cer_pipeline.store.home import Home

KEYS: Final = ("segment_id", "video_id", "segment", "start_s", "end_s")
OUTCOME: Final = ("status", "reason")
COMPOUND: Final = "compound"
BASIC: Final = "basic"
MEASURES: Final = ("expressed", "confidence", "entropy", "agreement")
CLEAR: Final = ("clear", "expression")


def compounds(home: Home, name: str, rule: Clear) -> pa.Table:
    """Return one row for every segment and method.

    Columns: keys, method (ppa or pfsa), the seven probabilities, expressed, confidence, entropy and agreement as in the
    table, `clear` (whether the rule holds; null without a value), `expression` (the first compound, or "no clear
    expression"; null without a value), status, reason.

    Args:
        home: the home folder.
        name: the corpus.
        rule: which expressions count as clear.

    Raises:
        CerError: unknown corpus, or tables that have not been made or were made by an earlier version.
    """
    columns = (*KEYS, "method", *COMPOUND_COLUMNS, *MEASURES, *CLEAR, *OUTCOME)
    parts = []
    for shard in _shards_with_predictions(home, name):
        table = shard.table(COMPOUND)
        _require(table, MEASURES, name)
        parts.append(_with_times(shard, _with_clear(table, rule)).select(columns))
    return pa.concat_tables(parts).sort_by(
        [("video_id", "ascending"), ("segment", "ascending"), ("method", "ascending")]
    )


def basics(home: Home, name: str) -> pa.Table:
    """Return one row for every segment and system (each branch, and fused).

    Columns: keys, system, the eight probabilities, expressed, confidence, entropy, agreement (of the branches: null for
    a branch), status, reason.

    Raises:
        CerError: unknown corpus, or tables that have not been made or were made by an earlier version.
    """
    columns = (*KEYS, "system", *BASIC_COLUMNS, *MEASURES, *OUTCOME)
    parts = []
    for shard in _shards_with_predictions(home, name):
        for system in (*branches_of(shard), FUSED):
            table = shard.table(FUSED) if system == FUSED else _measured(shard.table(f"probabilities/{system}"))
            _require(table, MEASURES, name)
            named = table.append_column("system", pa.array([system] * table.num_rows, pa.string()))
            parts.append(_with_times(shard, named).select(columns))
    return pa.concat_tables(parts).sort_by(
        [("video_id", "ascending"), ("segment", "ascending"), ("system", "ascending")]
    )


def export(request: Request) -> list[Path]:
    """Write both tables, both or none.

    The files lie below `request.out`; or `request.out` names the file of the compounds by the ending of the format,
    and the other file lies beside it.

    Returns:
        The files: compounds, then basic emotions.

    Raises:
        CerError: unknown corpus, tables that have not been made, or an output folder that is a file.
    """
    corpus, out, ending = request.corpus, request.out, f".{request.format}"
    if out.suffix == ending and not out.is_dir():
        files = [out, out.with_name(f"{out.stem}_{BASIC}{ending}")]
    elif out.exists() and not out.is_dir():
        raise CerError("not a folder", str(out), f"name a folder, or a file that ends in {ending}")
    else:
        files = [out / f"{corpus}_{table}{ending}" for table in (COMPOUND, BASIC)]
    tables = (compounds(request.home, corpus, request.rule), basics(request.home, corpus))

    def write(folder: Path) -> None:
        for path, table in zip(files, tables, strict=True):
            _write(table.combine_chunks(), folder / path.name)

    commit_tree(files[0].parent, write)
    return files


def _with_clear(table: pa.Table, rule: Clear) -> pa.Table:
    """Return rows of `compound` with the columns `clear` and `expression`."""
    values = matrix(table, COMPOUND_COLUMNS)
    clear = rule.holds(*(matrix(table, [name])[:, 0] for name in ("expressed", "confidence")))
    names = named(values, clear)
    known = pa.array([None if n is None else bool(c) for n, c in zip(names, clear, strict=True)], pa.bool_())
    return table.append_column("clear", known).append_column("expression", pa.array(names, pa.string()))


def _measured(table: pa.Table) -> pa.Table:
    """Return rows of `probabilities/*` with the measures of a single distribution."""
    values = matrix(table, BASIC_COLUMNS)
    measures = {"expressed": expressed(values), "confidence": confidence(values), "entropy": entropy(values)}
    for name, numbers in (measures | {"agreement": np.full(len(values), np.nan)}).items():
        table = table.append_column(name, column(numbers))
    return table


def _require(table: pa.Table, columns: Sequence[str], name: str) -> None:
    if not set(columns) <= set(table.column_names):
        raise CerError("the tables were made by an earlier version", name, f"run `cer run {name}`")


def _write(table: pa.Table, path: Path) -> None:
    if path.suffix == ".csv":
        pacsv.write_csv(table, path)
    else:
        pq.write_table(table, path, compression="zstd")


def _shards_with_predictions(home: Home, name: str) -> list[ShardInputs]:
    found = shards(home, name)
    for shard in found:
        branches_of(shard)  # raises the error that names the command, if the fusion has not been made
    return found


def _with_times(shard: ShardInputs, table: pa.Table) -> pa.Table:
    """Return the table with the start and end of each segment, s."""
    segments = shard.table("segments", ["segment_id", "start_s", "end_s"])
    times = {row["segment_id"]: row for row in segments.to_pylist()}
    ids: Sequence[str] = table.column("segment_id").to_pylist()
    unknown = next((i for i in ids if i not in times), None)
    if unknown is not None:
        raise CerError("a prediction without its segment", unknown, f"run `cer run {shard.corpus}`")
    for name in ("start_s", "end_s"):
        table = table.append_column(name, pa.array([times[i][name] for i in ids], pa.float64()))
    return table
