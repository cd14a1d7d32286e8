"""The stage class that fuses the branches of a shard.

Belongs here: from probability tables to rows of `fused`. Does not belong here: the arithmetic (`combine`, `mhpf`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.arrow import column
from cer_pipeline.errors import CerError
from cer_pipeline.fusion.combine import Array, Mask, combine, equal_weights
from cer_pipeline.fusion.inputs import BranchValues, dominant_status, read_branches
from cer_pipeline.fusion.mhpf import load_mhpf
from cer_pipeline.fusion.specs import EQUAL, HEAD
from cer_pipeline.fusion.uncertainty import agreement, confidence, entropy, expressed
from cer_pipeline.labels import BASIC, BASIC_COLUMNS
from cer_pipeline.plans import SEGMENT_COLUMNS
from cer_pipeline.stage import StageContext
from cer_pipeline.status import Status

Columns = dict[str, pa.Array | pa.ChunkedArray]


class Fuse:
    """Rows of `fused` for segments: the fusion of all enabled branches, and of each named combination of them.

    A branch without a value is masked. A segment without any value gets one of the statuses of its branches
    (`inputs.STATUS_PRIORITY`), and a reason that lists all of them.

    A trained fusion matches its branches by name, in any order; those that are not fused count as absent. A branch that
    it was not trained with gets no weight, and `model` names it; a segment with values of such branches only is
    model_unavailable.
    """

    def __init__(self, context: StageContext) -> None:
        self._context = context
        method = context.profile["fusion"]["method"]
        self._trained = None if method == EQUAL else load_mhpf(context.weights.path(HEAD))
        if self._trained is not None and self._trained.method != method:
            then = f"set fusion.method to {self._trained.method}, or train the other form"
            raise CerError("the trained fusion is of another form", self._trained.method, then)
        if self._trained is not None and self._trained.classes != BASIC:
            raise CerError(
                "the trained fusion has other classes", ", ".join(self._trained.classes), "train it on 8 classes"
            )
        self._model = "equal_weights" if self._trained is None else f"{HEAD}: {method}"

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows for a batch of segments."""
        branches, modalities = (units.column(name)[0].as_py() for name in ("branches", "modalities"))
        combinations = dict(units.column("combinations")[0].as_py())
        values = read_branches(self._context.inputs, branches, units.column("segment_id"))
        if branches and len(self._unknown_branches(branches)) == len(branches):
            then = "train it again with these branches, or set fusion.method to equal"
            raise CerError("the trained fusion has none of the branches", ", ".join(branches), then)
        columns: Columns = {name: units.column(name) for name in SEGMENT_COLUMNS}
        columns |= self._fused(values, modalities)
        for name, own in combinations.items():
            some = [branches.index(branch) for branch in own]
            fused = self._fused(values.take(some), [modalities[i] for i in some])
            columns |= {f"{tables.prefix_of(name)}{key}": column for key, column in fused.items()}
        spec = tables.fused(branches, combinations)
        return pa.table([columns[c.name] for c in spec.columns], schema=spec.schema)

    def _unknown_branches(self, branches: Sequence[str]) -> list[str]:
        """Branches that the trained fusion was not trained with; none for equal weights."""
        return [] if self._trained is None else [b for b in branches if b not in self._trained.branches]

    def _weights(self, branches: Sequence[str], modalities: Sequence[str], values: Array, present: Mask) -> Array:
        if self._trained is None:
            return equal_weights(present, len(BASIC), modalities)
        return self._trained.weights_of(branches, values, present)

    def _fused(self, values: BranchValues, modalities: Sequence[str]) -> Columns:
        """Columns of one fusion, without prefix."""
        n, classes, branches = len(values.present), len(BASIC), values.branches
        unknown = self._unknown_branches(branches)
        usable: Mask = values.present & ~np.isin(np.array(branches, dtype=object), unknown)
        ok: Mask = np.any(usable, axis=1, keepdims=True)[:, 0]
        present, probabilities = usable[ok], values.probabilities[ok]
        fused, weights = combine(self._weights(branches, modalities, probabilities, present), probabilities, present)
        basic = np.full((n, classes), np.nan)
        basic[ok] = fused
        effective = np.zeros((n, len(branches), classes))
        effective[ok] = weights
        columns: Columns = {name: column(basic[:, i]) for i, name in enumerate(BASIC_COLUMNS)}
        columns |= {name: column(of(basic)) for name, of in _MEASURES.items()}
        columns["agreement"] = column(agreement(effective, values.probabilities))
        names = np.array(branches, dtype=object)
        columns["present"] = pa.array([list(names[row]) for row in values.present], pa.list_(pa.string()))
        for i, branch in enumerate(branches):
            columns[f"w_{branch}"] = pa.FixedSizeListArray.from_arrays(
                pa.array(np.ascontiguousarray(effective[:, i]).ravel()), classes, mask=pa.array(~ok)
            )
        model = self._model + (f"; not trained with {', '.join(unknown)}" if unknown else "")
        columns["model"] = pa.array([model if has_value else None for has_value in ok], pa.string())
        rows = list(zip(ok, values.statuses, strict=True))
        statuses = [str(Status.OK if has_value else _status(row)) for has_value, row in rows]
        reasons = [None if has_value else _reason(branches, row, unknown) for has_value, row in rows]
        return columns | {"status": pa.array(statuses, pa.string()), "reason": pa.array(reasons, pa.string())}


_MEASURES = {"expressed": expressed, "confidence": confidence, "entropy": entropy}


def _status(statuses: np.ndarray) -> Status:
    # A branch with a value, in a segment without a fused value, is one that the trained fusion was not trained with.
    return Status.MODEL_UNAVAILABLE if str(Status.OK) in statuses else dominant_status(list(statuses))


def _reason(branches: Sequence[str], statuses: np.ndarray, unknown: Sequence[str]) -> str:
    if not branches:
        return "the profile enables no branch"
    listed = ", ".join(f"{b} {s}" for b, s in zip(branches, statuses, strict=True))
    if str(Status.OK) in statuses:
        return f"the fusion was not trained with {', '.join(unknown)}: {listed}"
    return f"no branch has a value: {listed}"
