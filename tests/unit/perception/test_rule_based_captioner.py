"""The stage `captions` over small tables: every segment has a text or says why it has none."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from cer_pipeline import tables
from cer_pipeline.perception.captions.rule_based.text import PROMPT
from cer_pipeline.perception.captions.specs import captions_stage
from cer_pipeline.perception.faces.blendshapes import INDEX
from cer_pipeline.profiles import load_profile
from cer_pipeline.sound_file import write_sound_file
from cer_pipeline.stage import placeholder_rows
from cer_pipeline.status import Status
from tests.helpers.memory_inputs import MemoryInputs, context, rows, segment

PROFILE = load_profile()
CAPTIONS = captions_stage(PROFILE)
SPECS = {
    "segments": tables.SEGMENTS,
    "frames": tables.FRAMES,
    "faces": tables.FACES,
    "audio": tables.AUDIO,
    "speech": tables.SPEECH,
}


def jpeg(value: int) -> bytes:
    return cv2.imencode(".jpg", np.full((180, 320, 3), value, np.uint8))[1].tobytes()


def flac(seconds: float) -> bytes:
    t = np.arange(round(seconds * 16000)) / 16000
    return write_sound_file(0.1 * np.sin(2 * np.pi * 150 * t), 16000)


def video(name: str, picture: str = "ok", face: str = "ok", sound: str = "ok", speech: str = "ok") -> dict[str, list]:
    """A video of 6 s, so of two windows: at rest, and from 3 s on with raised lip corners."""
    windows = [segment(name, i) | {"start_s": 2.0 * i, "end_s": 2.0 * i + 4} for i in range(2)]
    out: dict[str, list[dict[str, Any]]] = {
        "segments": [w | {"first_sample": 10 * i, "samples": 20} for i, w in enumerate(windows)],
        "frames": [],
        "faces": [],
        "audio": [{"video_id": name, "status": sound, "flac": flac(6) if sound == "ok" else None}],
        "speech": [{"video_id": name, "status": speech, "start_s": 0.0, "end_s": 6.0}],
    }
    image = jpeg(128)
    for k in range(30):
        key = {"video_id": name, "sample": k, "time_s": k / 5}
        ok = picture == "ok"
        out["frames"].append(key | {"status": picture, "height": 180 if ok else None, "jpeg": image if ok else None})
        shapes = np.zeros(52, np.float32)
        shapes[[INDEX["mouthSmileLeft"], INDEX["mouthSmileRight"]]] = 0.9 if k >= 15 else 0.0
        there = {"h": 100.0, "verified": True, "yaw": 0.0, "pitch": 0.0, "roll": 0.0, "blendshapes": shapes.tolist()}
        there["subject_of"] = [i for i in range(2) if 10 * i <= k < 10 * i + 20]
        out["faces"].append({"video_id": name, "sample": k, "status": face} | (there if face == "ok" else {}))
    return out


def inputs(*videos: dict[str, list]) -> MemoryInputs:
    return MemoryInputs({name: rows(spec, [row for v in videos for row in v[name]]) for name, spec in SPECS.items()})


def described(*videos: dict[str, list]) -> list[dict[str, Any]]:
    given = inputs(*videos)
    table = CAPTIONS.load()(context(given, PROFILE))(CAPTIONS.plan(given, PROFILE))
    assert table.schema.equals(tables.CAPTIONS.schema)
    return table.to_pylist()


def test_every_segment_is_described_from_its_own_samples():
    first, second = described(video("v"))
    assert [first["segment_id"], second["segment_id"]] == ["v/0000", "v/0001"]
    assert {first["status"], second["status"]} == {"ok"} and first["prompt"] == PROMPT
    assert "Over the window the lip corners pull up and back." in first["text"]
    assert "The lip corners are pulled up and back" in second["text"]
    assert "A voice speaks nearly all the time" in second["text"]


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"face": "no_face"}, "No face is visible."),
        ({"sound": "no_audio", "speech": "no_audio"}, "There is no sound."),
        ({"speech": "no_speech"}, "nobody speaks"),
        ({"speech": "model_unavailable"}, "There is sound."),
        ({"picture": "no_video", "face": "no_video"}, "There is no picture."),
    ],
)
def test_the_parts_that_a_window_has_are_described(parts: dict[str, str], sentence: str):
    for row in described(video("v", **parts)):
        assert row["status"] == "ok" and sentence in row["text"]


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ({"picture": "no_video", "face": "no_video", "sound": "no_audio", "speech": "no_audio"}, Status.NO_VIDEO),
        ({"picture": "undecodable", "face": "undecodable", "sound": "undecodable"}, Status.UNDECODABLE),
        ({"face": "model_unavailable"}, Status.MODEL_UNAVAILABLE),
        ({"face": "failed"}, Status.FAILED),
    ],
)
def test_what_cannot_be_described_says_why(parts: dict[str, str], status: Status):
    for row in described(video("v", **parts)):
        assert row["status"] == status and row["reason"] and row["text"] is None


def test_a_video_is_described_alike_alone_and_among_others():
    a, b = video("a"), video("b", face="no_face")
    assert described(a, b) == described(a) + described(b)


def test_the_plan_has_a_unit_per_video_and_follows_every_input():
    given = inputs(video("a"), video("b"))
    plan = CAPTIONS.plan(given, PROFILE)
    assert plan.column("unit").to_pylist() == ["a", "b"]
    for changed in ({"face": "no_face"}, {"sound": "no_audio"}, {"speech": "no_speech"}, {"picture": "no_video"}):
        other = CAPTIONS.plan(inputs(video("a", **changed), video("b")), PROFILE).column("inputs").to_pylist()
        mine = plan.column("inputs").to_pylist()
        assert other[0] != mine[0] and other[1] == mine[1]
    blank = placeholder_rows(CAPTIONS, plan.to_pylist()[0], Status.FAILED, "why")
    assert [r["segment_id"] for r in blank] == ["a/0000", "a/0001"]
    assert pa.Table.from_pylist(blank, schema=tables.CAPTIONS.schema).num_rows == 2
