"""Validate, write and read table files.

Belongs here: the Parquet file of one shard. Does not belong here: the cache, the order of the steps (`materialise`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cer_pipeline.arrow import pc
from cer_pipeline.status import Status
from cer_pipeline.store.files import commit
from cer_pipeline.store.fingerprint import content_digests, digest
from cer_pipeline.tables import TableSpec, status_column

SUM_TOLERANCE = 1e-6
ROWS_PER_GROUP = 64_000
BLOB_ROWS_PER_GROUP = 256  # keeps a row group of JPEG frames near 10 MB
FOOTER = b"cer"


class InvalidRows(ValueError):
    """Rows violate the contract of their table, which is a defect of their stage."""


@dataclass(frozen=True)
class Footer:
    """Metadata in the footer of a table file.

    Args:
        table: table name.
        plan: digest of the plan that the table answers: the computation, its units and their inputs.
        data_version: digest of the content of all units; tables with equal versions have equal rows.
        units: number of units.
        rows: number of rows.
        by_status: number of rows by status.
    """

    table: str
    plan: str
    data_version: str
    units: int
    rows: int
    by_status: dict[str, int]


def conform(spec: TableSpec, rows: pa.Table) -> pa.Table:
    """Return rows in the column order and types of a table, checked against its contract.

    Raises:
        InvalidRows: a column is missing, a value that must not be null is null, a status is unknown, two rows have the
            same key, or a distribution is wrong.
    """
    missing = [c.name for c in spec.columns if c.name not in rows.column_names]
    if missing:
        raise InvalidRows(f"{spec.name}: columns are missing: {', '.join(missing)}")
    try:
        table = rows.select([c.name for c in spec.columns]).cast(spec.schema)
    except (pa.ArrowException, ValueError) as error:
        raise InvalidRows(f"{spec.name}: {error}") from error
    for column in spec.columns:
        if not column.nullable and table.column(column.name).null_count:
            raise InvalidRows(f"{spec.name}: {column.name} is null")
    _check_statuses(spec, table)
    _check_keys(spec, table)
    for group in spec.distributions:
        _check_distribution(spec, table, group)
    return table


def _check_statuses(spec: TableSpec, table: pa.Table) -> None:
    columns = {status_column(c.name) for c in spec.columns}
    unknown = {s for name in columns for s in pc.unique(table.column(name)).to_pylist()} - {str(s) for s in Status}
    if unknown:
        raise InvalidRows(f"{spec.name}: unknown status: {', '.join(sorted(unknown))}")


def _check_keys(spec: TableSpec, table: pa.Table) -> None:
    if table.group_by(list(spec.key)).aggregate([]).num_rows != table.num_rows:
        raise InvalidRows(f"{spec.name}: two rows have the same {', '.join(spec.key)}")


def _check_distribution(spec: TableSpec, table: pa.Table, group: Sequence[str]) -> None:
    ok = pc.equal(table.column(status_column(group[0])), str(Status.OK))
    total: pa.ChunkedArray | None = None
    for name in group:
        column = table.column(name)
        if not pc.all(pc.equal(pc.is_valid(column), ok), min_count=0).as_py():
            raise InvalidRows(f"{spec.name}: {name} must have a value where status is ok, and only there")
        values = column.filter(ok)
        if not pc.all(
            pc.and_(pc.greater_equal(values, 0), pc.less_equal(values, 1 + SUM_TOLERANCE)), min_count=0
        ).as_py():
            raise InvalidRows(f"{spec.name}: {name} leaves the range 0..1")
        total = values if total is None else pc.add(total, values)
    if total is not None and not pc.all(pc.less(pc.abs(pc.subtract(total, 1.0)), SUM_TOLERANCE), min_count=0).as_py():
        raise InvalidRows(f"{spec.name}: {group[0]} ... {group[-1]} do not sum to 1")


def add_store_columns(spec: TableSpec, rows: pa.Table, keys: Mapping[str, str] | str) -> pa.Table:
    """Return checked rows in key order with the columns `row_key` and `content`.

    Args:
        spec: the table.
        rows: rows with the columns of the table.
        keys: row key of each unit; one row key if all rows together are one unit.

    Raises:
        InvalidRows: see `conform`.
    """
    table = conform(spec, rows).sort_by(sort_order(spec))
    units: list[str] = table.column(spec.unit).to_pylist()
    if isinstance(keys, str):
        starts, row_keys = [0] if units else [], [keys] * len(units)
    else:
        starts, row_keys = [i for i, u in enumerate(units) if i == 0 or u != units[i - 1]], [keys[u] for u in units]
    digests = content_digests(table, starts)
    lengths = [stop - start for start, stop in pairwise([*starts, len(units)])]
    content = [d for d, n in zip(digests, lengths, strict=True) for _ in range(n)]
    table = table.append_column("row_key", pa.array(row_keys, pa.string()))
    return table.append_column("content", pa.array(content, pa.string()))


def sort_order(spec: TableSpec) -> list[tuple[str, str]]:
    """Return the sort keys of a table, as `pyarrow.Table.sort_by` takes them."""
    return [(name, "ascending") for name in spec.key]


def write_table(path: Path, spec: TableSpec, pieces: Iterable[pa.Table], plan: str, units: int) -> Footer:
    """Write a table file in one atomic step.

    The bytes depend on the rows only: the limits of the row groups do not depend on how units were computed.

    Args:
        path: path of the file.
        spec: the table.
        pieces: rows with the store's columns in key order: one piece for each unit of a blob table, so that only one
            unit lies in memory; otherwise a single piece.
        plan: digest of the plan that the table answers.
        units: number of units.

    Returns:
        The footer of the file.
    """
    size = BLOB_ROWS_PER_GROUP if spec.blob else ROWS_PER_GROUP
    statuses: Counter[str] = Counter()
    contents: list[str] = []

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, spec.stored_schema, compression="zstd") as writer:
            for piece in pieces:
                statuses.update(piece.column("status").to_pylist())
                contents.extend(dict.fromkeys(piece.column("content").to_pylist()))
                if piece.num_rows:
                    writer.write_table(piece.combine_chunks().cast(spec.stored_schema), row_group_size=size)
            writer.add_key_value_metadata({FOOTER: json.dumps(footer().__dict__, sort_keys=True).encode()})

    def footer() -> Footer:
        rows = sum(statuses.values())
        return Footer(spec.name, plan, digest(*contents), units, rows, dict(sorted(statuses.items())))

    commit(path, write)
    return footer()


def read_footer(path: Path) -> Footer | None:
    """Return the footer of a table file; None if there is no readable file."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
        return Footer(**json.loads(metadata[FOOTER]))
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return None


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of a table file.

    Args:
        path: the table file.
        columns: columns to read; by default all except binary ones.
    """
    with pq.ParquetFile(path) as file:
        if columns is None:
            columns = [field.name for field in file.schema_arrow if not pa.types.is_binary(field.type)]
        return file.read(columns=list(columns)).replace_schema_metadata(None)


def read_unit(path: Path, column: str, value: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the rows of one unit batch by batch; row groups that cannot hold it are not read.

    Args:
        path: the table file, sorted by `column`.
        column: name of a string column.
        value: value of `column` in the rows of the unit.
        columns: columns to return; by default all.
    """
    with pq.ParquetFile(path) as file:
        names = list(columns) if columns is not None else file.schema_arrow.names
        read = list(dict.fromkeys([*names, column]))
        position = file.schema_arrow.names.index(column)
        leaf = _leaf_index(file, column, position)
        for group in range(file.num_row_groups):
            statistics = file.metadata.row_group(group).column(leaf).statistics
            if statistics is not None and statistics.has_min_max and not statistics.min <= value <= statistics.max:
                continue
            for batch in file.iter_batches(batch_size=BLOB_ROWS_PER_GROUP, row_groups=[group], columns=read):
                rows = batch.filter(pc.equal(batch.column(column), value))
                if rows.num_rows:
                    yield rows.select(names)


def _leaf_index(file: pq.ParquetFile, column: str, default: int) -> int:
    paths = [file.schema.column(i).path for i in range(len(file.schema))]
    return paths.index(column) if column in paths else default
