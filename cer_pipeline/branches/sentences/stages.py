"""The stages of the branches over texts: texts of a segment -> 384 features -> 8 probabilities.

Belongs here: the builder of the specs with its plans (light at import), and the rows of features. Does not belong here:
the rows of probabilities (`branches.rows`), the table and the head of a branch (`scene`, `text`), the encoder
(`minilm`) or the heads (`zero_shot`, trained heads).

A segment has one transcript and may have several captions, one a view. Where captions were imported, the branches use
the imported ones alone, and the text of the rule-based captioner only where no imported view has a text. An imported
text describes the whole scene, emotion included, and trained heads exist for its kind; the rule-based captioner
describes single facial actions and the voice.
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
from cer_pipeline.branches.rows import Predict, empty_row, feature_row
from cer_pipeline.branches.sentences.minilm import SIZE, ZOO_ID
from cer_pipeline.perception.captions.registry import RULE_BASED_VIEW
from cer_pipeline.perception.speech.language import ENGLISH
from cer_pipeline.plans import SEGMENT_COLUMNS, plan_of
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import INPUTS, UNIT, Inputs, StageSpec
from cer_pipeline.status import Status
from cer_pipeline.store.fingerprint import digest
from cer_pipeline.training.trainer import Trainer

CAPTIONS: Final = "captions"
TRANSCRIPTS: Final = "transcripts"
MINILM: Final = "MiniLM"  # part of a reason, and so of row keys
TEXT_COLUMNS: Final = {
    CAPTIONS: (*SEGMENT_COLUMNS, "view", "text", "status", "reason"),
    TRANSCRIPTS: (*SEGMENT_COLUMNS, "language", "text", "status", "reason"),
}
"""Columns of a table with texts that the plans read."""
_PLAN: Final = pa.schema(
    [
        *(
            pa.field(name, kind)
            for name, kind in zip(SEGMENT_COLUMNS, (pa.string(), pa.string(), pa.int32()), strict=True)
        ),
        *(pa.field(name, pa.string()) for name in ("status", "reason", UNIT, INPUTS)),
        pa.field("imported", pa.bool_()),
        pa.field("texts", pa.list_(pa.string())),
    ]
)


class Head(Protocol):
    """A head that needs the features alone."""

    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """[384] -> [8] in the order of `labels.BASIC`, summing to 1."""
        ...


@dataclass(frozen=True)
class TextEncoder:
    """How the texts of a segment become its features.

    Args:
        embed: texts -> one vector [384] each.
        combine: vectors of the texts of a segment [views, 384] -> features [384].
    """

    embed: Callable[[Sequence[str]], Iterable[NDArray[np.floating]]]
    combine: Callable[[NDArray[np.floating]], NDArray[np.floating]]


def centroid(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the mean of vectors of length 1, scaled to length 1; a single vector is returned as it is."""
    if len(vectors) == 1:
        return vectors[0]
    mean = vectors.mean(0)
    return mean / np.linalg.norm(mean)


def predict_with(head: Head, model: str) -> Predict:
    """Return the prediction of a head that needs the features alone, under the name `model`."""
    return lambda _, features: (model, head.probabilities(features))


def branch(
    name: str,
    title: str,
    modality: str,
    table1: int,
    source: str,
    embed: str,
    predict: str,
    trained: tuple[str, ...] = (),
    trainers: tuple[Trainer, ...] = (),
) -> BranchSpec:
    """Return a branch over a table with texts of segments.

    The probabilities depend on the section of the profile that has the name of the branch.

    Args:
        name: name of the branch.
        title: title that users read.
        modality: see `BranchSpec`.
        table1: see `BranchSpec`.
        source: table with the texts: captions or transcripts.
        embed: import path of the features stage.
        predict: import path of the probabilities stage.
        trained: zoo ids of the trained heads, used where they are present.
        trainers: see `BranchSpec`.
    """
    features = StageSpec(
        table=tables.features(name, SIZE),
        description=f"MiniLM vectors of {source}.",
        group="features",
        reads={source: TEXT_COLUMNS[source]},
        inputs=(source,),
        plan=partial(plan_texts, source, MINILM),
        stage=embed,
        code_version="2",
        models=(ZOO_ID,),
        optional_models=trained,
        kinds=("parquet", "torch"),
    )
    probabilities = StageSpec(
        table=tables.probabilities(name),
        description=f"Basic emotions of every segment from {source}, by a trained or a zero-shot head.",
        group="probabilities",
        reads={features.name: (*SEGMENT_COLUMNS, "features", "status", "reason")}
        | ({source: TEXT_COLUMNS[source]} if source == CAPTIONS else {}),
        inputs=(source, features.name) if source == CAPTIONS else (features.name,),
        plan=partial(plan_features, source, features.name),
        stage=predict,
        code_version="2",
        config=(name,),
        models=(ZOO_ID,),
        optional_models=trained,
        kinds=("parquet", "numpy"),
        chunk_units=4096,
    )
    return BranchSpec(name, title, modality, table1, features, probabilities, trainers=trainers)


