"""The stage class that fuses the branches of a shard.

Belongs here: from probability tables to rows of `fused`. Does not belong here: the arithmetic (`combine`, `mhpf`).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.fusion.combine import Array, Mask, combine, equal_weights
from cer_pipeline.fusion.evidence import Evidence, most_telling, read_evidence
from cer_pipeline.fusion.stages import EQUAL
from cer_pipeline.labels import BASIC_COLUMNS
from cer_pipeline.stage import StageContext
from cer_pipeline.status import Status


class Fuse:
    """Rows of `fused` for segments.

    A branch without a value is masked. A segment that no branch could serve gets the most telling of their statuses
    (`evidence.TELLING`), and a reason that lists what every branch said.
    """

    def __init__(self, context: StageContext) -> None:
        self._context = context
        method = context.profile["fusion"]["method"]
        if method != EQUAL:
            raise NotImplementedError(method)
        self._model = "equal_weights"

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows for a batch of segments."""
        branches = units.column("branches")[0].as_py() if units.num_rows else []
        evidence = read_evidence(self._context.inputs, branches, units.column("segment_id"))
        some: Mask = np.any(evidence.present, axis=1, keepdims=True)[:, 0]
        present = evidence.present[some]
        values = evidence.probabilities[some]
        fused, weights = combine(self._weights(values, present), values, present)
        return self._rows(units, evidence, some, fused, weights)

    def _weights(self, probabilities: Array, present: Mask) -> Array:
        return equal_weights(present, probabilities.shape[2])

    def _rows(self, units: pa.Table, evidence: Evidence, some: Mask, fused: Array, weights: Array) -> pa.Table:
        n, classes = len(some), len(BASIC_COLUMNS)
        spec = tables.fused(evidence.branches)
        full = np.full((n, classes), np.nan)
        full[some] = fused
        spread = np.zeros((n, len(evidence.branches), classes))
        spread[some] = weights
        columns: dict[str, pa.Array | pa.ChunkedArray] = {
            c: units.column(c) for c in ("segment_id", "video_id", "segment")
        }
        columns |= {name: column(full[:, i]) for i, name in enumerate(BASIC_COLUMNS)}
        names = np.array(evidence.branches, dtype=object)
        columns["present"] = pa.array([list(names[row]) for row in evidence.present], pa.list_(pa.string()))
        for i, branch in enumerate(evidence.branches):
            columns[f"w_{branch}"] = pa.FixedSizeListArray.from_arrays(
                pa.array(np.ascontiguousarray(spread[:, i]).ravel()), classes, mask=pa.array(~some)
            )
        columns["model"] = pa.array([self._model if ok else None for ok in some], pa.string())
        found = list(zip(some, evidence.statuses, strict=True))
        columns["status"] = pa.array([str(Status.OK if ok else most_telling(s)) for ok, s in found], pa.string())
        reasons = [None if ok else _reason(evidence.branches, s) for ok, s in found]
        columns["reason"] = pa.array(reasons, pa.string())
        return pa.table([columns[c.name] for c in spec.columns], schema=spec.schema)


def column(values: Array) -> pa.Array:
    """A float column in which NaN is null."""
    return pa.array(values, pa.float64(), from_pandas=True)


def _reason(branches: tuple[str, ...], statuses: np.ndarray) -> str:
    if not branches:
        return "the profile enables no branch"
    return "no branch has a value: " + ", ".join(f"{b} {s}" for b, s in zip(branches, statuses, strict=True))
