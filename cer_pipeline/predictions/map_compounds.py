"""The stage class that maps segments to compound expressions, by every method that there is evidence for.

Belongs here: from rows of `fused` and of the scene branch to rows of `compound`. Does not belong here: the mappings
themselves (`ppa`, `pfsa`) or what is changed afterwards (`adjust`).

PPA reads the fused probabilities. PFSA compares the features of the scene branch with prototypes that were made of the
same kind of features: of imported captions, by the trained scene head. To a segment that has only the describer's text
it does not apply (`not_applicable`); an imported caption without the head, or with one that has no prototypes, is
`model_unavailable`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline import tables
from cer_pipeline.branches.scene.caption_head import SceneHead
from cer_pipeline.compound.adjust import Adjustment, adjusted
from cer_pipeline.compound.pfsa import pfsa
from cer_pipeline.compound.ppa import ppa
from cer_pipeline.fusion.fuse import column
from cer_pipeline.fusion.inputs import matrix, texts
from cer_pipeline.fusion.uncertainty import confidence, entropy
from cer_pipeline.labels import BASIC_COLUMNS, COMPOUND, COMPOUND_COLUMNS
from cer_pipeline.perception.captions.registry import RULE_BASED_VIEW as DESCRIBER
from cer_pipeline.predictions.specs import CAPTIONS, PFSA, PPA, SCENE, SCENE_HEAD
from cer_pipeline.stage import UNIT, Inputs, StageContext
from cer_pipeline.status import Status

Array = NDArray[np.float64]

NOT_IMPORTED: Final = "prototypes exist for imported captions only, not for the describer's text"
NO_HEAD: Final = f"{SCENE_HEAD}: not on this machine; run `cer models pull`, or `cer train {SCENE}`"
NO_PROTOTYPES: Final = f"the trained scene head has no prototypes; run `cer train {SCENE}` on more captions"
OTHER_FEATURES: Final = f"the features were made without {SCENE_HEAD}; run `cer run` for features/{SCENE} too"


@dataclass(frozen=True)
class Mapped:
    """What one method says of all segments of a shard, in the order of `fused`.

    Args:
        values: [n, 7]; NaN without a value.
        statuses: [n].
        reasons: [n].
    """

    values: Array
    statuses: list[str]
    reasons: list[str | None]


class MapCompounds:
    """Rows of `compound`: one a segment and method.

    The mapping is of all segments of the shard at once, because the adjustments look beyond a segment; the plan puts
    into a segment's key whatever its rows depend on.
    """

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._methods: dict[str, Mapped] | None = None
        self._row: dict[str, int] = {}
        self._keys: list[dict[str, Any]] = []
        self._fused: dict[str, list[float | None]] = {}

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows for a batch of segments."""
        if self._methods is None:
            self._methods = self._map(units.column("methods")[0].as_py()) if units.num_rows else {}
        rows = []
        for segment_id in units.column(UNIT).to_pylist():
            i = self._row[segment_id]
            for method, mapped in self._methods.items():
                row = self._keys[i] | {"method": method, "status": mapped.statuses[i], "reason": mapped.reasons[i]}
                if mapped.statuses[i] == Status.OK:
                    row |= dict(zip(COMPOUND_COLUMNS, mapped.values[i].tolist(), strict=True))
                    row["expressed"] = self._fused["expressed"][i]
                    row["agreement"] = self._fused["agreement"][i] if method == PPA else None
                rows.append(row)
        return _with_sureness(pa.Table.from_pylist(rows, schema=tables.COMPOUNDS.schema))

    def _map(self, methods: Sequence[str]) -> dict[str, Mapped]:
        inputs, settings = self._context.inputs, Adjustment.of(self._context.profile)
        carried = ["expressed", "agreement"]
        names = ["segment_id", "video_id", "segment", "status", "reason", *BASIC_COLUMNS, *carried]
        fused = inputs.table("fused", names)
        self._fused = {name: fused.column(name).to_pylist() for name in carried}
        self._keys = fused.select(["segment_id", "video_id", "segment"]).to_pylist()
        self._row = {key["segment_id"]: i for i, key in enumerate(self._keys)}
        found = {PPA: map_ppa(fused)}
        if PFSA in methods:
            found[PFSA] = map_pfsa(inputs, self._head(), texts(fused, "segment_id"))
        videos, segments = texts(fused, "video_id"), fused.column("segment").to_pylist()
        return {
            name: Mapped(adjusted(m.values, videos, segments, settings), m.statuses, m.reasons)
            for name, m in found.items()
        }

    def _head(self) -> SceneHead | None:
        weights = self._context.weights
        return None if weights.digest(SCENE_HEAD) is None else SceneHead.load(weights.path(SCENE_HEAD))


def map_ppa(fused: pa.Table) -> Mapped:
    """PPA of all rows of `fused`; a segment without a fused value carries its status on."""
    values = ppa(matrix(fused, BASIC_COLUMNS))  # null, so NaN, stays NaN
    return Mapped(values, texts(fused, "status"), fused.column("reason").to_pylist())


def map_pfsa(inputs: Inputs, head: SceneHead | None, segment_ids: Sequence[str]) -> Mapped:
    """PFSA of segments, from the features of the scene branch.

    Args:
        inputs: the shard.
        head: the trained scene head; None where it is not on this machine.
        segment_ids: which segments, in which order.
    """
    n = len(segment_ids)
    values = np.full((n, len(COMPOUND)), np.nan)
    features = _by_segment(inputs, f"features/{SCENE}", ["features", "status", "reason"])
    judged = _by_segment(inputs, f"probabilities/{SCENE}", ["model"])
    imported, described = _captioned(inputs)
    statuses = [str(Status.MODEL_UNAVAILABLE)] * n
    reasons: list[str | None] = [None] * n
    for i, segment_id in enumerate(segment_ids):
        row = features[segment_id]
        if segment_id in described and segment_id not in imported:
            statuses[i], reasons[i] = str(Status.NOT_APPLICABLE), NOT_IMPORTED
        elif row["status"] != Status.OK:
            statuses[i], reasons[i] = row["status"], row["reason"]
        elif head is None:
            reasons[i] = NO_HEAD
        elif head.prototypes is None:
            reasons[i] = NO_PROTOTYPES
        elif judged[segment_id]["model"] != SCENE_HEAD:  # made before the head was there: features of another kind
            reasons[i] = OTHER_FEATURES
        else:
            vector = np.asarray(row["features"], np.float64)
            values[i] = pfsa(vector[None], head.prototypes, float(head.meta["pfsa_temperature"]))[0]
            statuses[i], reasons[i] = str(Status.OK), None
    return Mapped(values, statuses, reasons)


def _captioned(inputs: Inputs) -> tuple[set[str], set[str]]:
    """Segments with an imported text, and segments with one by the describer."""
    table = inputs.table(CAPTIONS, ["segment_id", "view", "status"])
    found: tuple[set[str], set[str]] = (set(), set())
    for row in table.to_pylist():
        if row["status"] == Status.OK:
            found[row["view"] == DESCRIBER].add(row["segment_id"])
    return found


def _with_sureness(rows: pa.Table) -> pa.Table:
    """Rows of `compound` with their confidence and entropy."""
    values = matrix(rows, COMPOUND_COLUMNS)
    for name, found in (("confidence", confidence(values)), ("entropy", entropy(values))):
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, rows.schema.field(at), column(found))
    return rows


def _by_segment(inputs: Inputs, table: str, columns: list[str]) -> dict[str, dict[str, Any]]:
    rows = inputs.table(table, ["segment_id", *columns]).to_pylist()
    return {row["segment_id"]: row for row in rows}
