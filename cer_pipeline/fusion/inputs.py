"""The probabilities of several branches as arrays, and the status of a row without a value.

Belongs here: reading and aligning the tables `probabilities/*`. Does not belong here: any computation on them.
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
from cer_pipeline.tables import SEPARATOR

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
"""Order in which one status is chosen for a row that several statuses apply to: an error that may hide a value, then
what the recording lacks (picture before sound), then what the machine lacks, then that no value is expected."""


@dataclass(frozen=True)
class BranchValues:
    """The values of M branches for n segments.

    Args:
        branches: names [M].
        probabilities: [n, M, 8]; NaN where a branch has no value.
        present: [n, M], whether a branch has a value.
        statuses: [n, M], of the rows of the branches.
    """

    branches: tuple[str, ...]
    probabilities: NDArray[np.float64]
    present: NDArray[np.bool_]
    statuses: NDArray[np.object_]

    def take(self, indices: Sequence[int]) -> BranchValues:
        """The values of some of the branches."""
        some = list(indices)
        names = tuple(self.branches[i] for i in some)
        return BranchValues(names, self.probabilities[:, some], self.present[:, some], self.statuses[:, some])


def dominant_status(statuses: Sequence[str]) -> Status:
    """Return the first status in the order of `STATUS_PRIORITY`; `failed` where none of them occurs."""
    return next((status for status in STATUS_PRIORITY if status in statuses), Status.FAILED)


def combinations_in(columns: Sequence[str]) -> list[str]:
    """Names of the combinations of branches among the columns of `fused` or `compound`."""
    end = f"{SEPARATOR}status"
    return [name.removesuffix(end) for name in columns if name.endswith(end) and not name.startswith("w_")]


def read_branches(inputs: Inputs, branches: Sequence[str], segment_ids: pa.Array | pa.ChunkedArray) -> BranchValues:
    """Read the values of some branches for some segments.

    Args:
        inputs: tables of the shard.
        branches: names [M].
        segment_ids: segments [n].

    Raises:
        CerError: a table has no row of a segment.
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
