"""The stages of every branch that reads a text per segment: text -> 384 features -> 8 probabilities.

Belongs here: the specs' builder with its plans (light at import), and the rows of both stages. Does not belong here:
which text and which head a branch has (`scene`, `text`), the encoder (`minilm`) or the heads (`prompts`, trained ones).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline import tables
from cer_pipeline.branches.spec import BranchSpec
from cer_pipeline.labels import BASIC_COLUMNS
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import INPUTS, UNIT, Inputs, StageContext, StageSpec
from cer_pipeline.status import Status
from cer_pipeline.store.fingerprint import digest

SIZE = 384  # of MiniLM's vectors
MINILM = "minilm"
_KEYS = ("segment_id", "video_id", "segment")


class Head(Protocol):
    """What ends a branch."""

    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """[384] -> [8] in the order of `labels.BASIC`, summing to 1."""
        ...


def branch(
    name: str,
    title: str,
    modality: str,
    table1: int,
    source: str,
    embed: str,
    judge: str,
    config: tuple[str, ...],
    trained: tuple[str, ...] = (),
) -> BranchSpec:
    """A branch over a table with one text per segment.

    Args:
        name: branch name.
        title: what people read.
        modality: see `BranchSpec`.
        table1: see `BranchSpec`.
        source: the table with the columns text and status: captions or transcripts.
        embed: import path of the features stage.
        judge: import path of the probabilities stage.
        config: profile sections that the probabilities depend on.
        trained: zoo id of the trained head, used where it is present.
    """
    features = StageSpec(
        table=tables.features(name, SIZE),
        description=f"MiniLM vectors of {source}.",
        group="features",
        inputs=(source,),
        plan=partial(_plan_texts, source),
        stage=embed,
        code_version="1",
        models=(MINILM,),
        optional_models=trained,
        kinds=("parquet", "torch"),
    )
    probabilities = StageSpec(
        table=tables.probabilities(name),
        description=f"Basic emotions of every segment from {source}: a trained head, or likeness to sentences.",
        group="probabilities",
        inputs=(features.name,),
        plan=partial(_plan_features, features.name),
        stage=judge,
        code_version="1",
        config=config,
        models=(MINILM,),
        optional_models=trained,
        kinds=("parquet", "numpy"),
        chunk_units=4096,
    )
    return BranchSpec(name, title, modality, table1, features, probabilities)


def _plan_texts(source: str, inputs: Inputs, _: Profile) -> pa.Table:
    """One row per segment with its text; the key is the text itself, so that equal texts cost nothing again."""
    table = inputs.table(source, [*_KEYS, "text", "status", "reason"])
    parts = zip(*(table.column(c).to_pylist() for c in ("text", "status", "reason")), strict=True)
    digests = pa.array([digest(text or "", status, reason or "") for text, status, reason in parts], pa.string())
    return table.append_column(UNIT, table.column("segment_id")).append_column(INPUTS, digests)


def _plan_features(source: str, inputs: Inputs, _: Profile) -> pa.Table:
    table = inputs.table(source, [*_KEYS, "status", "reason"])
    ids = table.column("segment_id")
    seen = inputs.digests(source, unit="segment_id")
    digests = pa.array([seen.get(segment, "") for segment in ids.to_pylist()], pa.string())
    return table.append_column(UNIT, ids).append_column(INPUTS, digests)


def embed_rows(units: pa.Table, encode: Callable[[str], NDArray[np.floating]], spec: tables.TableSpec) -> pa.Table:
    """Rows of a features table: the vector of the text, or the text's status where it has none.

    Args:
        units: rows of the plan.
        encode: text -> [384]; asked once for equal texts.
        spec: the features table.
    """
    known: dict[str, list[float]] = {}
    rows = []
    for unit in units.to_pylist():
        row = {name: unit[name] for name in _KEYS} | {"status": unit["status"], "reason": unit["reason"]}
        if unit["status"] == Status.OK:
            if unit["text"] not in known:
                known[unit["text"]] = encode(unit["text"]).astype(np.float32).tolist()
            row["features"] = known[unit["text"]]
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=spec.schema)


def judge_rows(
    units: pa.Table, features: dict[str, list[float] | None], head: Head, model: str, spec: tables.TableSpec
) -> pa.Table:
    """Rows of a probabilities table: what the head says, or the features' status where there are none.

    Args:
        units: rows of the plan.
        features: segment_id -> vector.
        head: the head.
        model: what to write into the column `model`.
        spec: the probabilities table.
    """
    rows = []
    for unit in units.to_pylist():
        row: dict[str, Any] = {name: unit[name] for name in _KEYS} | {
            "status": unit["status"],
            "reason": unit["reason"],
        }
        vector = features.get(unit["segment_id"])
        if unit["status"] == Status.OK and vector is not None:
            values = head.probabilities(np.asarray(vector, dtype=np.float32))
            row |= dict(zip(BASIC_COLUMNS, values.tolist(), strict=True)) | {"model": model}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=spec.schema)


def read_features(context: StageContext, table: str) -> dict[str, list[float] | None]:
    """The vectors of the shard by segment_id."""
    rows = context.inputs.table(table, ["segment_id", "features"])
    return dict(zip(rows.column("segment_id").to_pylist(), rows.column("features").to_pylist(), strict=True))
