"""The default engine: one stage instance in this process, units in chunks.

Belongs here: running a stage over chunks of units, and isolating a unit that fails. Does not belong here: caching
(`store`).
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from cer_pipeline.arrow import pc
from cer_pipeline.errors import CerError
from cer_pipeline.stage import UNIT, Outcome, Stage, StageContext, StageSpec
from cer_pipeline.store.files import is_disk_full

REASON_CHARACTERS = 300  # longest error message in a table cell


def run_chunks(spec: StageSpec, context: StageContext, units: pa.Table, size: int) -> Iterator[Outcome]:
    """Run a stage over units, chunk by chunk.

    A chunk that raises is run again unit by unit, so that one bad unit affects only its own rows.

    Args:
        spec: the stage; its class is constructed once, before the first chunk.
        context: argument of the constructor.
        units: rows of the plan.
        size: number of units in a chunk.

    Yields:
        The outcome of each chunk.

    Raises:
        CerError: no unit can be computed (missing weights, full disk).
    """
    stage = spec.load()(context)
    for start in range(0, units.num_rows, size):
        chunk = units.slice(start, size)
        try:
            yield chunk, _rows(spec, stage, chunk), {}
        except Exception as error:  # noqa: BLE001 - an error in a damaged input affects only its own rows
            _raise_if_fatal(error)
            if chunk.num_rows == 1:
                yield chunk, None, {chunk.column(UNIT)[0].as_py(): reason_of(error)}
            else:
                yield _one_by_one(spec, stage, chunk)


def _one_by_one(spec: StageSpec, stage: Stage, chunk: pa.Table) -> Outcome:
    parts: list[pa.Table] = []
    failures: dict[str, str] = {}
    for i in range(chunk.num_rows):
        unit = chunk.slice(i, 1)
        try:
            parts.append(_rows(spec, stage, unit))
        except Exception as error:  # noqa: BLE001
            _raise_if_fatal(error)
            failures[unit.column(UNIT)[0].as_py()] = reason_of(error)
    return chunk, pa.concat_tables(parts) if parts else None, failures


def _rows(spec: StageSpec, stage: Stage, units: pa.Table) -> pa.Table:
    """Return the rows of the stage for some units after checking that they belong to exactly these units."""
    rows = stage(units)
    rows = rows.select([c.name for c in spec.table.columns]).cast(spec.table.schema)
    expected = set(units.column(UNIT).to_pylist())
    actual = set(pc.unique(rows.column(spec.table.unit)).to_pylist())
    missing, unexpected = sorted(expected - actual), sorted(actual - expected)
    if unexpected or (missing and not spec.may_be_empty):
        raise ValueError(f"{spec.name} gave rows of other units: missing {missing[:3]}, unexpected {unexpected[:3]}")
    return rows


def reason_of(error: BaseException) -> str:
    """Return an error as one line for a table cell."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= REASON_CHARACTERS else text[: REASON_CHARACTERS - 3] + "..."


def _raise_if_fatal(error: Exception) -> None:
    if isinstance(error, CerError | MemoryError):
        raise error
    if is_disk_full(error):
        raise CerError("the disk is full", then="free some space and run again; nothing is lost") from error