def plan_texts(source: str, english_reader: str, inputs: Inputs, _: Profile) -> pa.Table:
    """One row per segment with its texts. The texts are the key, so equal texts are encoded once.

    Args:
        source: table with the texts: captions or transcripts.
        english_reader: encoder that reads English only, so that a text in another language gets the status
            `not_english`; "" for an encoder that reads all languages.
        inputs: tables of the shard.
    """
    columns = ["view"] if source == CAPTIONS else ["language"]
    table = inputs.table(source, [*SEGMENT_COLUMNS, *columns, "text", "status", "reason"])
    rows = sorted(
        (_english(row, english_reader) for row in table.to_pylist()),
        key=lambda row: (row["video_id"], row["segment"], row.get("view") or ""),
    )
    by_segment = groupby(rows, lambda row: row["segment_id"])
    return pa.Table.from_pylist([_segment(list(views)) for _, views in by_segment], schema=_PLAN)


def _english(row: dict[str, Any], reader: str) -> dict[str, Any]:
    """The row, without its text where the reader reads English only and the text is in another language."""
    language = row.get("language") or ENGLISH
    if not reader or row["status"] != Status.OK or language == ENGLISH:
        return row
    reason = f"the words are {language}, and {reader} reads English only"
    return row | {"text": None, "status": str(Status.NOT_ENGLISH), "reason": reason}


def _segment(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The row of the plan for one segment, from the rows of its views in order."""
    usable = [row for row in rows if row["status"] == Status.OK]
    imported = [row for row in usable if row.get("view", RULE_BASED_VIEW) != RULE_BASED_VIEW]
    used = imported or usable
    texts = [row["text"] or "" for row in used]
    status, reason = (str(Status.OK), None) if used else (rows[0]["status"], rows[0]["reason"])
    kind = "imported" if imported else "own"  # part of the keys of rows: the words do not change
    return {name: rows[0][name] for name in SEGMENT_COLUMNS} | {
        "status": status,
        "reason": reason,
        UNIT: rows[0]["segment_id"],
        INPUTS: digest(kind, status, reason or "", *texts),
        "imported": bool(imported),
        "texts": texts,
    }


def plan_features(source: str, features: str, inputs: Inputs, profile: Profile) -> pa.Table:
    """One row per segment of the features. Captions are added, and are part of the key, since a head may read them."""
    table = inputs.table(features, [*SEGMENT_COLUMNS, "status", "reason"])
    ids = table.column("segment_id").to_pylist()
    digests = inputs.digests(features, unit="segment_id")
    keys = [digests.get(segment, "") for segment in ids]
    if source == CAPTIONS:
        texts = {row[UNIT]: row for row in plan_texts(source, MINILM, inputs, profile).to_pylist()}
        keys = [digest(key, texts[segment][INPUTS]) for segment, key in zip(ids, keys, strict=True)]
        for name in ("imported", "texts"):
            values = pa.array([texts[segment][name] for segment in ids], _PLAN.field(name).type)
            table = table.append_column(name, values)
    return plan_of(table, "segment_id", keys)


def embed_rows(units: pa.Table, encoder: TextEncoder | Mapping[bool, TextEncoder], spec: tables.TableSpec) -> pa.Table:
    """Return rows of a features table; a segment without a text has its status.

    Args:
        units: rows of the plan.
        encoder: one encoder for all texts; or one for texts of the rule-based captioner (False) and one for imported
            texts (True).
        spec: the features table.
    """
    encoders = {False: encoder, True: encoder} if isinstance(encoder, TextEncoder) else encoder
    vectors: dict[tuple[bool, str], NDArray[np.floating]] = {}
    planned = units.to_pylist()
    for imported in (False, True):
        texts = {text: None for unit in planned if unit["imported"] == imported for text in unit["texts"]}
        if texts:  # equal texts are encoded once
            embedded = encoders[imported].embed(list(texts))
            vectors |= {(imported, text): vector for text, vector in zip(texts, embedded, strict=True)}
    rows = []
    for unit in planned:
        if unit["status"] != Status.OK:
            rows.append(empty_row(unit))
            continue
        views = np.stack([vectors[unit["imported"], text] for text in unit["texts"]])
        rows.append(feature_row(unit, encoders[unit["imported"]].combine(views).astype(np.float32)))
    return pa.Table.from_pylist(rows, schema=spec.schema)
