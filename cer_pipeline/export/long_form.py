"""Predictions of a corpus in long form: compounds by segment and method, basic emotions by segment and system.

Belongs here: joining the tables of all shards into two tables, and writing them as Parquet or CSV. Does not belong
here: the forms of challenges (`abaw`) or the tables themselves (`store`).

Every segment has its rows, also where there is no value: its status and reason say why. The probabilities are those of
the tables, whatever they are; `clear` and `expression` say what is shown to people (`compound.clear`).
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
from cer_pipeline.corpora.shards import ShardInputs
from cer_pipeline.errors import CerError
from cer_pipeline.evaluation.read import FUSED, branches_of, shards
from cer_pipeline.fusion.uncertainty import confidence, entropy, expressed
from cer_pipeline.labels import BASIC_COLUMNS, COMPOUND_COLUMNS
from cer_pipeline.store.files import commit_tree
from cer_pipeline.store.home import Home

KEYS: Final = ("segment_id", "video_id", "segment", "start_s", "end_s")
OUTCOME: Final = ("status", "reason")
COMPOUND: Final = "compound"
BASIC: Final = "basic"
FORMATS: Final = ("parquet", "csv")
MEASURES: Final = ("expressed", "confidence", "entropy", "agreement")
SHOWN: Final = ("clear", "expression")


def compounds(home: Home, name: str, rule: Clear) -> pa.Table:
    """One row a segment and method.

    Columns: keys, method (ppa or pfsa), the seven probabilities, expressed, confidence, entropy and agreement as in the
    table, `clear` (whether the rule holds; null without a value), `expression` (the first compound, or "no clear
    expression"; null without a value), status, reason.

    Args:
        home: the home folder.
        name: the corpus.
        rule: what is called a clear expression.

    Raises:
        CerError: no such corpus, or its tables have not been made, or by an earlier version.
    """
    columns = (*KEYS, "method", *COMPOUND_COLUMNS, *MEASURES, *SHOWN, *OUTCOME)
    parts = []
    for shard in _made(home, name):
        table = shard.table(COMPOUND)
        _require(table, MEASURES, name)
        parts.append(_with_times(shard, _with_shown(table, rule)).select(columns))
    return pa.concat_tables(parts).sort_by(
        [("video_id", "ascending"), ("segment", "ascending"), ("method", "ascending")]
    )


def basics(home: Home, name: str) -> pa.Table:
    """One row a segment and system (each branch, and fused).

    Columns: keys, system, the eight probabilities, expressed, confidence, entropy, agreement (of the branches: null for
    a branch), status, reason.

    Raises:
        CerError: no such corpus, or its tables have not been made, or by an earlier version.
    """
    columns = (*KEYS, "system", *BASIC_COLUMNS, *MEASURES, *OUTCOME)
    parts = []
    for shard in _made(home, name):
        for system in (*branches_of(shard), FUSED):
            table = shard.table(FUSED) if system == FUSED else _measured(shard.table(f"probabilities/{system}"))
            _require(table, MEASURES, name)
            named = table.append_column("system", pa.array([system] * table.num_rows, pa.string()))
            parts.append(_with_times(shard, named).select(columns))
    return pa.concat_tables(parts).sort_by(
        [("video_id", "ascending"), ("segment", "ascending"), ("system", "ascending")]
    )


def export(home: Home, name: str, out: Path, to: str, rule: Clear) -> list[Path]:
    """Write both tables below a folder, both or none.

    Args:
        home: the home folder.
        name: the corpus.
        out: folder for the files; or the file of the compounds, ending in the format's name, beside which the other
            is written.
        to: one of `FORMATS`.
        rule: what is called a clear expression.

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
    made = (compounds(home, name, rule), basics(home, name))

    def write(folder: Path) -> None:
        for path, table in zip(files, made, strict=True):
            _write(table.combine_chunks(), folder / path.name, to)

    commit_tree(files[0].parent, write)
    return files


def _with_shown(table: pa.Table, rule: Clear) -> pa.Table:
    """Rows of `compound` with what is shown of them."""
    values = matrix(table, COMPOUND_COLUMNS)
    sure = rule.holds(*(matrix(table, [name])[:, 0] for name in ("expressed", "confidence")))
    text = named(values, sure)
    clear = pa.array([None if t is None else bool(c) for t, c in zip(text, sure, strict=True)], pa.bool_())
    return table.append_column("clear", clear).append_column("expression", pa.array(text, pa.string()))


def _measured(table: pa.Table) -> pa.Table:
    """Rows of `probabilities/*` with the measures of a single distribution."""
    values = matrix(table, BASIC_COLUMNS)
    found = {"expressed": expressed(values), "confidence": confidence(values), "entropy": entropy(values)}
    for name, numbers in (found | {"agreement": np.full(len(values), np.nan)}).items():
        table = table.append_column(name, column(numbers))
    return table


def _require(table: pa.Table, columns: Sequence[str], name: str) -> None:
    if not set(columns) <= set(table.column_names):
        raise CerError("the tables were made by an earlier version", name, f"run `cer run {name}`")


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
    for name in ("start_s", "end_s"):
        table = table.append_column(name, pa.array([times[i][name] for i in ids], pa.float64()))
    return table
