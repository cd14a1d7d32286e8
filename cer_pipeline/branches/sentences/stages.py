"""The stages of every branch that reads texts of a segment: texts -> 384 features -> 8 probabilities.

Belongs here: the specs' builder with its plans (light at import), and the rows of both stages. Does not belong here:
which table and which head a branch has (`scene`, `text`), the encoder (`minilm`) or the heads (`zero_shot`, `heads`).

A transcript is one text a segment. Captions may be several, one a view. Where texts were imported, the branches read
these alone, and the describer's text only where no imported one says anything: an imported text judges the whole scene
and there are heads trained on its kind, while the describer names single signs of face and voice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline import tables
from cer_pipeline.branch import BranchSpec
from cer_pipeline.labels import BASIC_COLUMNS
from cer_pipeline.perception.speech.language import ENGLISH
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import INPUTS, UNIT, Inputs, StageContext, StageSpec
from cer_pipeline.status import Status
from cer_pipeline.store.fingerprint import digest

SIZE = 384  # of MiniLM's vectors
MINILM = "minilm"
DESCRIBER: Final = "describer"  # the view of our own describer; every other view was imported
CAPTIONS: Final = "captions"
_KEYS = ("segment_id", "video_id", "segment")
_TEXT_COLUMNS: Final = {
    CAPTIONS: (*_KEYS, "view", "text", "status", "reason"),
    "transcripts": (*_KEYS, "language", "text", "status", "reason"),
}
_PLAN: Final = pa.schema(
    [
        *(pa.field(name, kind) for name, kind in zip(_KEYS, (pa.string(), pa.string(), pa.int32()), strict=True)),
        *(pa.field(name, pa.string()) for name in ("status", "reason", UNIT, INPUTS)),
        pa.field("imported", pa.bool_()),
        pa.field("texts", pa.list_(pa.string())),
    ]
)


class Head(Protocol):
    """What ends a branch, where the features say it all."""

    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """[384] -> [8] in the order of `labels.BASIC`, summing to 1."""
        ...


@dataclass(frozen=True)
class Reader:
    """How the texts of a segment become its features.

    Args:
        encode: texts -> one vector [384] each.
        combine: the vectors of a segment's texts [views, 384] -> its features [384].
    """

    encode: Callable[[Sequence[str]], Iterable[NDArray[np.floating]]]
    combine: Callable[[NDArray[np.floating]], NDArray[np.floating]]


Judge = Callable[[Mapping[str, Any], NDArray[np.floating]], tuple[str, NDArray[np.float64]]]
"""A row of the plan and its features -> what to write into the column `model`, and probabilities [8]."""


def middle(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """Vectors of length 1 -> their mean brought to length 1; a single vector stays as it is."""
    if len(vectors) == 1:
        return vectors[0]
    mean = vectors.mean(0)
    return mean / np.linalg.norm(mean)


def judged_by(head: Head, model: str) -> Judge:
    """A judge that needs the features alone."""
    return lambda _, features: (model, head.probabilities(features))


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
    """A branch over a table with texts of segments.

    Args:
        name: branch name.
        title: what people read.
        modality: see `BranchSpec`.
        table1: see `BranchSpec`.
        source: the table with the texts: captions or transcripts.
        embed: import path of the features stage.
        judge: import path of the probabilities stage.
        config: profile sections that the probabilities depend on.
        trained: zoo id of the trained head, used where it is present.
    """
    features = StageSpec(
        table=tables.features(name, SIZE),
        description=f"MiniLM vectors of {source}.",
        group="features",
        reads={source: _TEXT_COLUMNS[source]},
        inputs=(source,),
        plan=partial(_plan_texts, source),
        stage=embed,
        code_version="2",
        models=(MINILM,),
        optional_models=trained,
        kinds=("parquet", "torch"),
    )
    probabilities = StageSpec(
        table=tables.probabilities(name),
        description=f"Basic emotions of every segment from {source}: a trained head, or likeness to sentences.",
        group="probabilities",
        reads={features.name: (*_KEYS, "features", "status", "reason")}
        | ({source: _TEXT_COLUMNS[source]} if source == CAPTIONS else {}),
        inputs=(source, features.name) if source == CAPTIONS else (features.name,),
        plan=partial(_plan_features, source, features.name),
        stage=judge,
        code_version="2",
        config=config,
        models=(MINILM,),
        optional_models=trained,
        kinds=("parquet", "numpy"),
        chunk_units=4096,
    )
    return BranchSpec(name, title, modality, table1, features, probabilities)


def _plan_texts(source: str, inputs: Inputs, _: Profile) -> pa.Table:
    """One row per segment with its texts; the key is the texts themselves, so that equal texts cost nothing again."""
    own = ["view"] if source == CAPTIONS else ["language"]
    table = inputs.table(source, [*_KEYS, *own, "text", "status", "reason"])
    rows = sorted(
        map(_english, table.to_pylist()), key=lambda row: (row["video_id"], row["segment"], row.get("view") or "")
    )
    grouped = groupby(rows, lambda row: row["segment_id"])
    return pa.Table.from_pylist([_segment(list(own)) for _, own in grouped], schema=_PLAN)


def _english(row: dict[str, Any]) -> dict[str, Any]:
    """The row, without its text where that is not English: MiniLM and the heads on it know English only."""
    language = row.get("language") or ENGLISH
    if row["status"] != Status.OK or language == ENGLISH:
        return row
    reason = f"the words are {language}, and MiniLM reads English only"
    return row | {"text": None, "status": str(Status.NOT_ENGLISH), "reason": reason}


def _segment(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The plan's row of one segment from the rows of its views, in order."""
    imported = [row for row in rows if row.get("view", DESCRIBER) != DESCRIBER]
    own = [row for row in rows if row not in imported]
    said = [[row for row in part if row["status"] == Status.OK] for part in (imported, own)]
    read = said[0] or said[1]
    texts = [row["text"] or "" for row in read]
    status, reason = (str(Status.OK), None) if read else (rows[0]["status"], rows[0]["reason"])
    kind = "imported" if said[0] else "own"
    return {name: rows[0][name] for name in _KEYS} | {
        "status": status,
        "reason": reason,
        UNIT: rows[0]["segment_id"],
        INPUTS: digest(kind, status, reason or "", *texts),
        "imported": bool(said[0]),
        "texts": texts,
    }


