"""Specs of the stages `labels` and `frame_labels`: annotations of segments and frames.

Belongs here: specs and plans. This module loads no model library. Does not belong here: the rows (`stages`) or reading
annotation files (the formats).

These tables are inputs of metrics and training alone; a test checks that no stage that predicts depends on them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from cer_pipeline.profiles import Profile
from cer_pipeline.stage import INPUTS, UNIT, Inputs, StageSpec
from cer_pipeline.store.fingerprint import digest
from cer_pipeline.tables import FRAME_LABELS as FRAME_LABELS_TABLE
from cer_pipeline.tables import LABELS as LABELS_TABLE
from cer_pipeline.tables import NO_FRAME

SEGMENTS: Final = "indices"  # plan column: window indices of the video
SPLIT: Final = "registered_split"
EXCLUDED: Final = "excluded"
ANNOTATED: Final = "is_annotated"


def plan_labels(inputs: Inputs, profile: Profile) -> pa.Table:  # noqa: ARG001
    """Return one unit for every video, which depends on its windows, frame times and annotation."""
    segments = inputs.table("segments", ["video_id", "segment"])
    indices: defaultdict[str, list[int]] = defaultdict(list)
    for video, index in zip(*(segments.column(n).to_pylist() for n in ("video_id", "segment")), strict=True):
        indices[video].append(index)
    windows = inputs.digests("segments")
    plan = _plan(inputs, list(indices), [windows.get(video, "") for video in indices])
    return plan.append_column(SEGMENTS, pa.array(list(indices.values()), pa.list_(pa.int32())))


def plan_frame_labels(inputs: Inputs, profile: Profile) -> pa.Table:  # noqa: ARG001
    """Return one unit for every video, which depends on its frame times and annotation."""
    videos: list[str] = inputs.table("videos", ["video_id"]).column("video_id").to_pylist()
    return _plan(inputs, videos, [""] * len(videos))


def _plan(inputs: Inputs, videos: list[str], windows: list[str]) -> pa.Table:
    files = {f.video_id: f for f in inputs.registered().files_of(inputs.shard)}
    annotated = {video for video in videos if video in files and files[video].labels}
    # Only annotated videos depend on frame times, so decoding a corpus without labels again changes no unit here.
    frames = inputs.digests("frames") if annotated else {}
    rows = []
    for video, window in zip(videos, windows, strict=True):
        file = files.get(video)
        split, excluded, labels = (file.split, file.excluded, file.labels) if file else (None, "", "")
        times = frames.get(video, "") if labels else ""
        rows.append(
            {
                UNIT: video,
                INPUTS: digest(window, times, split or "", excluded, labels),
                SPLIT: split,
                EXCLUDED: excluded,
                ANNOTATED: bool(labels),
            }
        )
    fields = [(UNIT, pa.string()), (INPUTS, pa.string()), (SPLIT, pa.string()), (EXCLUDED, pa.string())]
    return pa.Table.from_pylist(rows, schema=pa.schema([*fields, (ANNOTATED, pa.bool_())]))


def segment_keys(unit: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the keys of the rows of `labels` of a video."""
    return [
        {"segment_id": f"{unit[UNIT]}/{index:04d}", "video_id": unit[UNIT], "segment": index}
        for index in unit[SEGMENTS]
    ]


def frame_keys(unit: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the key of the one row of `frame_labels` of a video without annotated frames."""
    return [{"video_id": unit[UNIT], "frame": NO_FRAME}]


ANNOTATED_COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    "videos": ("video_id", "duration_s", "fps", "nominal_fps", "frames"),
    "frames": ("frame_times",),
}
"""Columns that both stages read: lengths and times of the frames."""

LABELS: Final = StageSpec(
    table=LABELS_TABLE,
    description="The annotation of every segment: the distribution over its annotated frames. Read by metrics and "
    "training alone.",
    group="ingest",
    reads={"segments": ("segment_id", "video_id", "segment", "start_s", "end_s"), **ANNOTATED_COLUMNS},
    inputs=("videos", "segments", "frames"),
    plan=plan_labels,
    stage="cer_pipeline.corpora.labels.stages:SegmentLabels",
    code_version="2",
    placeholder_keys=segment_keys,
    chunk_units=256,
)
FRAME_LABELS: Final = StageSpec(
    table=FRAME_LABELS_TABLE,
    description="The annotation of every annotated frame. Read by metrics alone.",
    group="ingest",
    reads=ANNOTATED_COLUMNS,
    inputs=("videos", "frames"),
    plan=plan_frame_labels,
    stage="cer_pipeline.corpora.labels.stages:FrameLabels",
    code_version="2",
    placeholder_keys=frame_keys,
    chunk_units=64,
    level="video",
)
STAGES: Final = (LABELS, FRAME_LABELS)
"""In order."""
