"""The stage class that maps segments to compound expressions, by every method whose inputs exist.

Belongs here: computing rows of `compound` from rows of `fused` and of the scene branch. Does not belong here: the
mappings themselves (`ppa`, `pfsa`) or their adjustment (`adjust`).

PPA reads the fused probabilities; it is also computed for each named combination of branches in `fused`. PFSA compares
the features of the scene branch with prototypes of the same kind of features: those of imported captions, computed by
the trained scene head. A segment that has only a text of the rule-based captioner is `not_applicable`; an imported
caption without the head, or with a head without prototypes, is `model_unavailable`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline import tables
from cer_pipeline.arrow import column, matrix, texts
from cer_pipeline.branches.scene.caption_head import SceneHead
from cer_pipeline.compound.adjust import Adjustment, adjusted
from cer_pipeline.compound.pfsa import pfsa
from cer_pipeline.compound.ppa import ppa
from cer_pipeline.fusion.uncertainty import confidence, entropy
from cer_pipeline.labels import BASIC_COLUMNS, COMPOUND, COMPOUND_COLUMNS
from cer_pipeline.perception.captions.registry import RULE_BASED_VIEW
from cer_pipeline.plans import SEGMENT_COLUMNS
from cer_pipeline.predictions.specs import CAPTIONS, PFSA, PPA, SCENE, SCENE_HEAD, fused_columns
from cer_pipeline.stage import UNIT, Inputs, StageContext
from cer_pipeline.status import Status

Array = NDArray[np.float64]

NOT_IMPORTED: Final = "prototypes exist for imported captions only, not for the describer's text"
NO_HEAD: Final = f"{SCENE_HEAD}: not on this machine; run `cer models pull`, or `cer train {SCENE}`"
NO_PROTOTYPES: Final = f"the trained scene head has no prototypes; run `cer train {SCENE}` on more captions"
NO_FUSION: Final = "PFSA reads the scene branch, so it has no value for a combination of branches"
OTHER_FEATURES: Final = f"the features were made without {SCENE_HEAD}; run `cer run` for features/{SCENE} too"


@dataclass(frozen=True)
class Mapped:
    """Values of one method for all segments of a shard, in the order of `fused`.

    Args:
        values: [n, 7]; NaN without a value.
        statuses: [n].
        reasons: [n].
        carried: columns of `fused` that the rows repeat where they have a value.
    """

    values: Array
    statuses: list[str]
    reasons: list[str | None]
    carried: dict[str, list[float | None]] = field(default_factory=dict)

    def row(self, i: int) -> dict[str, Any]:
        """Columns of a segment without prefix, except confidence and entropy."""
        columns: dict[str, Any] = {"status": self.statuses[i], "reason": self.reasons[i]}
        if self.statuses[i] == Status.OK:
            columns |= dict(zip(COMPOUND_COLUMNS, self.values[i].tolist(), strict=True))
            columns |= {name: values[i] for name, values in self.carried.items()}
        return columns


class MapCompounds:
    """Rows of `compound`: one per segment and method.

    All segments of the shard are mapped at once, because an adjustment reads other segments; the plan puts everything
    that the rows of a segment depend on into its key.
    """

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._mapped: dict[str, dict[str, Mapped]] | None = None
        self._index: dict[str, int] = {}
        self._keys: list[dict[str, Any]] = []

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows for a batch of segments."""
        if self._mapped is None:
            self._mapped = self._map(units.column("methods")[0].as_py())
        rows = []
        for segment_id in units.column(UNIT).to_pylist():
            i = self._index[segment_id]
            for method, by_prefix in self._mapped.items():
                row = self._keys[i] | {"method": method}
                for prefix, mapped in by_prefix.items():
                    row |= {f"{prefix}{name}": value for name, value in mapped.row(i).items()}
                rows.append(row)
        prefixes = list(next(iter(self._mapped.values())))
        spec = tables.compounds(prefix.removesuffix(tables.SEPARATOR) for prefix in prefixes if prefix)
        table = pa.Table.from_pylist(rows, schema=spec.schema)
        for prefix in prefixes:
            table = _with_confidence(table, prefix)
        return table

    def _map(self, methods: Sequence[str]) -> dict[str, dict[str, Mapped]]:
        """Method -> prefix of the columns -> values of the shard."""
        inputs, settings = self._context.inputs, Adjustment.of(self._context.profile)
        combinations = list(self._context.profile["combinations"]["named"])
        fused = inputs.table("fused", fused_columns(combinations))
        self._keys = fused.select(SEGMENT_COLUMNS).to_pylist()
        self._index = {key["segment_id"]: i for i, key in enumerate(self._keys)}
        videos, segments = texts(fused, "video_id"), fused.column("segment").to_pylist()

        def adjust(mapped: Mapped) -> Mapped:
            return replace(mapped, values=adjusted(mapped.values, videos, segments, settings))

        prefixes = ["", *map(tables.prefix_of, combinations)]
        by_method = {PPA: {prefix: adjust(map_ppa(fused, prefix)) for prefix in prefixes}}
        if PFSA in methods:
            pfsa_values = map_pfsa(inputs, self._head(), texts(fused, "segment_id"))
            expressed = fused.column("expressed").to_pylist()
            by_method[PFSA] = dict.fromkeys(prefixes, _not_applicable(len(expressed)))
            by_method[PFSA][""] = adjust(replace(pfsa_values, carried={"expressed": expressed}))
        return by_method

    def _head(self) -> SceneHead | None:
        weights = self._context.weights
        return None if weights.digest(SCENE_HEAD) is None else SceneHead.load(weights.path(SCENE_HEAD))


