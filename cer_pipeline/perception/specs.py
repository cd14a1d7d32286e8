"""The stages of perception: faces, speech, transcripts, captions.

Belongs here: their specs and plans; light at import. Does not belong here: any computation (`faces`, `speech`), or the
spec of captions (`captions.specs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.arrow import texts
from cer_pipeline.perception.captions.specs import captions_stage
from cer_pipeline.perception.speech.recognisers import PARAKEET, PARAKEET_SECTION, WHISPER, models_of, recogniser_of
from cer_pipeline.plans import SEGMENT_COLUMNS, contents, listed, plan_of, segment_keys, values_by_video, with_segments
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import Inputs, StageSpec
from cer_pipeline.store.fingerprint import digest


def _videos(inputs: Inputs, *read: str) -> pa.Table:
    """One unit per video of the shard, keyed by its id and the content of some tables."""
    videos = inputs.table("videos", ["video_id"])
    ids = texts(videos, "video_id")
    keys = [digest(video, *parts) for video, parts in zip(ids, contents(inputs, read, ids), strict=True)]
    return plan_of(videos, "video_id", keys)


def _plan_faces(inputs: Inputs, _: Profile) -> pa.Table:
    plan = _videos(inputs, "frames", "segments")
    samples = values_by_video(inputs.table("frames", ["video_id", "sample"]), "sample")
    return plan.append_column("samples", listed(plan, samples, pa.int32(), default=[0]))


def _no_faces(unit: dict[str, Any]) -> list[dict[str, Any]]:
    """Every sample has a row."""
    return [{"sample": sample, "face": 0} for sample in unit["samples"]]


def _plan_speech(inputs: Inputs, _: Profile) -> pa.Table:
    return _videos(inputs, "audio")


def _no_interval(_: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"interval": 0}]


def _plan_transcripts(inputs: Inputs, _: Profile) -> pa.Table:
    return with_segments(_videos(inputs, "audio", "speech", "segments"), inputs.table("segments", SEGMENT_COLUMNS))


_CENTERFACE: Final = StageSpec(
    table=tables.FACES,
    description="Faces on every sample: detected, verified by a mesh, tracked, with the subject of every window.",
    group="perception",
    reads={
        "videos": ("video_id",),
        "frames": ("video_id", "sample", "jpeg", "status", "reason"),
        "segments": ("segment", "first_sample", "samples"),
    },
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
_FACES: Final[Mapping[str, StageSpec]] = {
    "centerface": _CENTERFACE,
    "yolo": replace(_CENTERFACE, models=("yolo_face", "face_landmarker"), code_version="yolo 1"),
    "ultralytics": replace(
        _CENTERFACE, models=("yolo_face", "face_landmarker"), code_version="ultralytics 1", kinds=("parquet", "onnx")
    ),
}
"""Detector -> the stage `faces`. The choice enters no row key itself (`profiles.CHOICES`); models and version do."""


SPEECH: Final = StageSpec(
    table=tables.SPEECH,
    description="Intervals of speech.",
    group="perception",
    reads={"videos": ("video_id",), "audio": ("flac", "status", "reason")},
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
    reads={
        "videos": ("video_id",),
        "segments": ("segment_id", "video_id", "segment", "start_s", "end_s", "is_tail"),
        "audio": ("flac",),
        "speech": ("start_s", "end_s", "status", "reason"),
    },
    inputs=("videos", "segments", "audio", "speech"),
    plan=_plan_transcripts,
    stage="cer_pipeline.perception.speech.asr:Transcripts",
    code_version="2",
    config=("transcripts", "loudness"),
    models=WHISPER,
    placeholder_keys=segment_keys,
    chunk_units=4,
)


def transcripts_stage(profile: Profile) -> StageSpec:
    """The stage `transcripts` with the recogniser that a profile chooses.

    Its keys contain the section of Parakeet, and a version that names it, only where Parakeet is chosen.

    Raises:
        CerError: the profile chooses a recogniser that does not exist.
    """
    if recogniser_of(profile) != PARAKEET:
        return TRANSCRIPTS
    return replace(
        TRANSCRIPTS,
        code_version="parakeet/1",
        config=(*TRANSCRIPTS.config, PARAKEET_SECTION),
        models=models_of(profile),
        kinds=("parquet", "pytorch"),
    )


def faces_stage(profile: Profile) -> StageSpec:
    """The stage `faces` with the detector of a profile."""
    return _FACES[profile["faces"]["detector"]]


def perception_stages(profile: Profile) -> tuple[StageSpec, ...]:
    """The stages of perception, in the order of docs/tables.md.

    Raises:
        CerError: the profile chooses a recogniser or a captioner that does not exist.
    """
    return faces_stage(profile), SPEECH, transcripts_stage(profile), captions_stage(profile)
