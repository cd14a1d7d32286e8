"""Specs of the stages that open media files: videos, segments, frames, audio.

Belongs here: the specs and the plans of their units. Light: it loads no media library.
Does not belong here: the computation (`stages` and the modules below it).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
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
"""Columns of `videos` that later stages read: only those that change with the content of the file."""

AUDIO_TRACK: Final = "audio_track"
"""Option of a corpus: number of the sound track, from 1; 0 for the default track."""

WINDOWS: Final = "windows"  # plan column, see `_windows`
WANTED_TRACK: Final = "wanted_track"  # plan column: the sound track that the corpus requests


def digest(*values: Any) -> str:
    """Return a digest of plain values."""
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=16).hexdigest()


def plan_videos(inputs: Inputs, profile: Profile) -> pa.Table:  # noqa: ARG001
    """Plan one unit for every registered file of the shard."""
    corpus = inputs.registered()
    files, track = corpus.files_of(inputs.shard), corpus.options.get(AUDIO_TRACK) or None
    requested = () if track is None else (AUDIO_TRACK, track)
    columns = {name: [getattr(f, name) for f in files] for name in ("video_id", "path", "sha256", "bytes", "split")}
    return pa.table(
        {
            UNIT: pa.array(columns["video_id"], pa.string()),
            # The path and the split are columns of the row, so they are inputs as well as the content.
            INPUTS: pa.array([digest(f.sha256, f.path, f.split, *f.windows, *requested) for f in files], pa.string()),
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
    """Plan one unit for every video."""
    plan = _plan(inputs, lambda row: digest(row["duration_s"], row["status"], row["reason"]))
    windows = _windows(inputs, plan.column(UNIT).to_pylist())
    keys = [
        key if listed is None else digest(key, *listed)
        for key, listed in zip(plan.column(INPUTS).to_pylist(), windows.to_pylist(), strict=True)
    ]
    plan = plan.set_column(plan.schema.get_field_index(INPUTS), INPUTS, pa.array(keys, pa.string()))
    return plan.append_column(WINDOWS, windows)


def _windows(inputs: Inputs, videos: Sequence[str]) -> pa.Array:
    """Return the window indices of videos without a media file; null for videos with a duration."""
    corpus = inputs.registered()
    listed = {} if corpus.has_media else {f.video_id: f.windows for f in corpus.files_of(inputs.shard)}
    return pa.array([listed.get(video) for video in videos], pa.list_(pa.int32()))


def plan_frames(inputs: Inputs, profile: Profile) -> pa.Table:
    """Plan one unit for every video. The sound track is an input, since picture and sound share a time line."""
    names = ("sha256", "samples", "audio_track", "status", "reason")
    plan = _plan(inputs, lambda row: digest(*(row[name] for name in names)))
    rate = profile["grid"]["rate_hz"]
    return plan.append_column("rate_hz", pa.array([rate] * plan.num_rows, pa.int32()))


def plan_audio(inputs: Inputs, profile: Profile) -> pa.Table:  # noqa: ARG001
    """Plan one unit for every video."""
    names = ("sha256", "duration_s", "audio_track", "audio_track_reason", "status", "reason")
    return _plan(inputs, lambda row: digest(*(row[name] for name in names)))


def _plan(inputs: Inputs, key: Callable[[dict[str, Any]], str]) -> pa.Table:
    videos = _media_columns(inputs.table("videos", MEDIA_COLUMNS))
    keys = [key(row) for row in videos.to_pylist()]
    # A placeholder row copies columns of the same name, so the status and reason of the video have other names.
    names = [f"video_{name}" if name in ("status", "reason") else name for name in MEDIA_COLUMNS]
    units = videos.rename_columns(names).append_column(UNIT, videos.column("video_id"))
    return units.append_column(INPUTS, pa.array(keys, pa.string()))


def _media_columns(videos: pa.Table) -> pa.Table:
    """Return the columns in their order; null for those that the table of an older version lacks."""
    schema = VIDEOS_TABLE.schema
    columns = [
        videos.column(name) if name in videos.column_names else pa.nulls(videos.num_rows, schema.field(name).type)
        for name in MEDIA_COLUMNS
    ]
    return pa.table(columns, names=list(MEDIA_COLUMNS))


def segment_keys(unit: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the keys of the rows of `segments` of a unit without times: one row, or one for each listed window."""
    return [
        {"segment_id": f"{unit[UNIT]}/{index:04d}", "video_id": unit[UNIT], "segment": index}
        for index in unit[WINDOWS] or [0]
    ]


def sample_keys(unit: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the keys of the rows of `frames` of a unit without frames: all samples, or one if they are unknown."""
    layout, count = Layout(rate_hz=unit["rate_hz"]), max(1, unit["samples"] or 0)
    return [{"video_id": unit[UNIT], "sample": k, "time_s": sample_time(k, layout)} for k in range(count)]


def audio_keys(unit: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the key of the row of `audio` of a unit without sound."""
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
