"""The stage `captions`: what the describer says of a segment, and the texts that were imported for it.

Belongs here: the spec with its plan (light at import), and putting both kinds of text into one table, a row for each
segment and view. Does not belong here: the describer (`perception.captions.rule_based.stage`) or reading files
(`corpora.formats.captions`).

Where there is no media there is nothing to describe: the views are the imported ones alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

import pyarrow as pa

from cer_pipeline.corpora.annotations import read_captions
from cer_pipeline.perception.captions.rule_based import stage as describer_stage
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import INPUTS, UNIT, Inputs, StageContext
from cer_pipeline.status import Status
from cer_pipeline.store.fingerprint import digest
from cer_pipeline.tables import CAPTIONS as TABLE

SEGMENTS: Final = "indices"  # plan column: window indices of the video
VIEWS: Final = "views"  # plan column: views that its rows have
DESCRIBER: Final = describer_stage.MODEL


def _plan(inputs: Inputs, _: Profile) -> pa.Table:
    segments = inputs.table("segments", ["video_id", "segment"])
    indices: defaultdict[str, list[int]] = defaultdict(list)
    for video, index in zip(*(segments.column(n).to_pylist() for n in ("video_id", "segment")), strict=True):
        indices[video].append(index)
    corpus = inputs.registered()
    imported = {f.video_id: f.captions for f in corpus.files_of(inputs.shard) if f.captions}
    views = _views(inputs) if imported else {}
    described = describer_stage.READS if corpus.has_media else ("segments",)
    seen = [inputs.digests(name) for name in described]
    keys = [digest(*(d.get(video, "") for d in seen), imported.get(video, "")) for video in indices]
    own = [DESCRIBER] if corpus.has_media else []
    return pa.table(
        {
            UNIT: pa.array(list(indices), pa.string()),
            INPUTS: pa.array(keys, pa.string()),
            SEGMENTS: pa.array(list(indices.values()), pa.list_(pa.int32())),
            VIEWS: pa.array([[*own, *views.get(video, ())] for video in indices], pa.list_(pa.string())),
        }
    )


def _views(inputs: Inputs) -> dict[str, list[str]]:
    found = read_captions(inputs.registered().annotations, inputs.shard)
    return {video: sorted({c.view for c in captions}) for video, captions in found.items()}


def _keys(video_id: str, segment: int, view: str) -> dict[str, Any]:
    return {"segment_id": f"{video_id}/{segment:04d}", "video_id": video_id, "segment": segment, "view": view}


def _placeholder_keys(unit: dict[str, Any]) -> list[dict[str, Any]]:
    return [_keys(unit[UNIT], index, view) for index in unit[SEGMENTS] for view in unit[VIEWS] or [DESCRIBER]]


CAPTIONS: Final = replace(
    describer_stage.CAPTIONS,
    description="What is visible and audible in every segment: our describer's sentences, and every imported view.",
    plan=_plan,
    stage="cer_pipeline.perception.captions.stage:Captions",
    code_version="3",
    placeholder_keys=_placeholder_keys,
)


class Captions:
    """Units (videos) -> one caption per segment and view."""

    def __init__(self, context: StageContext) -> None:
        corpus = context.inputs.registered()
        self.describer = describer_stage.DescribeSegments(context) if corpus.has_media else None
        self.imported = read_captions(corpus.annotations, context.inputs.shard)
        self.counters = context.counters

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of `captions` for videos of the plan."""
        tables = [] if self.describer is None else [self.describer(units)]
        rows = [row for unit in units.to_pylist() for row in self._imported(unit)]
        return pa.concat_tables([*tables, pa.Table.from_pylist(rows, schema=TABLE.schema)])

    def _imported(self, unit: dict[str, Any]) -> Iterator[dict[str, Any]]:
        captions = self.imported.get(unit[UNIT], ())
        self.counters["captions/without_window"] += sum(c.segment not in unit[SEGMENTS] for c in captions)
        texts = {(c.segment, c.view): c for c in captions}
        for index in unit[SEGMENTS]:
            for view in _imported_views(unit):
                caption = texts.get((index, view))
                row = _keys(unit[UNIT], index, view)
                model, _, prompt = view.rpartition("_")
                if caption is not None and caption.text:
                    row |= {"text": caption.text, "status": str(Status.OK), "reason": None}
                else:
                    row |= {"status": str(Status.NO_CAPTION), "reason": f"{view} has no text for this segment"}
                yield row | {"prompt": prompt, "model": model}


def _imported_views(unit: dict[str, Any]) -> Iterable[str]:
    return (view for view in unit[VIEWS] if view != DESCRIBER)
