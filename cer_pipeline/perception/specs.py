"""The stages of perception: faces, speech, transcripts, captions.

Belongs here: their specs and plans; light at import. Does not belong here: any computation (`faces`, `speech`), or the
spec of captions (`captions.specs`).
"""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.perception.captions.specs import captions_stage
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import INPUTS, UNIT, Inputs, StageSpec
from cer_pipeline.store.fingerprint import digest


def _videos(inputs: Inputs, *read: str) -> tuple[list[str], pa.Table]:
    """The shard's videos in order, and the plan columns that every stage of this module has."""
    videos = inputs.table("videos", ["video_id"]).column("video_id").to_pylist()
    contents = [inputs.digests(name) for name in read]
    keys = [digest(video, *(content.get(video, "") for content in contents)) for video in videos]
    columns = {UNIT: videos, INPUTS: keys, "video_id": videos}
    return videos, pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def _grouped(table: pa.Table, column: str) -> dict[str, list[Any]]:
    """Values of a column by video, in the table's order."""
    groups: dict[str, list[Any]] = {}
    for video, value in zip(table.column("video_id").to_pylist(), table.column(column).to_pylist(), strict=True):
        groups.setdefault(video, []).append(value)
    return groups


def _plan_faces(inputs: Inputs, _: Profile) -> pa.Table:
    videos, plan = _videos(inputs, "frames", "segments")
    samples = _grouped(inputs.table("frames", ["video_id", "sample"]), "sample")
    listed = [samples.get(video, [0]) for video in videos]
    return plan.append_column("samples", pa.array(listed, pa.list_(pa.int32())))


def _no_faces(unit: dict[str, Any]) -> list[dict[str, Any]]:
    """Every sample has a row."""
    return [{"sample": sample, "face": 0} for sample in unit["samples"]]


def _plan_speech(inputs: Inputs, _: Profile) -> pa.Table:
    return _videos(inputs, "audio")[1]


def _no_interval(_: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"interval": 0}]


def _plan_transcripts(inputs: Inputs, _: Profile) -> pa.Table:
    videos, plan = _videos(inputs, "audio", "speech", "segments")
    segments = inputs.table("segments", ["video_id", "segment", "segment_id"])
    numbers, ids = _grouped(segments, "segment"), _grouped(segments, "segment_id")
    return plan.append_column(
        "segments", pa.array([numbers.get(video, []) for video in videos], pa.list_(pa.int32()))
    ).append_column("segment_ids", pa.array([ids.get(video, []) for video in videos], pa.list_(pa.string())))


def _no_words(unit: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"segment": segment, "segment_id": segment_id}
        for segment, segment_id in zip(unit["segments"], unit["segment_ids"], strict=True)
    ]


FACES: Final = StageSpec(
    table=tables.FACES,
    description="Faces on every sample: detected, verified by a mesh, tracked, with the subject of every window.",
    group="perception",
    inputs=("videos", "frames", "segments"),
    plan=_plan_faces,
    stage="cer_pipeline.perception.faces.stage:Faces",
    code_version="2",
    config=("faces",),
    models=("centerface", "face_landmarker"),
    placeholder_keys=_no_faces,
    kinds=("parquet", "onnx", "opencv"),
    chunk_units=1,
)
SPEECH: Final = StageSpec(
    table=tables.SPEECH,
    description="Intervals of speech.",
    group="perception",
    inputs=("videos", "audio"),
    plan=_plan_speech,
    stage="cer_pipeline.perception.speech.vad:Speech",
    code_version="2",
    config=("speech", "loudness"),
    models=("silero_vad",),
    placeholder_keys=_no_interval,
    kinds=("parquet", "onnx"),
    chunk_units=16,
)
TRANSCRIPTS: Final = StageSpec(
    table=tables.TRANSCRIPTS,
    description="The words of every segment, with their times.",
    group="perception",
    inputs=("videos", "segments", "audio", "speech"),
    plan=_plan_transcripts,
    stage="cer_pipeline.perception.speech.asr:Transcripts",
    code_version="2",
    config=("transcripts", "loudness"),
    models=("whisper_tiny_en", "whisper_base"),
    placeholder_keys=_no_words,
    chunk_units=4,
)


def perception_stages(profile: Profile) -> tuple[StageSpec, ...]:
    """The stages of perception, in the order of docs/tables.md.

    Raises:
        CerError: the profile chooses a captioner that does not exist.
    """
    return FACES, SPEECH, TRANSCRIPTS, captions_stage(profile)
