"""The stages of perception as the runner sees them: plans, rows for every unit, statuses, counters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from memory_inputs import MemoryInputs, rows, segment
from numpy.typing import NDArray
from pictures import sound_of

from cer_pipeline import tables
from cer_pipeline.perception.crops import expand
from cer_pipeline.perception.stages import FACES, SPEECH, STAGES, TRANSCRIPTS
from cer_pipeline.profiles import load_profile
from cer_pipeline.sound_file import write_sound_file
from cer_pipeline.stage import INPUTS, UNIT, StageContext, StageSpec, blank_rows
from cer_pipeline.status import Status
from cer_pipeline.zoo import Zoo

Picture = Callable[[str, float], NDArray[np.uint8]]


def flac(sound: NDArray[np.int16]) -> bytes:
    return write_sound_file(sound, 16_000)


def jpeg(rgb: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def windows(video: str, seconds: float) -> list[dict]:
    count = 1 if seconds <= 4 else int(np.ceil((seconds - 4) / 2)) + 1
    return [
        segment(video, i)
        | {
            "start_s": 2.0 * i,
            "end_s": min(2.0 * i + 4, seconds),
            "first_sample": 10 * i,
            "samples": min(20, int(np.ceil(seconds * 5)) - 10 * i),
            "is_tail": i == count - 1,
        }
        for i in range(count)
    ]


def shard_of(frames: list[dict], audio: list[dict], segments: list[dict]) -> MemoryInputs:
    videos = sorted({row["video_id"] for row in segments})
    return MemoryInputs(
        {
            "videos": rows(tables.VIDEOS, [{"video_id": v, "path": v, "sha256": v} for v in videos]),
            "frames": rows(tables.FRAMES, frames),
            "audio": rows(tables.AUDIO, audio),
            "segments": rows(tables.SEGMENTS, segments),
        }
    )


def make(spec: StageSpec, inputs: MemoryInputs, zoo: Zoo) -> tuple[pa.Table, StageContext]:
    """The stage's table, put into the inputs for the stages behind it."""
    context = StageContext(load_profile(), zoo, inputs)
    table = spec.load()(context)(spec.plan(inputs, context.profile)).cast(spec.table.schema)
    table.validate(full=True)
    inputs.tables[spec.name] = table
    return table, context


@pytest.fixture
def silent_shard() -> MemoryInputs:
    """Videos that nobody can look at or listen to: no video and no audio stream, and a damaged one."""
    frames = [
        {"video_id": "a", "sample": k, "status": str(Status.NO_VIDEO), "reason": "no video stream"} for k in range(3)
    ] + [{"video_id": "b", "sample": k, "status": str(Status.UNDECODABLE), "reason": "damaged"} for k in range(25)]
    audio = [
        {"video_id": "a", "status": str(Status.NO_AUDIO), "reason": "no audio stream"},
        {"video_id": "b", "status": str(Status.UNDECODABLE), "reason": "damaged"},
    ]
    return shard_of(frames, audio, windows("a", 0.6) + windows("b", 5.0))


def test_the_plan_has_one_row_a_video_and_its_key_hangs_on_what_the_stage_reads(silent_shard: MemoryInputs) -> None:
    profile = load_profile()
    before = FACES.plan(silent_shard, profile)
    assert before.column(UNIT).to_pylist() == ["a", "b"]
    changed = silent_shard.tables["frames"].to_pylist()
    changed[0]["reason"] = "another"
    silent_shard.tables["frames"] = rows(tables.FRAMES, changed)
    after = FACES.plan(silent_shard, profile)
    assert before.column(INPUTS)[0] != after.column(INPUTS)[0]
    assert before.column(INPUTS)[1] == after.column(INPUTS)[1]


def test_a_video_that_could_not_be_computed_keeps_a_row_for_every_sample_and_segment(
    silent_shard: MemoryInputs,
) -> None:
    profile = load_profile()
    unit = FACES.plan(silent_shard, profile).to_pylist()[1]
    blank = blank_rows(FACES, unit, Status.MODEL_UNAVAILABLE, "no weights")
    assert [row["sample"] for row in blank] == list(range(25))
    pa.Table.from_pylist(blank, schema=FACES.table.schema).validate(full=True)
    silent_shard.tables["speech"] = rows(tables.SPEECH, [{"video_id": v, "status": "no_audio"} for v in "ab"])
    unit = TRANSCRIPTS.plan(silent_shard, profile).to_pylist()[1]
    blank = blank_rows(TRANSCRIPTS, unit, Status.MODEL_UNAVAILABLE, "no weights")
    assert [row["segment_id"] for row in blank] == ["b/0000", "b/0001"]


