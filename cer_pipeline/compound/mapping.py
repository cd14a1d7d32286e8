"""The stage class that maps fused segments to compound expressions.

Belongs here: from rows of `fused` to rows of `compound`. Does not belong here: the mapping itself (`ppa`).
"""

from __future__ import annotations

import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.compound.ppa import ppa
from cer_pipeline.compound.stages import PPA
from cer_pipeline.fusion.evidence import matrix, rows_of
from cer_pipeline.fusion.fuse import column
from cer_pipeline.labels import BASIC_COLUMNS, COMPOUND_COLUMNS
from cer_pipeline.stage import StageContext


class MapCompounds:
    """Rows of `compound` for segments; a segment without a fused value carries its status on."""

    def __init__(self, context: StageContext) -> None:
        self._inputs = context.inputs

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows for a batch of segments."""
        names = ["segment_id", "video_id", "segment", "status", "reason", *BASIC_COLUMNS]
        rows = rows_of(self._inputs.table("fused", names), "segment_id", units.column("segment_id"))
        values = ppa(matrix(rows, BASIC_COLUMNS))  # null, so NaN, stays NaN
        columns = {name: rows.column(name) for name in ("segment_id", "video_id", "segment", "status", "reason")}
        columns["method"] = pa.array([PPA] * rows.num_rows, pa.string())
        columns |= {name: column(values[:, k]) for k, name in enumerate(COMPOUND_COLUMNS)}
        return pa.table([columns[c.name] for c in tables.COMPOUNDS.columns], schema=tables.COMPOUNDS.schema)
