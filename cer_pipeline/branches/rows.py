"""Units and rows of the stages that all branches have: one per segment, with a value or with a status and its reason.

Belongs here: the plan over windows, and rows of `features/BRANCH` and `probabilities/BRANCH`. Light at import. Does not
belong here: what any branch computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline.arrow import texts
from cer_pipeline.labels import BASIC_COLUMNS
from cer_pipeline.plans import SEGMENT_COLUMNS, contents, plan_of
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import Inputs, StageContext
from cer_pipeline.status import Status
from cer_pipeline.store.fingerprint import digest
from cer_pipeline.tables import TableSpec

_WINDOW: Final = ("first_sample", "samples", "status", "reason")

Row = dict[str, Any]
Predict = Callable[[Row, NDArray[np.float32]], tuple[str, NDArray[np.float64]]]
"""(row of the plan, features) -> the name of the head, and probabilities [8] in the order of `labels.BASIC`."""


def segment_units(inputs: Inputs, _: Profile, sources: Sequence[str], by: str) -> pa.Table:
    """Plan one unit per segment, keyed by its window and the content of some tables.

    Args:
        inputs: tables of the shard.
        sources: the tables.
        by: column that selects the rows of these tables from which a segment is computed: video_id or segment_id.

    Returns:
        segment_id, video_id, segment, first_sample, samples, status and reason of each segment, unit, inputs.
    """
    segments = inputs.table("segments", [*SEGMENT_COLUMNS, *_WINDOW])
    windows = zip(*(segments.column(c).to_pylist() for c in _WINDOW), strict=True)
    parts = contents(inputs, sources, texts(segments, by), by)
    keys = [digest(*map(str, window), *content) for window, content in zip(windows, parts, strict=True)]
    return plan_of(segments, "segment_id", keys)


def by_video(units: pa.Table) -> dict[str, list[Row]]:
    """The rows of a batch of segments, grouped by video, in order."""
    groups: dict[str, list[Row]] = {}
    for row in units.to_pylist():
        groups.setdefault(row["video_id"], []).append(row)
    return groups


def feature_row(segment: Mapping[str, Any], features: Sequence[float] | NDArray[np.floating]) -> Row:
    """The row of a segment with features."""
    return _keys(segment) | {"features": features, "status": str(Status.OK), "reason": None}


def empty_row(segment: Mapping[str, Any], status: str | None = None, reason: str | None = None) -> Row:
    """The row of a segment without features or probabilities.

    Args:
        segment: holds the keys and, unless a status is given, the status and the reason.
        status: why there is no value.
        reason: what happened, for people.
    """
    if status is None:
        status, reason = segment["status"], segment["reason"]
    return _keys(segment) | {"status": str(status), "reason": reason}


def read_features(context: StageContext, table: str) -> dict[str, Row]:
    """The rows of a feature table of the shard by segment_id: features, status and reason."""
    rows = context.inputs.table(table, ["segment_id", "features", "status", "reason"])
    return {row["segment_id"]: row for row in rows.to_pylist()}


def probability_rows(units: pa.Table, features: Mapping[str, Row], predict: Predict, spec: TableSpec) -> pa.Table:
    """Rows of a probability table: a prediction, or the status of the features where these are missing.

    Args:
        units: rows of the plan, one a segment.
        features: see `read_features`.
        predict: the head.
        spec: the probability table.
    """
    rows = []
    for unit in units.to_pylist():
        known = features[unit["segment_id"]]
        row = empty_row(unit, known["status"], known["reason"])
        if known["status"] == Status.OK:
            model, values = predict(unit, np.asarray(known["features"], np.float32))
            row |= dict(zip(BASIC_COLUMNS, values.tolist(), strict=True)) | {"model": model}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=spec.schema)


def _keys(segment: Mapping[str, Any]) -> Row:
    return {name: segment[name] for name in SEGMENT_COLUMNS}