def test_the_stages_stand_in_an_order_in_which_they_can_run() -> None:
    made = {"videos", "segments", "frames", "audio"}
    for spec in STAGES:
        assert set(spec.inputs) <= made
        made.add(spec.name)


def test_every_sample_and_segment_passes_on_why_it_has_no_value(silent_shard: MemoryInputs, weights: Zoo) -> None:
    faces, context = make(FACES, silent_shard, weights)
    assert faces.column("status").to_pylist() == ["no_video"] * 3 + ["undecodable"] * 25
    assert faces.column("reason").to_pylist() == ["no video stream"] * 3 + ["damaged"] * 25
    assert not context.counters["calls/centerface"]
    speech, _ = make(SPEECH, silent_shard, weights)
    assert speech.column("status").to_pylist() == ["no_audio", "undecodable"]
    words, context = make(TRANSCRIPTS, silent_shard, weights)
    assert words.column("status").to_pylist() == ["no_audio", "undecodable", "undecodable"]
    assert words.column("text").to_pylist() == [None] * 3
    assert not context.counters["calls/whisper_tiny_en"]


def test_faces_are_verified_tracked_and_cropped(weights: Zoo, picture: Picture) -> None:
    talking, empty = picture("talking_1.mp4", 1.0), picture("no_face.mp4", 1.0)
    frames = [
        {"video_id": "v", "sample": k, "jpeg": jpeg(empty if k == 1 else talking), "status": "ok"} for k in range(4)
    ]
    faces, context = make(FACES, shard_of(frames, [], windows("v", 0.8)), weights)
    found = faces.to_pylist()
    assert [row["status"] for row in found] == ["ok", "no_face", "ok", "ok"]
    assert [row["track"] for row in found] == [0, None, 0, 0]
    assert [row["subject_of"] for row in found] == [[0], [], [0], [0]]
    assert [row["is_subject"] for row in found] == [True, False, True, True]
    assert found[1]["x"] is None
    assert context.counters == {"calls/centerface": 4, "calls/face_landmarker": 3}
    first = found[0]
    side = expand(first["x"], first["y"], first["w"], first["h"], load_profile()["faces"]["margin"]).side
    crop = cv2.imdecode(np.frombuffer(first["crop"], np.uint8), cv2.IMREAD_COLOR)
    assert crop is not None
    assert crop.shape[0] == crop.shape[1] == min(256, side)
    assert first | {"sample": 0} == found[2] | {"sample": 0}  # the same picture gives the same row


def test_a_video_gives_the_same_rows_alone_and_among_others(weights: Zoo, picture: Picture) -> None:
    shown = {"u": picture("obama_speech.mp4", 4.0), "v": picture("talking_1.mp4", 1.0)}
    frames = [{"video_id": v, "sample": 0, "jpeg": jpeg(p), "status": "ok"} for v, p in shown.items()]
    both, _ = make(FACES, shard_of(frames, [], windows("u", 0.2) + windows("v", 0.2)), weights)
    alone, _ = make(FACES, shard_of(frames[1:], [], windows("v", 0.2)), weights)
    assert both.slice(both.num_rows - alone.num_rows).to_pylist() == alone.to_pylist()


@pytest.mark.slow
def test_words_stand_in_every_window_that_they_are_heard_in(weights: Zoo, media: Path) -> None:
    sound = sound_of(media / "talking_1.mp4")
    quiet = np.zeros(8 * 16_000, np.int16)
    audio = [
        {"video_id": "quiet", "flac": flac(quiet), "status": "ok"},
        {"video_id": "talk", "flac": flac(np.concatenate([sound, quiet])), "status": "ok"},
    ]
    segments = windows("quiet", 8.0) + windows("talk", len(sound) / 16_000 + 8)
    shard = shard_of([], audio, segments)
    speech, context = make(SPEECH, shard, weights)
    assert speech.column("status").to_pylist()[0] == "no_speech"
    assert context.counters["calls/silero_vad"] == 2
    table, _ = make(TRANSCRIPTS, shard, weights)
    words = table.to_pylist()
    assert [row["segment_id"] for row in words] == [row["segment_id"] for row in segments]
    assert {row["status"] for row in words if row["video_id"] == "quiet"} == {"no_speech"}
    talk = [row for row in words if row["video_id"] == "talk"]
    assert "asking for help" in talk[0]["text"]
    assert "do better at that" in talk[1]["text"]
    assert "when I need it" in talk[0]["text"]
    assert "when I need it" in talk[1]["text"]  # in the two seconds that both windows share
    assert talk[-1]["status"] == "no_speech"
    for row in talk:
        for word in row["words"] or ():
            assert 2 * row["segment"] <= (word["start_s"] + word["end_s"]) / 2 < 2 * row["segment"] + 4
