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
from cer_pipeline.fusion.mhpf import DYNAMIC, STATIC, load_mhpf
from cer_pipeline.fusion.specs import EQUAL, HEAD
from cer_pipeline.fusion.uncertainty import agreement, confidence, entropy, expressed
from cer_pipeline.labels import BASIC, BASIC_COLUMNS
from cer_pipeline.stage import StageContext
from cer_pipeline.status import Status


class Fuse:
    """Rows of `fused` for segments.

    A branch without a value is masked. A segment that no branch could serve gets the most telling of their statuses
    (`evidence.STATUS_PRIORITY`), and a reason that lists what every branch said.

    A trained fusion takes its branches by name, in any order, and those of them that the profile does not enable for
    absent. A branch that it was not trained with gets no weight, and `model` names it; a segment that only such
    branches could serve is model_unavailable.
    """

    def __init__(self, context: StageContext) -> None:
        self._context = context
        method = context.profile["fusion"]["method"]
        if method not in (EQUAL, STATIC, DYNAMIC):
            raise CerError("fusion.method must be equal, static or dynamic", str(method))
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
        branches = units.column("branches")[0].as_py() if units.num_rows else []
        evidence = read_branches(self._context.inputs, branches, units.column("segment_id"))
        strangers = self._strangers(branches)
        usable: Mask = evidence.present & ~np.isin(np.array(branches, dtype=object), strangers)
        some: Mask = np.any(usable, axis=1, keepdims=True)[:, 0]
        present = usable[some]
        values = evidence.probabilities[some]
        modalities = units.column("modalities")[0].as_py() if units.num_rows else []
        fused, weights = combine(self._weights(branches, modalities, values, present), values, present)
        return self._rows(units, evidence, some, fused, weights)

    def _strangers(self, branches: Sequence[str]) -> list[str]:
        """Branches that the trained fusion does not know."""
        found = [] if self._trained is None else [b for b in branches if b not in self._trained.branches]
        if found and len(found) == len(branches):
            then = "train it again with these branches, or set fusion.method to equal"
            raise CerError("the trained fusion knows none of the branches", ", ".join(found), then)
        return found

    def _weights(self, branches: list[str], modalities: list[str], probabilities: Array, present: Mask) -> Array:
        if self._trained is None:
            return equal_weights(present, probabilities.shape[2], modalities)
        return self._trained.weights_of(branches, probabilities, present)

    def _rows(self, units: pa.Table, evidence: BranchValues, some: Mask, fused: Array, weights: Array) -> pa.Table:
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
        said = {"expressed": expressed(full), "confidence": confidence(full), "entropy": entropy(full)}
        said["agreement"] = agreement(spread, evidence.probabilities)
        columns |= {name: column(values) for name, values in said.items()}
        names = np.array(evidence.branches, dtype=object)
        columns["present"] = pa.array([list(names[row]) for row in evidence.present], pa.list_(pa.string()))
        for i, branch in enumerate(evidence.branches):
            columns[f"w_{branch}"] = pa.FixedSizeListArray.from_arrays(
                pa.array(np.ascontiguousarray(spread[:, i]).ravel()), classes, mask=pa.array(~some)
            )
        strangers = self._strangers(evidence.branches)
        model = self._model + (f"; not trained with {', '.join(strangers)}" if strangers else "")
        columns["model"] = pa.array([model if ok else None for ok in some], pa.string())
        found = list(zip(some, evidence.statuses, strict=True))
        columns["status"] = pa.array([str(Status.OK if ok else _status(s)) for ok, s in found], pa.string())
        reasons = [None if ok else _reason(evidence.branches, s, strangers) for ok, s in found]
        columns["reason"] = pa.array(reasons, pa.string())
        return pa.table([columns[c.name] for c in spec.columns], schema=spec.schema)


def _status(statuses: np.ndarray) -> Status:
    # A segment without a fused value that some branch serves: the trained fusion does not know that branch.
    return Status.MODEL_UNAVAILABLE if str(Status.OK) in statuses else dominant_status(list(statuses))


def _reason(branches: tuple[str, ...], statuses: np.ndarray, strangers: Sequence[str]) -> str:
    if not branches:
        return "the profile enables no branch"
    said = ", ".join(f"{b} {s}" for b, s in zip(branches, statuses, strict=True))
    if str(Status.OK) in statuses:
        return f"the fusion was not trained with {', '.join(strangers)}: {said}"
    return f"no branch has a value: {said}"
