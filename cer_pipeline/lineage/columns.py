"""Column lineage of a table: the input columns that each of its columns comes from.

Belongs here: the rule that derives it from `StageSpec.reads`. Does not belong here: showing it (`assets.metadata`).
"""

from __future__ import annotations

from collections.abc import Mapping

from cer_pipeline.stage import StageSpec
from cer_pipeline.tables import STORE_COLUMNS

Source = tuple[str, str]
"""(table, column)."""

KEYS = frozenset({"video_id", "segment_id"})
"""Columns that name a unit, beside the key of a table."""


def column_sources(spec: StageSpec, specs: Mapping[str, StageSpec]) -> dict[str, list[Source]]:
    """Return the sources of the columns of a stage's table.

    A key column is copied from the first table of `reads` that has a column of this name among those that are read. A
    stage computes its other columns from all other columns that it reads. The columns of the store have no entry.

    Args:
        spec: the stage.
        specs: all stages by table.
    """
    read = [(table, column) for table, columns in spec.reads.items() for column in columns]
    values = [(table, column) for table, column in read if column not in KEYS | set(specs[table].table.key)]
    keys = KEYS | set(spec.table.key)
    copied = {column: [(table, column)] for table, column in reversed(read) if column in keys}
    store = {column.name for column in STORE_COLUMNS}
    sources = {c.name: copied.get(c.name, values) for c in spec.table.columns if c.name not in store}
    return {column: found for column, found in sources.items() if found}
