"""What the plans of several stages repeat: units, digests of what each is computed from, and lists of a unit.

Belongs here: helpers of the light `plan` functions that `stage.StageSpec` describes. Does not belong here: the plan of
any stage (the `specs` module of its package) or row keys (`store.fingerprint`).

A plan is a table with one row per unit. Its column `unit` names the unit, `inputs` holds a digest of everything that
the unit is computed from, and further columns hold what the stage class needs to know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from cer_pipeline.stage import INPUTS, UNIT, Inputs

SEGMENT_COLUMNS: Final = ("segment_id", "video_id", "segment")
"""Key columns of the tables that have one row per segment."""
VIDEO: Final = "video_id"


def contents(inputs: Inputs, tables: Iterable[str], units: Iterable[str], by: str = VIDEO) -> list[tuple[str, ...]]:
    """Digests of what some tables hold about each unit, in the order of the tables; "" where a table has no row of it.

    Args:
        inputs: tables of the shard.
        tables: table names.
        units: values of the column `by`.
        by: video_id or segment_id.
    """
    digests = [inputs.digests(name, by) for name in tables]
    return [tuple(known.get(unit, "") for known in digests) for unit in units]


def plan_of(rows: pa.Table, unit: str, digests: Sequence[str]) -> pa.Table:
    """Append the columns `unit` and `inputs`.

    Args:
        rows: one row per unit.
        unit: the column that names the unit.
        digests: of everything that each unit is computed from.
    """
    return rows.append_column(UNIT, rows.column(unit)).append_column(INPUTS, pa.array(digests, pa.string()))


def values_by_video(table: pa.Table, name: str) -> dict[str, list[Any]]:
    """The values of a column for each video, in the order of the table."""
    values: dict[str, list[Any]] = {}
    for video, value in zip(table.column(VIDEO).to_pylist(), table.column(name).to_pylist(), strict=True):
        values.setdefault(video, []).append(value)
    return values


def with_segments(plan: pa.Table, segments: pa.Table) -> pa.Table:
    """Append the lists `segments` (numbers) and `segment_ids` to a plan whose units are videos.

    Args:
        plan: with a column video_id.
        segments: columns video_id, segment and segment_id; a video without a row gets empty lists.
    """
    for name, column, kind in (("segments", "segment", pa.int32()), ("segment_ids", "segment_id", pa.string())):
        plan = plan.append_column(name, listed(plan, values_by_video(segments, column), kind))
    return plan


def listed(plan: pa.Table, values: Mapping[str, list[Any]], kind: pa.DataType, default: Sequence[Any] = ()) -> pa.Array:
    """The list of values of each video of a plan, as a column.

    Args:
        plan: with a column video_id.
        values: video_id -> values.
        kind: type of a value.
        default: values of a video that is not named.
    """
    videos = plan.column(VIDEO).to_pylist()
    return pa.array([values.get(video, list(default)) for video in videos], pa.list_(kind))


def repeated(plan: pa.Table, name: str, values: Sequence[str]) -> pa.Table:
    """Append a column that holds the same list of texts in every row."""
    return plan.append_column(name, pa.array([list(values)] * plan.num_rows, pa.list_(pa.string())))


def segment_keys(unit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Keys of the placeholder rows of a video: one per segment, from the lists that `with_segments` appended."""
    return [
        {"segment": segment, "segment_id": segment_id}
        for segment, segment_id in zip(unit["segments"], unit["segment_ids"], strict=True)
    ]
