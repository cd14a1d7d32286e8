"""Columns of Arrow tables as arrays and lists, and `pyarrow.compute` for code that is type-checked.

Belongs here: conversions between Arrow and numpy or Python that several packages need. Does not belong here: reading
tables (`store`) or any column by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline.errors import CerError

pc: Final[Any] = importlib.import_module("pyarrow.compute")
"""`pyarrow.compute`, typed as Any: its functions are generated at import, so a type checker does not see them."""


def matrix(table: pa.Table, columns: Sequence[str]) -> NDArray[np.float64]:
    """Numeric columns side by side, null as NaN: [rows, columns]."""
    parts = [table.column(c).to_numpy().astype(np.float64, copy=False) for c in columns]
    return np.column_stack(parts) if parts else np.empty((table.num_rows, 0))


def texts(table: pa.Table, name: str) -> list[str]:
    """A text column without nulls."""
    return cast("list[str]", table.column(name).to_pylist())


def rows_of(table: pa.Table, key: str, wanted: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The rows of a table in the order of the wanted key values.

    Raises:
        CerError: the table lacks one of them.
    """
    position = {value: i for i, value in enumerate(table.column(key).to_pylist())}
    try:
        return table.take(pa.array([position[value] for value in wanted.to_pylist()], pa.int64()))  # none: typed too
    except KeyError as missing:
        what = f"a table has no row for a {key}"
        raise CerError(what, str(missing.args[0]), "materialise its upstream assets again") from None


def rows_where(table: pa.Table, name: str, value: str) -> pa.Table:
    """The rows of a table whose text column has a value."""
    return table.filter(pc.equal(table.column(name), value))


def video_slices(table: pa.Table) -> dict[str, slice]:
    """The rows of every video of a table in key order."""
    videos = texts(table, "video_id")
    starts = [i for i, v in enumerate(videos) if i == 0 or v != videos[i - 1]]
    return {videos[a]: slice(a, b) for a, b in zip(starts, [*starts[1:], len(videos)], strict=True)}


def rows_in(table: pa.Table, rows: slice) -> pa.Table:
    """The rows of a table in a slice."""
    return table.slice(rows.start, rows.stop - rows.start)


def column(values: NDArray[np.float64]) -> pa.Array:
    """A float column in which NaN is null."""
    return pa.array(values, pa.float64(), from_pandas=True)
