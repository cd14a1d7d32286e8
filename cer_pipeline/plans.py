"""Parts of plans that several stages share.

Belongs here: units with the digest of what each is computed from. Does not belong here: the plan of one stage (the
`specs` module of its package). Light at import.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import pyarrow as pa

from cer_pipeline.profiles import Profile
from cer_pipeline.stage import INPUTS, UNIT, Inputs
from cer_pipeline.store.fingerprint import digest

_SEGMENT: Final = ("segment_id", "video_id", "segment", "first_sample", "samples", "status", "reason")
_WINDOW: Final = _SEGMENT[3:]  # what a segment's row says of its window


def contents(
    inputs: Inputs, sources: Iterable[str], values: Sequence[str], column: str = "video_id"
) -> list[tuple[str, ...]]:
    """For each value of a column, the digest of its rows in each of some tables; "" where a table has none.

    Args:
        inputs: tables of the shard.
        sources: names of the tables.
        values: values of the column.
        column: video_id or segment_id.
    """
    digests = [inputs.digests(name, column) for name in sources]
    return [tuple(known.get(value, "") for known in digests) for value in values]


def with_keys(units: pa.Table, unit: str, keys: Iterable[str]) -> pa.Table:
    """A plan: units with the columns `unit`, which repeats one of theirs, and `inputs`.

    Args:
        units: one row a unit.
        unit: column that names the unit: video_id or segment_id.
        keys: digest of what each unit is computed from.
    """
    return units.append_column(UNIT, units.column(unit)).append_column(INPUTS, pa.array(list(keys), pa.string()))


def segment_units(inputs: Inputs, profile: Profile, sources: Sequence[str], by: str) -> pa.Table:
    """One unit a segment, keyed by its window and by the content of some tables.

    Args:
        inputs: tables of the shard.
        profile: not read.
        sources: the tables.
        by: column that selects the rows of these tables from which a segment is computed: video_id or segment_id.

    Returns:
        segment_id, video_id, segment, first_sample, samples, status and reason of the segment, unit, inputs.
    """
    del profile
    segments = inputs.table("segments", list(_SEGMENT))
    known = contents(inputs, sources, segments.column(by).to_pylist(), by)
    rows = segments.select(list(_WINDOW)).to_pylist()
    keys = [digest(*(str(row[c]) for c in _WINDOW), *own) for row, own in zip(rows, known, strict=True)]
    return with_keys(segments, "segment_id", keys)