def map_ppa(fused: pa.Table, prefix: str = "") -> Mapped:
    """PPA of all rows of `fused`, with the status of the fused value.

    Args:
        fused: the table.
        prefix: prefix of the columns of a combination of branches; "" for the fusion of all.
    """
    values = ppa(matrix(fused, [f"{prefix}{name}" for name in BASIC_COLUMNS]))  # null, so NaN, stays NaN
    carried = {name: fused.column(f"{prefix}{name}").to_pylist() for name in ("expressed", "agreement")}
    return Mapped(values, texts(fused, f"{prefix}status"), fused.column(f"{prefix}reason").to_pylist(), carried)


def _not_applicable(n: int) -> Mapped:
    return Mapped(np.full((n, len(COMPOUND)), np.nan), [str(Status.NOT_APPLICABLE)] * n, [NO_FUSION] * n)


def map_pfsa(inputs: Inputs, head: SceneHead | None, segment_ids: Sequence[str]) -> Mapped:
    """PFSA of segments, from the features of the scene branch.

    Args:
        inputs: the shard.
        head: the trained scene head; None where it is not on this machine.
        segment_ids: the segments, in the order of the result.
    """
    n = len(segment_ids)
    values = np.full((n, len(COMPOUND)), np.nan)
    features = _by_segment(inputs, f"features/{SCENE}", ["features", "status", "reason"])
    models = _by_segment(inputs, f"probabilities/{SCENE}", ["model"])
    imported, rule_based = _captioned(inputs)
    statuses = [str(Status.MODEL_UNAVAILABLE)] * n
    reasons: list[str | None] = [None] * n
    for i, segment_id in enumerate(segment_ids):
        row = features[segment_id]
        if segment_id in rule_based and segment_id not in imported:
            statuses[i], reasons[i] = str(Status.NOT_APPLICABLE), NOT_IMPORTED
        elif row["status"] != Status.OK:
            statuses[i], reasons[i] = row["status"], row["reason"]
        elif head is None:
            reasons[i] = NO_HEAD
        elif head.prototypes is None:
            reasons[i] = NO_PROTOTYPES
        elif models[segment_id]["model"] != SCENE_HEAD:  # computed without the head: features of another kind
            reasons[i] = OTHER_FEATURES
        else:
            vector = np.asarray(row["features"], np.float64)
            values[i] = pfsa(vector[None], head.prototypes, float(head.meta["pfsa_temperature"]))[0]
            statuses[i], reasons[i] = str(Status.OK), None
    return Mapped(values, statuses, reasons)


def _captioned(inputs: Inputs) -> tuple[set[str], set[str]]:
    """Segments with an imported text, and segments with a text of the rule-based captioner."""
    table = inputs.table(CAPTIONS, ["segment_id", "view", "status"])
    segments: tuple[set[str], set[str]] = (set(), set())
    for row in table.to_pylist():
        if row["status"] == Status.OK:
            segments[row["view"] == RULE_BASED_VIEW].add(row["segment_id"])
    return segments


def _with_confidence(rows: pa.Table, prefix: str) -> pa.Table:
    """Rows of `compound` with confidence and entropy of the values behind a prefix."""
    values = matrix(rows, [f"{prefix}{name}" for name in COMPOUND_COLUMNS])
    for name, measure in (("confidence", confidence(values)), ("entropy", entropy(values))):
        at = rows.schema.get_field_index(f"{prefix}{name}")
        rows = rows.set_column(at, rows.schema.field(at), column(measure))
    return rows


def _by_segment(inputs: Inputs, table: str, columns: list[str]) -> dict[str, dict[str, Any]]:
    rows = inputs.table(table, ["segment_id", *columns]).to_pylist()
    return {row["segment_id"]: row for row in rows}