def _plan_features(source: str, features: str, inputs: Inputs, profile: Profile) -> pa.Table:
    """One row per segment of the features; captions stand beside them, and make the key with them."""
    table = inputs.table(features, [*_KEYS, "status", "reason"])
    ids = table.column("segment_id").to_pylist()
    seen = inputs.digests(features, unit="segment_id")
    keys = [seen.get(segment, "") for segment in ids]
    if source == CAPTIONS:
        texts = {row[UNIT]: row for row in _plan_texts(source, inputs, profile).to_pylist()}
        keys = [digest(key, texts[segment][INPUTS]) for segment, key in zip(ids, keys, strict=True)]
        for name in ("imported", "texts"):
            values = pa.array([texts[segment][name] for segment in ids], _PLAN.field(name).type)
            table = table.append_column(name, values)
    return table.append_column(UNIT, table.column("segment_id")).append_column(INPUTS, pa.array(keys, pa.string()))


def embed_rows(units: pa.Table, reader: Reader | Mapping[bool, Reader], spec: tables.TableSpec) -> pa.Table:
    """Rows of a features table: what the texts say, or their status where there are none.

    Args:
        units: rows of the plan.
        reader: how texts are read; or one for the describer's (False) and one for imported ones (True).
        spec: the features table.
    """
    readers = {False: reader, True: reader} if isinstance(reader, Reader) else reader
    known: dict[tuple[bool, str], NDArray[np.floating]] = {}
    planned = units.to_pylist()
    for kind in (False, True):
        texts = {text: None for unit in planned if unit["imported"] == kind for text in unit["texts"]}
        if texts:  # equal texts are encoded once
            vectors = readers[kind].encode(list(texts))
            known |= {(kind, text): vector for text, vector in zip(texts, vectors, strict=True)}
    rows = []
    for unit in planned:
        row = {name: unit[name] for name in _KEYS} | {"status": unit["status"], "reason": unit["reason"]}
        if unit["status"] == Status.OK:
            vectors = np.stack([known[unit["imported"], text] for text in unit["texts"]])
            row["features"] = readers[unit["imported"]].combine(vectors).astype(np.float32).tolist()
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=spec.schema)


def judge_rows(
    units: pa.Table, features: Mapping[str, Sequence[float] | None], judge: Judge, spec: tables.TableSpec
) -> pa.Table:
    """Rows of a probabilities table: what the head says, or the segment's status where there are no features.

    Args:
        units: rows of the plan.
        features: segment_id -> vector.
        judge: the head.
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
            model, values = judge(unit, np.asarray(vector, dtype=np.float32))
            row |= dict(zip(BASIC_COLUMNS, values.tolist(), strict=True)) | {"model": model}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=spec.schema)


def read_features(context: StageContext, table: str) -> dict[str, list[float] | None]:
    """The vectors of the shard by segment_id."""
    rows = context.inputs.table(table, ["segment_id", "features"])
    return dict(zip(rows.column("segment_id").to_pylist(), rows.column("features").to_pylist(), strict=True))
