"""The probabilities of all branches of a shard as arrays.

Belongs here: reading and aligning `probabilities/*` and `fused`. Does not belong here: what is done with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline.arrow import matrix, rows_of
from cer_pipeline.labels import BASIC_COLUMNS
from cer_pipeline.stage import Inputs
from cer_pipeline.status import Status

STATUS_PRIORITY: tuple[Status, ...] = (
    Status.FAILED,
    Status.UNDECODABLE,
    Status.NO_VIDEO,
    Status.NO_FACE,
    Status.NO_AUDIO,
    Status.NO_SPEECH,
    Status.NOT_ENGLISH,
    Status.EMPTY_TRANSCRIPT,
    Status.NO_CAPTION,
    Status.MODEL_UNAVAILABLE,
    Status.NOT_APPLICABLE,
)
"""Which of several reasons a row gives, the most telling first: an error that may hide a value, then what the recording
lacks (picture before sound), then what the machine lacks, and last that no value is due."""


@dataclass(frozen=True)
class BranchValues:
    """What the branches say about some segments.

    Args:
        branches: M names.
        probabilities: [n, M, 8]; NaN where the branch has no value.
        present: [n, M].
        statuses: [n, M] texts.
    """

    branches: tuple[str, ...]
    probabilities: NDArray[np.float64]
    present: NDArray[np.bool_]
    statuses: NDArray[np.object_]


def dominant_status(statuses: Sequence[str]) -> Status:
    """The status of a value that nothing could serve: the first in `STATUS_PRIORITY` that occurs."""
    found = set(statuses)
    return next((status for status in STATUS_PRIORITY if status in found), Status.FAILED)


def read_branches(inputs: Inputs, branches: Sequence[str], segment_ids: pa.Array | pa.ChunkedArray) -> BranchValues:
    """Read what the branches say about some segments.

    Args:
        inputs: tables of the shard.
        branches: names, M.
        segment_ids: n segments.
    """
    n, m = len(segment_ids), len(branches)
    values = np.full((n, m, len(BASIC_COLUMNS)), np.nan)
    statuses = np.empty((n, m), dtype=object)
    for i, branch in enumerate(branches):
        table = inputs.table(f"probabilities/{branch}", ["segment_id", "status", *BASIC_COLUMNS])
        rows = rows_of(table, "segment_id", segment_ids)
        values[:, i] = matrix(rows, BASIC_COLUMNS)
        statuses[:, i] = rows.column("status").to_pylist()
    present = statuses == str(Status.OK)
    values[~present] = np.nan
    return BranchValues(tuple(branches), values, present, statuses)
