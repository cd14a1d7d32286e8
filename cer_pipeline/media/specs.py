"""The stages that open media files: videos, segments, frames, audio.

Belongs here: what they are and how their units are planned. Light: it loads no media library.
Does not belong here: how they work (`stages` and below).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from cer_pipeline.media.windows import Layout, sample_time
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import INPUTS, UNIT, Inputs, StageSpec
from cer_pipeline.tables import AUDIO as AUDIO_TABLE
from cer_pipeline.tables import FRAMES as FRAMES_TABLE
from cer_pipeline.tables import SEGMENTS as SEGMENTS_TABLE
from cer_pipeline.tables import VIDEOS as VIDEOS_TABLE

MEDIA_COLUMNS: Final = (
    "video_id",
    "sha256",
    "duration_s",
    "samples",
    "video_codec",
    "audio_codec",
    "audio_track",
    "audio_track_reason",
    "status",
    "reason",
)
"""Columns of `videos` that the stages after it read: nothing that may change while the file does not."""


AUDIO_TRACK: Final = (
    "audio_track"  # option of a corpus: number of the sound track that is heard, from 1; 0: the default
)
WINDOWS: Final = "windows"  # plan column: see `_windows`
WANTED_TRACK: Final = "wanted_track"  # plan column: the sound track that the corpus asks for


def digest(*values: Any) -> str:
    """Digest of plain values."""
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=16).hexdigest()


def plan_videos(inputs: Inputs, profile: Profile) -> pa.Table:  # noqa: ARG001
    """One unit for every registered file of the shard."""
    corpus = inputs.registered()
    files, track = corpus.files_of(inputs.shard), corpus.options.get(AUDIO_TRACK) or None
    told = () if track is None else (AUDIO_TRACK, track)
    columns = {name: [getattr(f, name) for f in files] for name in ("video_id", "path", "sha256", "bytes", "split")}
    return pa.table(
        {
            UNIT: pa.array(columns["video_id"], pa.string()),
            # The name and the split are columns of the row, so they count beside the content.
            INPUTS: pa.array([digest(f.sha256, f.path, f.split, *f.windows, *told) for f in files], pa.string()),
            "video_id": pa.array(columns["video_id"], pa.string()),
            "path": pa.array(columns["path"], pa.string()),
            "sha256": pa.array(columns["sha256"], pa.string()),
            "bytes": pa.array(columns["bytes"], pa.int64()),
            "split": pa.array(columns["split"], pa.string()),
            WINDOWS: _windows(inputs, columns["video_id"]),
            WANTED_TRACK: pa.array([track] * len(files), pa.int32()),
        }
    )


def plan_segments(inputs: Inputs, profile: Profile) -> pa.Table:  # noqa: ARG001
    """One unit for every video."""
    plan = _plan(inputs, lambda row: digest(row["duration_s"], row["status"], row["reason"]))
    windows = _windows(inputs, plan.column(UNIT).to_pylist())
    keys = [
        key if mine is None else digest(key, *mine)
        for key, mine in zip(plan.column(INPUTS).to_pylist(), windows.to_pylist(), strict=True)
    ]
    plan = plan.set_column(plan.schema.get_field_index(INPUTS), INPUTS, pa.array(keys, pa.string()))
    return plan.append_column(WINDOWS, windows)


def _windows(inputs: Inputs, videos: Sequence[str]) -> pa.Array:
    """The window indices of videos without a media file; null for those whose duration tells them."""
    corpus = inputs.registered()
    listed = {} if corpus.has_media else {f.video_id: f.windows for f in corpus.files_of(inputs.shard)}
    return pa.array([listed.get(video) for video in videos], pa.list_(pa.int32()))


def plan_frames(inputs: Inputs, profile: Profile) -> pa.Table:
    """One unit for every video; what its content and its grid do not change is not read again."""
    seen = ("sha256", "samples", "audio_track", "status", "reason")  # the time line is that of picture and sound
    plan = _plan(inputs, lambda row: digest(*(row[name] for name in seen)))
    rate = profile["grid"]["rate_hz"]
    return plan.append_column("rate_hz", pa.array([rate] * plan.num_rows, pa.int32()))


def plan_audio(inputs: Inputs, profile: Profile) -> pa.Table:  # noqa: ARG001
    """One unit for every video."""
    seen = ("sha256", "duration_s", "audio_track", "audio_track_reason", "status", "reason")
    return _plan(inputs, lambda row: digest(*(row[name] for name in seen)))


def _plan(inputs: Inputs, key: Any) -> pa.Table:
    videos = _media_columns(inputs.table("videos", MEDIA_COLUMNS))
    keys = [key(row) for row in videos.to_pylist()]
    # blank rows take over columns of the same name, and these two are not the video's any more
    names = [f"video_{name}" if name in ("status", "reason") else name for name in MEDIA_COLUMNS]
    units = videos.rename_columns(names).append_column(UNIT, videos.column("video_id"))
    return units.append_column(INPUTS, pa.array(keys, pa.string()))


def _media_columns(videos: pa.Table) -> pa.Table:
    """The columns in their order; null where the table is of a version that did not have them."""
    schema = VIDEOS_TABLE.schema
    columns = [
        videos.column(name) if name in videos.column_names else pa.nulls(videos.num_rows, schema.field(name).type)
        for name in MEDIA_COLUMNS
    ]
    return pa.table(columns, names=list(MEDIA_COLUMNS))


def segment_keys(unit: dict[str, Any]) -> list[dict[str, Any]]:
    """Keys of the rows of `segments` for a unit without times: one row, or one for each window that is listed."""
    return [
        {"segment_id": f"{unit[UNIT]}/{index:04d}", "video_id": unit[UNIT], "segment": index}
        for index in unit[WINDOWS] or [0]
    ]


def sample_keys(unit: dict[str, Any]) -> list[dict[str, Any]]:
    """Keys of the rows of `frames` for a unit without frames: all samples, or one where their number is unknown."""
    layout, count = Layout(rate_hz=unit["rate_hz"]), max(1, unit["samples"] or 0)
    return [{"video_id": unit[UNIT], "sample": k, "time_s": sample_time(k, layout)} for k in range(count)]


def audio_keys(unit: dict[str, Any]) -> list[dict[str, Any]]:
    """Keys of the row of `audio` for a unit without sound."""
    return [{"video_id": unit[UNIT]}]


VIDEOS = StageSpec(
    table=VIDEOS_TABLE,
    description="What every file of the corpus holds: duration, frame rate, size, streams, number of windows.",
    group="ingest",
    inputs=(),
    plan=plan_videos,
    stage="cer_pipeline.media.stages:Videos",
    code_version="3",
    config=("windows", "grid", "media"),
    kinds=("parquet", "ffmpeg"),
)
SEGMENTS = StageSpec(
    table=SEGMENTS_TABLE,
    description="The windows of every video: 4 s every 2 s, the last one ends with the video.",
    group="ingest",
    reads={"videos": MEDIA_COLUMNS},
    inputs=("videos",),
    plan=plan_segments,
    stage="cer_pipeline.media.stages:Segments",
    code_version="1",
    config=("windows", "grid"),
    placeholder_keys=segment_keys,
    chunk_units=1024,
)
FRAMES = StageSpec(
    table=FRAMES_TABLE,
    description="The frame shown at every fifth of a second, as JPEG, with the time stamps of all source frames.",
    group="ingest",
    reads={"videos": MEDIA_COLUMNS},
    inputs=("videos",),
    plan=plan_frames,
    stage="cer_pipeline.media.stages:Frames",
    code_version="2",
    config=("grid", "frames"),
    placeholder_keys=sample_keys,
    kinds=("parquet", "ffmpeg"),
    chunk_units=1,  # a video's pictures may be large
)
AUDIO = StageSpec(
    table=AUDIO_TABLE,
    description="The sound of every video as 16 kHz mono FLAC.",
    group="ingest",
    reads={"videos": MEDIA_COLUMNS},
    inputs=("videos",),
    plan=plan_audio,
    stage="cer_pipeline.media.stages:Audio",
    code_version="2",
    placeholder_keys=audio_keys,  # the plan's duration is that of the video
    kinds=("parquet", "ffmpeg"),
    chunk_units=8,
)
STAGES: Final = (VIDEOS, SEGMENTS, FRAMES, AUDIO)
